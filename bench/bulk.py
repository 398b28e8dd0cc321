"""How much mail gets through end to end, at what cost.

`python -m bench.bulk [--quick] [--rows ROW ...] [--repeat N] [--no-postfix]`; README.md says what each row means.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from bench import fill, usage
from bench.contender import Site, Upstream
from bench.options import Options, parse, preamble, save, say, table
from bench.process import Failed, wait_until
from bench.records import Spread
from bench.relay import Relay
from bench.stage import FLOOD_WITHIN_S, Bulk, Network, SinkAt, Stage, contender

WARM_UP = Bulk(200, 10)
WARM_UP_WITHIN_S = 60.0
SETTLE_S = 1.0
QUICK_MESSAGES = 200
FULL = "full"


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    title: str
    target: str
    bulk: Bulk


_USUAL = Bulk(5000, 10)
ROWS = (
    Row("2k", "5,000 of 2 KB, 10 connections", "≥ 1,000/s, ≥ 2.3 ×, ≤ 2.0 CPU-s", _USUAL),
    Row("connections", "3,000 of 2 KB, 100 at once, a connection each", "≥ 500/s", Bulk(3000, 100, kept=False)),
    Row("50k", "2,000 of 50 KB, 10 connections", "≥ 1.5 ×", Bulk(2000, 10, body_bytes=50_000)),
)
_FULL_TITLE = "5,000 of 2 KB, {rows:,} log rows, {queued:,} queued"


@dataclass(frozen=True, slots=True)
class BulkRun:
    messages: int
    end_to_end_s: float
    """from the start of the load to the last message at the upstream"""
    intake_s: float
    """from the start of the load to its last 250"""
    cpu_s: float
    peak_rss_bytes: int
    unsigned: int

    @property
    def rate(self) -> float:
        return self.messages / self.end_to_end_s

    @property
    def cpu_per_1000_s(self) -> float:
        return self.cpu_s * 1000 / self.messages


def measure(stage: Stage, name: str, bulk: Bulk) -> BulkRun:
    """One contender, once. Raises Failed."""
    with stage.scene():
        sink = stage.sink(fast=False)
        upstream = stage.upstream(sink, Network())
        with contender(name, stage.site([upstream], upstream)) as running:
            return _pour(stage, running.port, running.roots, sink, bulk)


def full_site(stage: Stage, rows: int, queued: int) -> Site:
    """A site whose store has a long log, and a long queue in a lane of its own. Raises Failed."""
    with stage.scene():
        sink = stage.sink(fast=False)
        site = _with_upstreams(stage, stage.site([], Upstream(0)), sink)
        with Relay(site) as running:
            stage.flood(running.port, replace(WARM_UP, count=1, connections=1)).wait(WARM_UP_WITHIN_S)
            stage.flood(running.port, replace(WARM_UP, count=1, connections=1, lane="parked")).wait(WARM_UP_WITHIN_S)
            wait_until("a sent message", lambda: sink.arrived == 1, WARM_UP_WITHIN_S)
            time.sleep(SETTLE_S)
        began = time.monotonic()
        fill.fill(site.directory, rows, queued)
        say(f"filled the store in {time.monotonic() - began:.0f} s")
        return site


def measure_full(stage: Stage, site: Site, bulk: Bulk) -> BulkRun:
    """The relay over the store of such a site. Raises Failed."""
    with stage.scene():
        sink = stage.sink(fast=False)
        with Relay(_with_upstreams(stage, site, sink)) as running:
            say(f"ready after {running.ready_after_s:.2f} s")
            return _pour(stage, running.port, running.roots, sink, bulk)


def _with_upstreams(stage: Stage, site: Site, sink: SinkAt) -> Site:
    upstream = stage.upstream(sink, Network())
    return replace(site, otp=(upstream,), bulk=upstream, parked=stage.upstream(stage.sink(hang="mail"), Network()))


def _pour(stage: Stage, port: int, roots: Sequence[int], sink: SinkAt, bulk: Bulk) -> BulkRun:
    already = sink.arrived
    warm_up = replace(WARM_UP, body_bytes=bulk.body_bytes)
    stage.flood(port, warm_up).wait(WARM_UP_WITHIN_S)
    wait_until("warm-up", lambda: sink.arrived >= already + warm_up.count, WARM_UP_WITHIN_S)
    time.sleep(SETTLE_S)
    already = sink.arrived
    before = usage.of_trees(roots)
    load = stage.flood(port, bulk)
    load.wait(FLOOD_WITHIN_S)
    intake_s = (time.monotonic_ns() - load.began_ns) / 1e9
    wait_until("the last message", lambda: sink.arrived >= already + bulk.count, FLOOD_WITHIN_S, every_s=0.05)
    time.sleep(SETTLE_S)  # what is still written after the last reply belongs to its cost
    after = usage.of_trees(roots)
    arrivals = sink.arrivals()[already:]
    if len(arrivals) > bulk.count:
        raise Failed(f"{len(arrivals) - bulk.count} messages arrived twice")
    return BulkRun(
        messages=bulk.count,
        end_to_end_s=(max(one.at_ns for one in arrivals) - load.began_ns) / 1e9,
        intake_s=intake_s,
        cpu_s=after.cpu_s - before.cpu_s,
        peak_rss_bytes=after.peak_rss_bytes,
        unsigned=sum(not one.signed for one in arrivals),
    )


class Results:
    """By row, for each repetition what the contenders reached in it."""

    def __init__(self) -> None:
        self.rounds: dict[str, list[dict[str, BulkRun]]] = {}
        self.failures = 0

    def take(self, row: str, name: str, turn: dict[str, BulkRun], run: Callable[[], BulkRun]) -> None:
        try:
            done = run()
        except Failed as failure:
            self.failures += 1
            say(f"{row} {name}: FAILED: {failure}")
        else:
            turn[name] = done
            say(f"{row:11} {name:8} {done.rate:7.0f} msgs/s  {done.cpu_per_1000_s:5.2f} CPU-s per 1,000")

    def lines(self, row: str, title: str, target: str) -> list[list[str]]:
        rounds = self.rounds.get(row, [])
        names = dict.fromkeys(name for turn in rounds for name in turn)
        return [[title, target, name, *_cells(rounds, name)] for name in names]

    def dump(self) -> list[dict[str, Any]]:
        return [
            {"row": row, "repetition": number, "contender": name, "rate": run.rate, **asdict(run)}
            for row, rounds in self.rounds.items()
            for number, turn in enumerate(rounds, 1)
            for name, run in turn.items()
        ]


HEAD = (
    "work", "must reach", "who", "msgs/s", "low–high", "× Postfix", "low–high", "intake/s", "CPU-s per 1,000", "MB",
    "n", "wrong",
)  # fmt: skip


def _cells(rounds: Sequence[dict[str, BulkRun]], name: str) -> list[str]:
    runs = [turn[name] for turn in rounds if name in turn]
    # Ratios within a round: the machine's pace changes between them.
    ratios = [turn[name].rate / turn["postfix"].rate for turn in rounds if name in turn and "postfix" in turn]
    rate, ratio = Spread.of([run.rate for run in runs]), Spread.of(ratios)
    compared = name != "postfix" and ratios
    unsigned = sum(run.unsigned for run in runs)
    return [
        f"{rate.median:.0f}",
        f"{rate.low:.0f}–{rate.high:.0f}",
        f"{ratio.median:.2f}" if compared else "-",
        f"{ratio.low:.2f}–{ratio.high:.2f}" if compared else "-",
        f"{Spread.of([run.messages / run.intake_s for run in runs]).median:.0f}",
        f"{Spread.of([run.cpu_per_1000_s for run in runs]).median:.2f}",
        f"{max(run.peak_rss_bytes for run in runs) / 1e6:.0f}",
        f"{len(runs)} × {runs[0].messages}",
        f"{unsigned} unsigned" if unsigned else "-",
    ]


def _run_full(options: Options, results: Results, stage: Stage) -> str:
    rows, queued = (30_000, 500) if options.quick else (10_000_000, 100_000)
    bulk = replace(_USUAL, count=QUICK_MESSAGES) if options.quick else _USUAL
    try:
        site = full_site(stage, rows, queued)
    except Failed as failure:
        results.failures += 1
        say(f"{FULL}: FAILED: {failure}")
        return ""
    for _ in range(options.repeat):
        turn: dict[str, BulkRun] = {}
        results.rounds.setdefault(FULL, []).append(turn)
        results.take(FULL, "relay, empty", turn, lambda: measure(stage, "relay", bulk))
        results.take(FULL, "relay, full", turn, lambda: measure_full(stage, site, bulk))
    return _FULL_TITLE.format(rows=rows, queued=queued)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse("bulk", __doc__ or "", [*(row.name for row in ROWS), FULL], argv)
    print(preamble(options), end="\n\n", flush=True)
    results, lines, full_title = Results(), list[list[str]](), ""
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        for row in ROWS:
            if row.name not in options.rows:
                continue
            bulk = replace(row.bulk, count=QUICK_MESSAGES) if options.quick else row.bulk
            for _ in range(options.repeat):
                turn: dict[str, BulkRun] = {}
                results.rounds.setdefault(row.name, []).append(turn)
                for name in ("relay", "postfix") if options.peers else ("relay",):
                    results.take(row.name, name, turn, lambda n=name, t=bulk: measure(stage, n, t))  # type: ignore[misc]
        if FULL in options.rows:
            full_title = _run_full(options, results, stage)
    for row in ROWS:
        lines += results.lines(row.name, row.title, row.target)
    lines += results.lines(FULL, full_title, "within 15 %")
    print(table(HEAD, lines))
    save(options, results.dump())
    return 1 if results.failures else 0


if __name__ == "__main__":
    sys.exit(main())
