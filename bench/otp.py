"""How long a code takes from the app's final dot to the upstream's last byte, idle and beside bulk mail.

`python -m bench.otp [--quick] [--rows ROW ...] [--repeat N] [--no-postfix]`; README.md says what each row means.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bench import failover
from bench.options import Options, parse, preamble, save, say, table
from bench.process import Failed
from bench.records import Quantiles, Spread, quantiles
from bench.stage import FLOOD_WITHIN_S, Bulk, Codes, CodesRun, Network, Stage, contender, play, wrong

SLOW_BULK_S = 0.05
"""the bulk upstream's pause before it answers a message"""
FLOOR_SHARE = 4
"""the floor is measured with a quarter of the codes: nothing queues there"""
SETTLE_S = 1.0
QUICK_CODES = 20
_NEAR = Network(rtt_ms=20)
_FAR = Network(rtt_ms=40, tls=True)
_LONG = 20 * 300


@dataclass(frozen=True, slots=True)
class Row:
    name: str
    title: str
    target: str
    network: Network
    codes: Codes
    bulk: Bulk | None = None
    least_s: float = 0.0
    """how long codes are measured at least from when the bulk mail begins"""
    peers: tuple[str, ...] = ("postfix",)


ROWS = (
    Row("pipelining", "idle, RTT 40 ms, STARTTLS + AUTH, PIPELINING", "p99 ≤ 65", _FAR, Codes(200, 5),
        peers=("postfix", "postfix-kept")),
    Row("chunking", "the same, CHUNKING", "p99 ≤ 26", replace(_FAR, chunking=True), Codes(200, 5),
        peers=("postfix", "postfix-kept")),
    Row("loopback", "loopback upstream, warm, signed, durable", "p50 ≤ 2, p99 ≤ 5", Network(), Codes(1000, 25)),
    Row("bulk-10", "20/s beside 6,000 bulk, 10 connections, RTT 20 ms", "p99 ≤ 35", _NEAR, Codes(_LONG, 20),
        Bulk(6000, 10), least_s=15),
    Row("bulk-200", "the same, 200 bulk connections", "p99 ≤ 50", _NEAR, Codes(_LONG, 20),
        Bulk(6000, 200), least_s=15),
    Row("big", "20/s while ten 20 MB messages come in, 5 times", "p99 ≤ 50", _NEAR, Codes(_LONG, 20),
        Bulk(10, 10, body_bytes=20_000_000, kept=False, batches=5)),
)  # fmt: skip
QUEUED = "queued"
_QUEUE = Bulk(100_000, 20)
_QUEUED_CODES = Codes(400, 20)


