"""The rows of `bench.cold` count what they promise to count."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.cold import ROWS, Measured, late, lines, parts, quick
from bench.contender import Site, Upstream
from bench.records import Sent
from bench.relay import configuration
from bench.stage import Codes, CodesRun, wrong


def run(*times_ms: float, failed: int = 0, unsigned: int = 0, twice: int = 0) -> CodesRun:
    return CodesRun(times_ms, times_ms, failed, 0, unsigned, twice, 0, 0.0)


def sent(count: int) -> list[Sent]:
    return [Sent(number, 1, 2) for number in range(count)]


def test_the_first_burst_is_judged_apart_from_the_later_ones() -> None:
    found = parts(Codes(6, 10, burst=2), sent(6))
    assert {name: [one.bench_id for one in some] for name, some in found.items()} == {
        "first": [0, 1],
        "later": [2, 3, 4, 5],
    }


def test_codes_without_bursts_are_judged_together() -> None:
    assert parts(Codes(6, 10), sent(6)) == {"": sent(6)}


def test_a_code_is_late_when_it_is_more_than_15_ms_behind_the_floors_median() -> None:
    assert late([60.0, 75.0, 75.1, 300.0], floor_p50_ms=60.0) == 2


@pytest.mark.parametrize(
    ("runs", "signs", "named"),
    [
        ([run(1.0), run(2.0)], True, "-"),
        ([run(1.0, failed=1), run(2.0, failed=1, twice=1)], True, "2 refused, 1 sent twice"),
        ([run(1.0, unsigned=1)], True, "1 unsigned"),
        ([run(1.0, unsigned=1)], False, "-"),
    ],
)
def test_what_went_wrong_is_named(runs: list[CodesRun], signs: bool, named: str) -> None:
    assert wrong(runs, signs=signs) == named


def test_repetitions_of_a_contender_are_one_line_of_the_table() -> None:
    found = [
        Measured("poisson", "", name, run(took), over, stolen_percent=1.0)
        for took, over in ((60.0, 1), (62.0, 3))
        for name in ("floor", "relay")
    ]
    title = next(row.title for row in ROWS if row.name == "poisson")
    cells = lines(found)
    assert [(line[0], line[2]) for line in cells] == [(title, "floor"), (title, "relay")]
    assert "1–3" in cells[1]


def test_a_quick_run_uses_its_sessions_up_too() -> None:
    short = quick(next(row for row in ROWS if row.name == "rotation"))
    assert short.codes.count > 2 * short.sessions["messages"]


def test_a_row_decides_the_sessions_of_the_relays_upstream_for_codes() -> None:
    site = Site(Path(), (Upstream(1),), Upstream(2), Path("key"), sessions=ROWS[0].sessions)
    upstreams = configuration(site)["upstreams"]
    assert upstreams["otp1"]["sessions"] == {"max": 20, "messages": 100}
    assert "messages" not in upstreams["bulk"]["sessions"]
