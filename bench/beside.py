"""Two versions of the relay beside each other: `python -m bench.beside CHECKOUT [--rounds N]`.

`python -m bench.beside --limits` compares this version with itself, where every lane has limits; `--content` with
itself, where the rule for codes asks the content detector, which then examines every message.

Both run at the same time and are asked in turns, so that a machine that is slow for a while is slow for both: what runs
one after the other differs by a tenth without a cause, and by half where a neighbour of a virtual machine is busy.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bench import records, usage
from bench.options import may_be_realtime, say, table
from bench.process import wait_until
from bench.records import Spread, quantiles
from bench.relay import Relay
from bench.stage import ARRIVE_WITHIN_S, FLOOD_WITHIN_S, Bulk, Codes, Network, SinkAt, Stage, judged

ROUNDS = 6
_CODES = Codes(300, 20)
_BULK = Bulk(3_000, 10)
_APART_S = 0.5 / _CODES.rate
"""one version's codes come between the other's"""
_SETTLE_S = 1.0
_STOLEN = 8
"""place of the time that the hypervisor gave to others, in the first line of /proc/stat (proc(5))"""
HEAD = ("version", "p50", "p95", "p99", "wrong", "CPU-s / 1,000", "bulk msgs/s", "bulk CPU-s / 1,000")


@dataclass(slots=True)
class Version:
    """One of the two, and what was measured of it, a figure for each round."""

    name: str
    relay: Relay
    fast: SinkAt
    bulk: SinkAt
    times_ms: list[Sequence[float]] = field(default_factory=list)
    wrong: int = 0
    cpu_s: list[float] = field(default_factory=list)
    """for 1,000 codes"""
    rate: list[float] = field(default_factory=list)
    bulk_cpu_s: list[float] = field(default_factory=list)

    @property
    def used_s(self) -> float:
        return usage.of_trees(self.relay.roots).cpu_s


def started(
    stage: Stage,
    running: ExitStack,
    name: str,
    checkout: Path | None = None,
    *,
    is_limited: bool = False,
    by_content: bool = False,
) -> Version:
    fast, bulk = stage.sink(), stage.sink(fast=False)
    site = stage.site([stage.upstream(fast, Network())], stage.upstream(bulk, Network()))
    relay = Relay(replace(site, is_limited=is_limited, by_content=by_content), checkout)
    running.enter_context(relay)
    version = Version(name, relay, fast, bulk)
    stage.warm_up(version.relay.port, fast)
    return version


def send_codes(stage: Stage, versions: Sequence[Version]) -> None:
    before = [one.used_s for one in versions]
    streams = []
    for one in versions:
        streams.append(stage.codes(one.relay.port, _CODES))
        time.sleep(_APART_S)
    for one, (stream, sent), used_s in zip(versions, streams, before, strict=True):
        stream.wait(_CODES.count / _CODES.rate + ARRIVE_WITHIN_S)
        run = judged(records.sent(sent), one.fast, partial(usage.of_trees, one.relay.roots), usage.Usage(used_s, 0))
        one.times_ms.append(run.times_ms)
        one.wrong += run.failed + run.missing + run.unsigned
        one.cpu_s.append(run.cpu_s * 1000 / _CODES.count)


def send_bulk(stage: Stage, versions: Sequence[Version]) -> None:
    before = [(one.used_s, one.bulk.arrived) for one in versions]
    began = time.monotonic()
    floods = [stage.flood(one.relay.port, _BULK) for one in versions]
    ended: dict[str, float] = {}

    def all_arrived() -> bool:
        for one, (_, arrived) in zip(versions, before, strict=True):
            if one.name not in ended and one.bulk.arrived >= arrived + _BULK.count:
                ended[one.name] = time.monotonic() - began
        return len(ended) == len(versions)

    wait_until("the last message", all_arrived, FLOOD_WITHIN_S, every_s=0.05)
    for flood in floods:
        flood.wait(FLOOD_WITHIN_S)
    time.sleep(_SETTLE_S)  # what is still written after the last reply belongs to its cost
    for one, (used_s, _) in zip(versions, before, strict=True):
        one.rate.append(_BULK.count / ended[one.name])
        one.bulk_cpu_s.append((one.used_s - used_s) * 1000 / _BULK.count)


def stolen_s() -> float:
    """Processor time that the hypervisor gave to others since the machine began."""
    return int(Path("/proc/stat").read_text().split("\n", 1)[0].split()[_STOLEN]) / 100


def _line(one: Version) -> list[str]:
    found = quantiles([time_ms for times in one.times_ms for time_ms in times])
    figures = [f"{value:.2f}" for value in (found.p50, found.p95, found.p99)]
    spreads = [Spread.of(values) for values in (one.cpu_s, one.rate, one.bulk_cpu_s)]
    return [
        one.name,
        *figures,
        str(one.wrong) if one.wrong else "-",
        *(f"{each.median:.2f} ({each.low:.2f}–{each.high:.2f})" for each in spreads),
    ]


def changes(this: Version, other: Version) -> Mapping[str, Spread]:
    """By how much this one's figure is above the other's, in per cent, round by round."""

    def spread(mine: Sequence[float], theirs: Sequence[float]) -> Spread:
        return Spread.of([100 * (a / b - 1) for a, b in zip(mine, theirs, strict=True)])

    return {
        "a code's p50": spread(_medians(this), _medians(other)),
        "a code's CPU": spread(this.cpu_s, other.cpu_s),
        "bulk rate": spread(this.rate, other.rate),
        "bulk CPU": spread(this.bulk_cpu_s, other.bulk_cpu_s),
    }


def _medians(version: Version) -> list[float]:
    return [quantiles(times).p50 for times in version.times_ms]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.beside", description=__doc__)
    other_one = parser.add_mutually_exclusive_group(required=True)
    other_one.add_argument("checkout", type=Path, nargs="?", help="of the other version, installed in its .venv")
    other_one.add_argument("--limits", action="store_true", help="this version without limits, and with limits")
    other_one.add_argument("--content", action="store_true", help="codes known by a header, and by their content")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    args = parser.parse_args(argv)
    began, stolen = time.monotonic(), stolen_s()
    with Stage(None, keep=False, realtime=may_be_realtime()) as stage, ExitStack() as running:
        if args.limits:
            this = started(stage, running, "with limits", is_limited=True)
            other = started(stage, running, "without")
        elif args.content:
            this = started(stage, running, "by content", by_content=True)
            other = started(stage, running, "by header")
        else:
            this = started(stage, running, "this one")
            other = started(stage, running, "the other", args.checkout.resolve())
        for n in range(args.rounds):
            versions = (this, other) if n % 2 else (other, this)
            send_codes(stage, versions)
            send_bulk(stage, versions)
            say(f"round {n + 1} of {args.rounds}")
    print(table(HEAD, [_line(other), _line(this)]), end="\n\n")
    slower = Spread.of([a - b for a, b in zip(_medians(this), _medians(other), strict=True)])
    print(f"a code's p50: {slower.median:+.3f} ms ({slower.low:+.3f} to {slower.high:+.3f})")
    for name, change in changes(this, other).items():
        print(f"{name}: {change.median:+.1f} % ({change.low:+.1f} to {change.high:+.1f})")
    share = (stolen_s() - stolen) / (time.monotonic() - began)
    print(f"\nstolen by the hypervisor: {share:.2f} processors")
    return 0


if __name__ == "__main__":
    sys.exit(main())
