"""What codes feel of delivery events: 20 codes a second, undisturbed and beside 1,000 events a second.

`python -m bench.webhooks [--quick] [--rows ROW ...] [--repeat N]`; a row is the way in: `own` is `webhooks.address`,
`shared` is `http.address`. `-forged` are 20 bodies of 5 MiB a second instead, which prove nothing. In each repetition
the same relay is measured undisturbed right before.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import sys
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.options import Options, parse, preamble, save, table
from bench.process import Child, Failed, module
from bench.records import Spread, quantiles
from bench.relay import Relay
from bench.repeated import repeated
from bench.stage import FLOOD_WITHIN_S, Bulk, Codes, CodesRun, Network, Stage, play

RATE, CONNECTIONS = 1_000, 8
TARGET_PERCENT = 20.0
"""how much later the 99th percentile may be than undisturbed"""
ROWS = ("own", "shared", "own-forged", "shared-forged")
FORGED_BYTES, FORGED_RATE = 5 * 1024 * 1024, 20
HEAD = (
    "beside 1,000 events/s", "p50", "p99", "undisturbed p99", "p99 later by", "low–high", "events/s", "answer p50/p99",
    "CPU", "MB", "wrong",
)  # fmt: skip
_NETWORK = Network(rtt_ms=20)
_CODES = Codes(300, 20)
_QUICK_CODES = Codes(20, 20)
_LOGGED = Bulk(1_000, 10)
_BEFORE_S = 1.0


@dataclass(frozen=True, slots=True)
class Outcome:
    row: str
    calm: CodesRun
    disturbed: CodesRun
    events: int
    refused: int
    seconds: float
    answer_p50_ms: float
    answer_p99_ms: float

    @property
    def later_percent(self) -> float:
        return self.disturbed.later_percent(self.calm)


def measure(stage: Stage, row: str, codes: Codes, logged: Bulk) -> Outcome:
    """One way in, once. Raises Failed."""
    with stage.scene():
        sink, bulk = stage.sink(_NETWORK), stage.sink(fast=False)
        site = stage.site([stage.upstream(sink, _NETWORK)], stage.upstream(bulk, Network()))
        site = dataclasses.replace(site, webhooks_port=_free_port())
        with Relay(site) as relay:
            stage.warm_up(relay.port, sink)
            stage.flood(relay.port, logged).wait(FLOOD_WITHIN_S)
            ids = _sent_ids(stage, relay.http_port, logged.count)
            time.sleep(_BEFORE_S)
            calm = play(stage, relay, sink, codes)
            port = site.webhooks_port if row.startswith("own") else relay.http_port
            is_forged = row.endswith("forged")
            arguments = [port, ids, "--rate", FORGED_RATE if is_forged else RATE, "--connections", CONNECTIONS]
            arguments += ["--forged", FORGED_BYTES] if is_forged else []
            with Child(module("hooks", *arguments), stage.fresh("hooks.log"), talks=True) as hooks:
                hooks.line()
                began = time.monotonic()
                time.sleep(_BEFORE_S)
                disturbed = play(stage, relay, sink, codes)
                hooks.close_input()
                good, bad, p50, p99 = hooks.line(within_s=60.0).split()
                if is_forged:
                    good, bad = bad, good  # each is to be refused
                seconds = time.monotonic() - began
    return Outcome(row, calm, disturbed, int(good), int(bad), seconds, float(p50), float(p99))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sent_ids(stage: Stage, port: int, count: int) -> Path:
    """A file with ids and recipients of bulk mail that the relay has sent."""
    deadline = time.monotonic() + FLOOD_WITHIN_S
    url = f"http://127.0.0.1:{port}/api/messages?lane=bulk&state=sent&limit=1000"
    while True:
        with urllib.request.urlopen(url, timeout=20) as answer:
            found = json.load(answer)
        if len(found) >= min(count, 1_000):
            break
        if time.monotonic() > deadline:
            raise Failed("the bulk mail was not sent in time")
        time.sleep(0.2)
    file = stage.fresh("ids")
    file.write_text("".join(f"{one['id']} {one['recipients'][0]['address']}\n" for one in found))
    return file


def lines(outcomes: Sequence[Outcome]) -> list[list[str]]:
    return [_line(row, [one for one in outcomes if one.row == row]) for row in dict.fromkeys(o.row for o in outcomes)]


def _line(row: str, outcomes: Sequence[Outcome]) -> list[str]:
    calm = [quantiles(one.calm.times_ms) for one in outcomes]
    found = [quantiles(one.disturbed.times_ms) for one in outcomes]
    later = Spread.of([one.later_percent for one in outcomes])
    wrong = sum(one.disturbed.failed + one.disturbed.missing + one.refused for one in outcomes)
    return [
        row,
        f"{Spread.of([one.p50 for one in found]).median:.1f}",
        f"{Spread.of([one.p99 for one in found]).median:.1f}",
        f"{Spread.of([one.p99 for one in calm]).median:.1f}",
        f"{later.median:+.1f} %",
        f"{later.low:+.1f} to {later.high:+.1f}",
        f"{Spread.of([one.events / one.seconds for one in outcomes]).median:.0f}",
        f"{Spread.of([one.answer_p50_ms for one in outcomes]).median:.1f}/"
        f"{Spread.of([one.answer_p99_ms for one in outcomes]).median:.1f}",
        f"{Spread.of([one.disturbed.cpu_s for one in outcomes]).median:.1f} s",
        f"{Spread.of([one.disturbed.peak_rss_bytes / 1e6 for one in outcomes]).median:.0f}",
        str(wrong) if wrong else "-",
    ]


def _dump(one: Outcome) -> dict[str, object]:
    ms = {
        name: dataclasses.asdict(quantiles(run.times_ms))
        for name, run in (("calm", one.calm), ("beside", one.disturbed))
    }
    return {"row": one.row, "events": one.events, "refused": one.refused, "ms": ms}


def run(options: Options, stage: Stage) -> tuple[list[Outcome], int]:
    codes = _QUICK_CODES if options.quick else _CODES
    logged = dataclasses.replace(_LOGGED, count=100) if options.quick else _LOGGED
    return repeated(options, lambda row: measure(stage, row, codes, logged), _line)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse("webhooks", __doc__ or "", ROWS, argv)
    print(preamble(options), end="\n\n", flush=True)
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        outcomes, failures = run(options, stage)
    if outcomes:
        print(table(HEAD, lines(outcomes)))
        print(f"\ntarget: p99 later by less than {TARGET_PERCENT:.0f} %")
    save(options, [_dump(one) for one in outcomes])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
