"""What codes feel of hostile and clumsy clients: 20 codes a second, undisturbed and beside each of them.

`python -m bench.hostile [--quick] [--rows ROW ...] [--repeat N]`; a row is an attack of `bench.attacks`. In each
repetition the same relay is measured undisturbed right before it is disturbed.
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.attacks import ATTACKS
from bench.options import Options, parse, preamble, save, table
from bench.process import Child, module
from bench.records import Quantiles, Spread, quantiles
from bench.relay import Relay
from bench.repeated import repeated
from bench.stage import FLOOD_WITHIN_S, Bulk, Codes, CodesRun, Network, Stage, play

TARGET_MS = 20.0
"""how much later the 99th percentile may be than undisturbed"""
_NETWORK = Network(rtt_ms=20)
_CODES = Codes(300, 20)
_QUICK_CODES = Codes(20, 20)
_LOGGED = Bulk(10_000, 10)
"""what the listings show"""
_BEFORE_S = 1.0
"""an attack is under way for so long before the codes come"""
_REFUSAL = "550 5.7.1 " + " ".join(str(100_000 + n) for n in range(250))
_PAST = {"lines-past": "lines"}
"""these go to the codes' upstream, past the relay: what the measuring processes feel of so many bytes,"""
_PAST_EVERY_S = 0.7
"""as often as they go through the relay"""
HEAD = ("beside 20 codes/s", "p50", "p99", "undisturbed p99", "p99 later by", "low–high", "worst", "times", "wrong")


@dataclass(frozen=True, slots=True)
class Outcome:
    row: str
    calm: CodesRun
    disturbed: CodesRun
    times: int
    """how often the attack came to its end"""


def measure(stage: Stage, name: str, codes: Codes, logged: Bulk) -> Outcome:
    """One attack, once. Raises Failed."""
    with stage.scene():
        sink = stage.sink(_NETWORK)
        bulk = stage.sink(fast=False, eightbit=name != "encode", refuse=_REFUSAL if name == "bounces" else "")
        network = stage.upstream(sink, _NETWORK)
        site = stage.site([network], stage.upstream(bulk, Network()))
        with Relay(site) as relay:
            stage.warm_up(relay.port, sink)
            if name == "listings":
                stage.flood(relay.port, logged).wait(FLOOD_WITHIN_S)
                time.sleep(3 * _BEFORE_S)
            time.sleep(_BEFORE_S)
            calm = play(stage, relay, sink, codes)
            smtp_port = network.port if name in _PAST else relay.port
            with _attack(stage.fresh("attack.log"), name, smtp_port, relay.http_port) as attack:
                time.sleep(_BEFORE_S)
                disturbed = play(stage, relay, sink, codes)
                times = _end(attack)
    return Outcome(name, calm, disturbed, times)


def _attack(log: Path, name: str, smtp_port: int, http_port: int) -> Child:
    pause = ["--pause", _PAST_EVERY_S] if name in _PAST else []
    command = module("attacks", _PAST.get(name, name), "--smtp", smtp_port, "--http", http_port, *pause)
    child = Child(command, log, talks=True)
    child.line()
    return child


def _end(attack: Child) -> int:
    attack.close_input()
    return int(attack.line(within_s=60.0))


def lines(outcomes: Sequence[Outcome]) -> list[list[str]]:
    return [
        _line(name, [one for one in outcomes if one.row == name]) for name in dict.fromkeys(o.row for o in outcomes)
    ]


def _line(name: str, outcomes: Sequence[Outcome]) -> list[str]:
    calm = [quantiles(one.calm.times_ms) for one in outcomes]
    found = [quantiles(one.disturbed.times_ms) for one in outcomes]
    later = Spread.of([after.p99 - before.p99 for before, after in zip(calm, found, strict=True)])
    wrong = sum(one.disturbed.failed + one.disturbed.missing for one in outcomes)
    return [
        name,
        f"{Spread.of([one.p50 for one in found]).median:.1f}",
        f"{Spread.of([one.p99 for one in found]).median:.1f}",
        f"{Spread.of([one.p99 for one in calm]).median:.1f}",
        f"{later.median:+.1f}",
        f"{later.low:+.1f} to {later.high:+.1f}",
        f"{max(one.worst for one in found):.1f}",
        str(sum(one.times for one in outcomes)),
        str(wrong) if wrong else "-",
    ]


def _dump(one: Outcome) -> dict[str, object]:
    def fields(run: CodesRun) -> dict[str, object]:
        found: Quantiles = quantiles(run.times_ms)
        return {"ms": dataclasses.asdict(found), "failed": run.failed, "missing": run.missing}

    return {"row": one.row, "times": one.times, "calm": fields(one.calm), "disturbed": fields(one.disturbed)}


def run(options: Options, stage: Stage) -> tuple[list[Outcome], int]:
    codes = _QUICK_CODES if options.quick else _CODES
    logged = dataclasses.replace(_LOGGED, count=300) if options.quick else _LOGGED
    return repeated(options, lambda row: measure(stage, row, codes, logged), _line)


def main(argv: Sequence[str] | None = None) -> int:
    options = parse("hostile", __doc__ or "", [*ATTACKS, *_PAST], argv)
    print(preamble(options), end="\n\n", flush=True)
    with Stage(options.directory, keep=options.keep, realtime=options.realtime) as stage:
        outcomes, failures = run(options, stage)
    if outcomes:
        print(table(HEAD, lines(outcomes)))
        print(f"\ntarget: p99 later by at most {TARGET_MS:.0f} ms")
    save(options, [_dump(one) for one in outcomes])
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
