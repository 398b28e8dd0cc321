"""What the relay keeps in memory: at rest, with a long queue, and while large messages go through it.

`python -m bench.memory [--checkout CHECKOUT] [--rounds N] [--rows ROW ...]`. Memory is PSS: a page that several
processes share is divided among them. The sum is over the main process, its worker and their helpers. With a
checkout of another version, both are measured in turns.
"""

from __future__ import annotations

import argparse
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench import usage
from bench.process import wait_until
from bench.records import Spread
from bench.relay import Relay
from bench.stage import ARRIVE_WITHIN_S, FLOOD_WITHIN_S, Bulk, Network, SinkAt, Stage

ROUNDS = 3
REST_S = 3.0
SAMPLE_EVERY_S = 0.05
QUEUED = Bulk(100_000, 20)
LARGE = Bulk(10, 10, 25_000_000, kept=False)
_PSS = re.compile(r"^Pss:\s+(\d+) kB", re.MULTILINE)


def pss_mb(roots: Sequence[int]) -> float:
    """Of the processes `roots` and all that descend from them."""
    total_kb = 0
    for pid in usage.trees(roots):
        try:
            found = _PSS.search(Path(f"/proc/{pid}/smaps_rollup").read_text())
        except OSError:
            continue  # it has just ended
        total_kb += int(found[1]) if found else 0
    return total_kb / 1024


@contextmanager
def peak_mb(roots: Sequence[int]) -> Iterator[Callable[[], float]]:
    """Samples the memory during the block; the callable gives the highest sample."""
    highest, over = [0.0], threading.Event()

    def sample() -> None:
        while not over.wait(SAMPLE_EVERY_S):
            highest[0] = max(highest[0], pss_mb(roots))

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield lambda: highest[0]
    finally:
        over.set()
        thread.join()


@contextmanager
def relay(stage: Stage, checkout: Path | None, *, hang: bool) -> Iterator[tuple[Relay, SinkAt]]:
    """A relay that has sent a few codes; its bulk upstream hangs, or takes mail."""
    with stage.scene():
        fast = stage.sink()
        bulk = stage.sink(hang="mail", fast=False) if hang else stage.sink(fast=False)
        site = stage.site([stage.upstream(fast, Network())], stage.upstream(bulk, Network()))
        with Relay(site, checkout) as running:
            stage.warm_up(running.port, fast)
            yield running, bulk


def rest(stage: Stage, checkout: Path | None) -> float:
    """With DKIM keys and nothing to do."""
    with relay(stage, checkout, hang=False) as (running, _):
        time.sleep(REST_S)
        return pss_mb(running.roots)


def queued(stage: Stage, checkout: Path | None) -> float:
    """With 100,000 bulk messages that their upstream doesn't take."""
    with relay(stage, checkout, hang=True) as (running, _):
        stage.flood(running.port, QUEUED).wait(FLOOD_WITHIN_S)
        time.sleep(REST_S)
        return pss_mb(running.roots)


def large(stage: Stage, checkout: Path | None) -> float:
    """The peak while ten bulk messages of 25 MB come in at once, until the last is at its upstream."""
    with relay(stage, checkout, hang=False) as (running, bulk), peak_mb(running.roots) as peak:
        stage.flood(running.port, LARGE).wait(FLOOD_WITHIN_S)
        wait_until("large messages", lambda: bulk.arrived >= LARGE.count, ARRIVE_WITHIN_S)
        return peak()


ROWS: dict[str, Callable[[Stage, Path | None], float]] = {"rest": rest, "queued": queued, "large": large}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__)
    parser.add_argument("--checkout", type=Path, help="of another version, installed in its .venv")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"default: {ROUNDS}")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    args = parser.parse_args(argv)
    versions = ([(args.checkout.name, args.checkout)] if args.checkout else []) + [("this", None)]
    with Stage(None, keep=False, realtime=False) as stage:
        for row in args.rows:
            found: dict[str, list[float]] = {name: [] for name, _ in versions}
            for _ in range(args.rounds):
                for name, checkout in versions:
                    found[name].append(ROWS[row](stage, checkout))
            for name, figures in found.items():
                spread = Spread.of(figures)
                print(f"{row:8} {name:12} {spread.median:6.1f} ({spread.low:.1f}-{spread.high:.1f}) MB", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
