"""What an app feels: from its command DATA to its 250, and to the last byte at the upstream.

`python -m bench.clients [--quick] [--rows APP ...] [--repeat N] [--no-postfix]`; as root. README.md says how it is
measured. Apps that aren't installed are left out by name.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from bench import message, usage
from bench.clients.apps import APPS, App
from bench.clients.capture import Capture, Segment, exchanges, permitted
from bench.options import Options, parse, preamble, save, say, table
from bench.process import Child, Failed
from bench.records import Sent, Spread, quantiles
from bench.stage import CodesRun, Network, Stage, contender, judged, wrong

COUNT = 50
QUICK_COUNT = 3
UNCOUNTED = 3
"""an app's first messages: its own code is loaded by them"""
PAUSE_S = 0.1
SUBMIT_WITHIN_S = 60.0
SETTLE_S = 1.0
TARGET = "to the 250: ≤ 5"
PEERS = ("postfix",)

Runs = dict[tuple[str, str], list[CodesRun]]
"""by app and contender"""


def measure(stage: Stage, name: str, apps: Sequence[App], count: int, take: Callable[[App, CodesRun], None]) -> None:
    """One contender, one app after the other. Raises Failed."""
    with stage.scene():
        sink = stage.sink()
        site = stage.site([stage.upstream(sink, Network())], stage.upstream(stage.sink(fast=False), Network()))
        with contender(name, site) as running:
            stage.warm_up(running.port, sink)
            time.sleep(SETTLE_S)
            for app in apps:
                before = usage.of_trees(running.roots)
                sent = submit(stage, running.port, app, count)
                take(app, judged(sent, sink, partial(usage.of_trees, running.roots), before))


def submit(stage: Stage, port: int, app: App, count: int) -> list[Sent]:
    """Messages of an app, one at a time. `dot_ns` of each is when the app sent DATA. Raises Failed."""
    template = stage.fresh("template.eml")
    template.write_bytes(message.otp(0, app.body_bytes))
    ids = stage.ids(UNCOUNTED + count)
    segments: list[Segment] = []
    with Capture(port) as capture:
        argv = [*app.argv, "127.0.0.1", str(port), str(template)]
        with Child(argv, stage.fresh(f"{app.name}.log"), talks=True) as child:
            for bench_id in ids:
                child.tell(f"{bench_id:016x}")
                answer = child.line(SUBMIT_WITHIN_S)
                if answer != "sent":
                    say(f"{app.name}: {answer}")
                segments += capture.drain()
                time.sleep(PAUSE_S)
    seen = {one.bench_id: one for one in exchanges(segments)}
    sent = []
    for bench_id in ids[UNCOUNTED:]:
        one = seen.get(bench_id)
        taken = one is not None and one.reply.startswith(b"250")
        sent.append(Sent(bench_id, one.data_ns, one.reply_ns) if one and taken else Sent(bench_id, 0, 0))
    return sent


def measure_all(stage: Stage, apps: Sequence[App], options: Options) -> tuple[Runs, int]:
    """Contenders take turns; and how many could not be measured."""
    runs: Runs = {}
    failures = 0
    count = QUICK_COUNT if options.quick else COUNT
    for _ in range(options.repeat):
        for name in ("floor", "relay", *(PEERS if options.peers else ())):

            def take(app: App, run: CodesRun, name: str = name) -> None:
                runs.setdefault((app.name, name), []).append(run)
                waits, arrives = quantiles(run.acknowledged_ms), quantiles(run.times_ms)
                say(f"{app.name:10} {name:8} 250 {waits.p50:6.2f}  upstream {arrives.p50:6.2f} ms  n {waits.n}")

            try:
                measure(stage, name, apps, count, take)
            except Failed as failure:
                failures += 1
                say(f"{name}: FAILED: {failure}")
    return runs, failures


HEAD = (
    "app", "must reach (ms)", "contender", "250 p50", "p99", "max", "upstream p50", "p99", "max", "n", "wrong",
)  # fmt: skip


def lines(runs: Runs) -> list[list[str]]:
    """The table: apps in their order, contenders in theirs."""
    return [
        [app.title, TARGET, name, *_cells(each, signs=name != "floor")]
        for app in APPS
        for (of, name), each in runs.items()
        if of == app.name
    ]


def _cells(runs: Sequence[CodesRun], *, signs: bool) -> list[str]:
    cells = []
    for each in ([run.acknowledged_ms for run in runs], [run.times_ms for run in runs]):
        figures = [quantiles(times_ms) for times_ms in each]
        cells += [
            f"{Spread.of([one.p50 for one in figures]).median:.2f}",
            f"{Spread.of([one.p99 for one in figures]).median:.2f}",
            f"{max(one.worst for one in figures):.2f}",
        ]
    return [*cells, f"{len(runs)} × {max(len(run.times_ms) for run in runs)}", wrong(runs, signs=signs)]


def _dump(app: str, name: str, run: CodesRun) -> dict[str, Any]:
    waits, arrives = quantiles(run.acknowledged_ms), quantiles(run.times_ms)
    return {
        "row": f"clients, {app}",
        "contender": name,
        "data_to_250_ms": {"n": waits.n, "p50": waits.p50, "p99": waits.p99, "worst": waits.worst},
        "data_to_upstream_ms": {"n": arrives.n, "p50": arrives.p50, "p99": arrives.p99, "worst": arrives.worst},
        "wrong": wrong([run], signs=name != "floor"),
    }


def main(argv: Sequence[str] | None = None) -> int:
    options = parse("clients", __doc__ or "", [app.name for app in APPS], argv)
    if not permitted():
        say("bench.clients reads its times off the packets on loopback, which takes root (CAP_NET_RAW)")
        return 2
    apps = []
    for app in APPS:
        if app.name in options.rows:
            if app.installed:
                apps.append(app)
            else:
                say(f"without {app.title}: not installed ({app.comes_from})")
    print(preamble(options), end="\n\n", flush=True)
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        runs, failures = measure_all(stage, apps, options) if apps else ({}, 0)
    if runs:
        print(table(HEAD, lines(runs)))
    save(options, [_dump(app, name, run) for (app, name), each in runs.items() for run in each])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