def measure(stage: Stage, name: str, row: Row) -> CodesRun:
    """One contender, once. Raises Failed."""
    with stage.scene():
        sink = stage.sink(row.network)
        site = stage.site(
            [stage.upstream(sink, row.network)], stage.upstream(stage.sink(delay_s=SLOW_BULK_S, fast=False), Network())
        )
        with contender(name, site) as running:
            stage.warm_up(running.port, sink)
            time.sleep(SETTLE_S)
            if name == "floor":
                share = max(QUICK_CODES, min(200, row.codes.count // FLOOR_SHARE))
                return play(stage, running, sink, replace(row.codes, count=share))
            return play(stage, running, sink, row.codes, row.bulk, row.least_s)


def measure_queued(stage: Stage, bulk: Bulk, codes: Codes) -> tuple[CodesRun, CodesRun]:
    """The relay with an empty queue, then with many messages that their upstream doesn't take. Raises Failed."""
    with stage.scene():
        sink = stage.sink(_NEAR)
        hanging = stage.sink(hang="mail", fast=False)
        site = stage.site([stage.upstream(sink, _NEAR)], stage.upstream(hanging, Network()))
        with contender("relay", site) as running:
            stage.warm_up(running.port, sink)
            time.sleep(SETTLE_S)
            empty = play(stage, running, sink, codes)
            stage.flood(running.port, bulk).wait(FLOOD_WITHIN_S)
            time.sleep(SETTLE_S)
            return empty, play(stage, running, sink, codes)


def quick(row: Row) -> Row:
    bulk = row.bulk and replace(row.bulk, count=min(row.bulk.count, 300), batches=1)
    count = row.codes.count if bulk else QUICK_CODES
    return replace(row, codes=replace(row.codes, count=count), bulk=bulk, least_s=min(row.least_s, 2.0))


class Results:
    """By row and contender, a run for each repetition."""

    def __init__(self) -> None:
        self.runs: dict[tuple[str, str], list[CodesRun]] = {}
        self.failures = 0

    def take(self, row: str, name: str, run: Callable[[], CodesRun]) -> None:
        try:
            done = run()
        except Failed as failure:
            self.failures += 1
            say(f"{row} {name}: FAILED: {failure}")
        else:
            self.add(row, name, done)

    def add(self, row: str, name: str, run: CodesRun) -> None:
        self.runs.setdefault((row, name), []).append(run)
        found = quantiles(run.times_ms)
        say(f"{row:11} {name:13} p50 {found.p50:7.2f}  p95 {found.p95:7.2f}  p99 {found.p99:7.2f} ms  n {found.n}")

    def lines(self, row: str, title: str, target: str, *, signs: bool = True) -> list[list[str]]:
        """`signs`: the contenders but the floor sign."""
        return [
            [title, target, name, *_cells(runs, signs=signs and name != "floor")]
            for (of, name), runs in self.runs.items()
            if of == row
        ]

    def dump(self) -> list[dict[str, Any]]:
        return [
            {
                "row": row,
                "contender": name,
                "ms": _fields(quantiles(run.times_ms)),
                "app_waits_ms": _fields(quantiles(run.acknowledged_ms)),
                "failed": run.failed,
                "missing": run.missing,
                "unsigned": run.unsigned,
                "twice": run.twice,
                "peak_rss_bytes": run.peak_rss_bytes,
                "cpu_s": run.cpu_s,
            }
            for (row, name), runs in self.runs.items()
            for run in runs
        ]


HEAD = (
    "work",
    "must reach (ms)",
    "who",
    "p50",
    "p95",
    "p99",
    "p99 low–high",
    "worst",
    "app's 250 p99",
    "n",
    "MB",
    "wrong",
)


def _cells(runs: Sequence[CodesRun], *, signs: bool) -> list[str]:
    each = [quantiles(run.times_ms) for run in runs]
    waits = [quantiles(run.acknowledged_ms) for run in runs]
    p99 = Spread.of([one.p99 for one in each])
    return [
        f"{Spread.of([one.p50 for one in each]).median:.2f}",
        f"{Spread.of([one.p95 for one in each]).median:.2f}",
        f"{p99.median:.2f}",
        f"{p99.low:.2f}–{p99.high:.2f}",
        f"{max(one.worst for one in each):.2f}",
        f"{Spread.of([one.p99 for one in waits]).median:.2f}",
        f"{len(runs)} × {each[0].n}",
        f"{max(run.peak_rss_bytes for run in runs) / 1e6:.0f}",
        wrong(runs, signs=signs),
    ]


def _fields(found: Quantiles) -> dict[str, float]:
    return {"n": found.n, "p50": found.p50, "p95": found.p95, "p99": found.p99, "worst": found.worst}


def run_rows(options: Options, rows: Sequence[Row], results: Results, stage: Stage) -> None:
    """Contenders take turns, so that a machine that grows slower does it to all of them."""
    for row in rows:
        played = quick(row) if options.quick else row
        names = ("floor", "relay", *(row.peers if options.peers else ()))
        for _ in range(options.repeat):
            for name in names:
                results.take(row.name, name, lambda name=name, row=played: measure(stage, name, row))  # type: ignore[misc]


def _run_queued(options: Options, results: Results, stage: Stage) -> None:
    bulk = replace(_QUEUE, count=500) if options.quick else _QUEUE
    codes = replace(_QUEUED_CODES, count=QUICK_CODES) if options.quick else _QUEUED_CODES
    for _ in range(options.repeat):
        try:
            empty, full = measure_queued(stage, bulk, codes)
        except Failed as failure:
            results.failures += 1
            say(f"{QUEUED}: FAILED: {failure}")
        else:
            results.add(QUEUED, "relay, empty queue", empty)
            results.add(QUEUED, f"relay, {bulk.count:,} queued", full)


def main(argv: Sequence[str] | None = None) -> int:
    names = [row.name for row in ROWS]
    options = parse("otp", __doc__ or "", [*names, QUEUED, *failover.ROWS], argv)
    print(preamble(options), end="\n\n", flush=True)
    results, lines = Results(), list[list[str]]()
    failed_over = list[failover.Outcome]()
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        run_rows(options, [row for row in ROWS if row.name in options.rows], results, stage)
        if QUEUED in options.rows:
            _run_queued(options, results, stage)
        for name in failover.ROWS:
            if name in options.rows:
                failed_over += failover.measure(stage, name, options)
    for row in ROWS:
        lines += results.lines(row.name, row.title, row.target)
    lines += results.lines(QUEUED, "100,000 bulk messages queued, RTT 20 ms", "p99 ≤ 1.2 × empty; ≤ 150 MB")
    if lines:
        print(table(HEAD, lines), end="\n\n")
    if failed_over:
        print(failover.table_of(failed_over))
    save(options, [*results.dump(), *map(failover.dump, failed_over)])
    return 1 if results.failures or any(one.failure for one in failed_over) else 0


if __name__ == "__main__":
    sys.exit(main())
