"""Codes that may meet no ready session: rotation, random arrivals, bursts; and an upstream without PIPELINING.

`python -m bench.cold [--quick] [--rows ROW ...] [--repeat N] [--no-postfix]`; README.md says what each row means.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from bench import records, usage
from bench.options import Options, parse, preamble, save, say, table
from bench.process import Failed
from bench.records import Sent, Spread, quantiles
from bench.stage import ARRIVE_WITHIN_S, Codes, CodesRun, Network, Stage, contender, judged, wrong

LATE_MS = 15.0
"""beyond the floor's median: such a code is late"""
SETTLE_S = 1.0
QUICK_CODES = 20
QUICK_BURST = 10
QUICK_MESSAGES = 5
"""for each session, so that sessions are replaced in a quick run too"""
_FAR = Network(rtt_ms=40, tls=True)
_SEED = 10
_BURST = 50
_SESSIONS = {"max": 20}
"""how many stay open is the relay's own decision"""


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    title: str
    target: str
    codes: Codes
    network: Network = _FAR
    sessions: Mapping[str, int] = field(default_factory=lambda: _SESSIONS)
    """of the relay's upstream for codes"""
    peers: tuple[str, ...] = ("postfix", "postfix-kept")


ROWS = (
    Row("rotation", "300 codes, 10/s, 100 for each session", f"0 later than floor + {LATE_MS:.0f}", Codes(300, 10),
        sessions=_SESSIONS | {"messages": 100}),
    Row("poisson", "300 codes at random, 10/s on average", "at most 3 late, p99 ≤ 80", Codes(300, 10, seed=_SEED)),
    Row("burst", f"{_BURST} codes at once, every 5 s", "p99 ≤ 200", Codes(6 * _BURST, 10, burst=_BURST)),
    Row("burst-chunking", f"{_BURST} codes at once, CHUNKING", "p99 ≤ 80", Codes(6 * _BURST, 10, burst=_BURST),
        replace(_FAR, chunking=True), peers=("postfix",)),
    Row("no-pipelining", "5/s, upstream without PIPELINING", "floor + 5", Codes(100, 5),
        replace(_FAR, pipelining=False)),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Measured:
    """One contender, one repetition: all codes of a row, or its first burst, or its later ones."""

    row: str
    part: str
    contender: str
    run: CodesRun
    late: int | None
    """None: this repetition has no floor"""
    stolen_percent: float
    """of the processors' time, meanwhile taken by other virtual machines"""


def quick(row: Row) -> Row:
    burst = min(row.codes.burst, QUICK_BURST)
    sessions = {key: QUICK_MESSAGES if key == "messages" else value for key, value in row.sessions.items()}
    return replace(row, codes=replace(row.codes, count=QUICK_CODES, burst=burst), sessions=sessions)


def parts(codes: Codes, sent: Sequence[Sent]) -> dict[str, list[Sent]]:
    """The first burst apart from the later ones: it meets the sessions of a relay that has seen no burst yet."""
    if codes.burst == 1:
        return {"": list(sent)}
    return {"first": list(sent[: codes.burst]), "later": list(sent[codes.burst :])}


def late(times_ms: Sequence[float], floor_p50_ms: float) -> int:
    """How many codes came later than the floor's median and LATE_MS."""
    return sum(1 for took in times_ms if took > floor_p50_ms + LATE_MS)


def measure(stage: Stage, name: str, row: Row) -> dict[str, CodesRun]:
    """One contender, once; by part. Raises Failed."""
    with stage.scene():
        sink = stage.sink(row.network)
        bulk = stage.upstream(stage.sink(fast=False), Network())
        site = stage.site([stage.upstream(sink, row.network)], bulk)
        site = replace(site, sessions=row.sessions, floor_sessions=max(site.floor_sessions, row.codes.burst))
        with contender(name, site) as running:
            stage.warm_up(running.port, sink)
            time.sleep(SETTLE_S)
            before = usage.of_trees(running.roots)
            child, sent_file = stage.codes(running.port, row.codes)
            child.wait(row.codes.count / row.codes.rate + ARRIVE_WITHIN_S)
            return {
                part: judged(some, sink, lambda: usage.of_trees(running.roots), before)
                for part, some in parts(row.codes, records.sent(sent_file)).items()
            }


def measure_all(stage: Stage, rows: Sequence[Row], options: Options) -> tuple[list[Measured], int]:
    """Contenders take turns, the floor first; and how many could not be measured."""
    found, failures = list[Measured](), 0
    for row in rows:
        played = quick(row) if options.quick else row
        for _ in range(options.repeat):
            floor_p50_ms: dict[str, float] = {}
            for name in ("floor", "relay", *(row.peers if options.peers else ())):
                before = usage.Machine.now()
                try:
                    runs = measure(stage, name, played)
                except Failed as failure:
                    failures += 1
                    say(f"{row.name} {name}: FAILED: {failure}")
                    continue
                if name == "floor":
                    floor_p50_ms = {part: quantiles(run.times_ms).p50 for part, run in runs.items()}
                stolen = before.stolen_percent_until(usage.Machine.now())
                for part, run in runs.items():
                    over = late(run.times_ms, floor_p50_ms[part]) if floor_p50_ms else None
                    found.append(Measured(row.name, part, name, run, over, stolen))
                    _progress(found[-1])
    return found, failures


def _progress(one: Measured) -> None:
    figures = quantiles(one.run.times_ms)
    say(
        f"{_label(one.row, one.part):21} {one.contender:13} p50 {figures.p50:7.2f}  p99 {figures.p99:7.2f}"
        f"  max {figures.worst:7.2f} ms  late {one.late}  n {figures.n}"
        f"  stolen {one.stolen_percent:.1f} %"
    )


def _label(row: str, part: str) -> str:
    return f"{row}, {part}" if part else row


HEAD = (
    "work", "must reach (ms)", "contender", "p50", "p99", "p99 low–high", "max", "late", "app's 250 p99", "n", "wrong",
    "stolen %",
)  # fmt: skip


def lines(found: Sequence[Measured]) -> list[list[str]]:
    """The table: rows in their order, contenders in theirs."""
    answer = []
    for row in ROWS:
        of_row = [one for one in found if one.row == row.name]
        for part in dict.fromkeys(one.part for one in of_row):
            for name in dict.fromkeys(one.contender for one in of_row):
                each = [one for one in of_row if (one.part, one.contender) == (part, name)]
                answer.append([_label(row.title, part), row.target, name, *_cells(each)])
    return answer


def _cells(each: Sequence[Measured]) -> list[str]:
    runs = [one.run for one in each]
    figures = [quantiles(run.times_ms) for run in runs]
    p99 = Spread.of([one.p99 for one in figures])
    over = [one.late for one in each if one.late is not None]
    return [
        f"{Spread.of([one.p50 for one in figures]).median:.2f}",
        f"{p99.median:.2f}",
        f"{p99.low:.2f}–{p99.high:.2f}",
        f"{max(one.worst for one in figures):.2f}",
        f"{min(over)}–{max(over)}" if over else "?",
        f"{Spread.of([quantiles(run.acknowledged_ms).p99 for run in runs]).median:.2f}",
        f"{len(runs)} × {max(one.n for one in figures)}",
        wrong(runs, signs=each[0].contender != "floor"),
        f"{min(one.stolen_percent for one in each):.1f}–{max(one.stolen_percent for one in each):.1f}",
    ]


def dump(one: Measured) -> dict[str, Any]:
    ms, waits = quantiles(one.run.times_ms), quantiles(one.run.acknowledged_ms)
    return {
        "row": _label(one.row, one.part),
        "contender": one.contender,
        "ms": {"n": ms.n, "p50": ms.p50, "p95": ms.p95, "p99": ms.p99, "worst": ms.worst},
        "app_waits_ms": {"p50": waits.p50, "p99": waits.p99, "worst": waits.worst},
        "late": one.late,
        "stolen_percent": one.stolen_percent,
        "wrong": wrong([one.run], signs=one.contender != "floor"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = parse("cold", __doc__ or "", [row.name for row in ROWS], argv)
    print(preamble(options), end="\n\n", flush=True)
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        found, failures = measure_all(stage, [row for row in ROWS if row.name in options.rows], options)
    if found:
        print(table(HEAD, lines(found)))
    save(options, [dump(one) for one in found])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
