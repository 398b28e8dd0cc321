"""`python -m bench.kill --rounds N`: the real relay killed N times with SIGKILL, and every message accounted for.

Half of the rounds go in turn through the places on a message's way at which `tests/support/death.py` kills (they take
strace; without it all rounds are of the other kind). In the others apps submit codes, bulk and large mail as fast as
they are answered, and the main process or a bulk process dies at a moment of chance, or before a system call of chance:
a write to the store's log or file, a sync, an unlink, a message between the processes. Then the relay starts again.
In half of these, codes come in bursts. Exit 1 when an acknowledged message is lost, or more arrived twice than can have
been under way at the kills.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from relay.demo.process import RelayProcess
from tests.support import strace
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.death import SERIES, Series, die_at_every_point
from tests.support.processes import workers
from tests.support.relay import command, get, until, write_config
from tests.support.script import Delay
from tests.support.upstream import DEFAULT_EXTENSIONS, Upstream

ROUNDS_OF_A_WORLD = 10
CALLS = ("pwrite64", "fdatasync", "write", "writev", "read", "fcntl", "futex", "unlink,ftruncate,openat")
CHUNKING = (*DEFAULT_EXTENSIONS, "CHUNKING")
BURST = 30
"""apps that send codes at once in half of the rounds: more than there are sessions"""
DEPTH = 4
"""messages that a session has under way (`sessions.depth`)"""


class World:
    """Apps, upstreams and a store, through several deaths."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.acknowledged: set[str] = set()
        self.under_way = 0
        self._number = 0

    async def submit(self, relay: RelayProcess, sender: str, size: int) -> None:
        with suppress(OSError, EOFError, AssertionError):  # it is gone; what it had not answered is the app's still
            async with Talk(relay.smtp) as app:
                while True:
                    self._number += 1
                    to = f"user{self._number}@example.net"
                    await app.submit(letter("x" * 70 + ("\r\n" + "x" * 70) * (size // 72), sender=sender), sender, to)
                    self.acknowledged.add(to)

    async def live_and_die(self, config: Path, upstreams: Sequence[Upstream]) -> str:
        """One round; how it ended."""
        async with RelayProcess(config) as relay:
            sizes: tuple[tuple[str, int], ...] = (
                (OTP, 300),
                (OTP, 5_000),
                (BULK, 300),
                (BULK, 20_000),
                (BULK, 1_500_000),
            )
            sizes += ((OTP, 300),) * self.chance.choice((0, BURST))
            apps = [asyncio.create_task(self.submit(relay, sender, size)) for sender, size in sizes]
            await asyncio.sleep(self.chance.uniform(0.0, 1.5))
            victims = [relay.pid, relay.pid, *workers(relay.pid)]
            victim = self.chance.choice(victims)
            how = self.chance.choice(("at once", *CALLS)) if strace.works() else "at once"
            under_way = _under_way(upstreams)
            if how != "at once":
                # For want of that call it dies a second later all the same.
                with suppress(OSError), strace.Strace(victim, how, kills=True, when=self.chance.randint(1, 150)):
                    await asyncio.sleep(1.0)
            self.under_way += max(under_way, _under_way(upstreams))
            _kill(victim)
            if victim != relay.pid:
                await asyncio.sleep(self.chance.uniform(0.0, 1.0))
                self.under_way += _under_way(upstreams)
                _kill(relay.pid)
            await relay.wait()
            for app in apps:
                await asyncio.wait_for(app, 30)
        return f"{'main' if victim == relay.pid else 'worker'}: {how}"


def _under_way(upstreams: Sequence[Upstream]) -> int:
    """The most messages that can be under way just now."""
    return sum(one.open for one in upstreams) * DEPTH


def _kill(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


async def under_load(rounds: int, chance: random.Random) -> Counter[str]:
    """What came out: `lost`, `twice`, `under way`, `acknowledged`, and how often it died how."""
    world, said = World(chance), Counter[str]()
    slow = {"dot": lambda _: Delay(chance.uniform(0.0, 0.02))}
    with tempfile.TemporaryDirectory(prefix="otp-relay-kill-") as folder:
        offers = chance.choice((DEFAULT_EXTENSIONS, CHUNKING))
        async with Upstream(offers, script=slow) as codes, Upstream(CHUNKING, script=slow) as bulk:  # type: ignore[arg-type]
            lanes = {
                "otp": {"upstreams": ["codes"], "retry": ["200ms"], "expires": "50m"},
                "bulk": {"upstreams": ["bulk"], "retry": ["200ms"], "expires": "2d"},
            }
            workers = chance.choice((0, 1, 2))
            config = write_config(Path(folder), {"codes": codes, "bulk": bulk}, lanes=lanes, workers=workers)
            for _ in range(rounds):
                said[await world.live_and_die(config, (codes, bulk))] += 1
            async with RelayProcess(config) as relay:

                async def is_empty() -> bool:
                    return not (await get(relay, "/api/queue?limit=1")).document["lanes"]

                await until(is_empty, 120, every_s=0.2)
                await relay.terminate()
            said["store damaged"] += (await command("store", "check", "-c", config)).code
            arrived = Counter(to for one in (*codes.messages, *bulk.messages) for to in one.recipients)
    said["acknowledged"] = len(world.acknowledged)
    said["lost"] = len(world.acknowledged - arrived.keys())
    said["twice"] = sum(times - 1 for times in arrived.values())
    said["under way"] = world.under_way
    said["too many twice"] = max(0, said["twice"] - world.under_way)
    return said


async def run(rounds: int, seed: int) -> int:
    """The exit code."""
    chance, total, done, turn = random.Random(seed), Counter[str](), 0, 0
    points = [(name, Series((point,), one.sender, one.workers, one.victim)) for name, one in SERIES.items()
              for point in one.points]  # fmt: skip
    while done < rounds:
        some = min(ROUNDS_OF_A_WORLD, rounds - done)
        if turn % 2 and strace.works():
            for _ in range(some):
                name, series = points[total["at a chosen place"] % len(points)]
                with tempfile.TemporaryDirectory(prefix="otp-relay-kill-") as folder:
                    try:
                        (times,) = (await die_at_every_point(Path(folder), series)).values()
                        total["at a chosen place, arrived twice"] += times == 2
                    except AssertionError as error:
                        total["NOT AS IT MAY BE"] += 1
                        print(f"{name}: {error}")
                total["at a chosen place"] += 1
        else:
            total.update(await under_load(some, chance))
        done, turn = done + some, turn + 1
        print(f"{done} rounds: {dict(total)}", file=sys.stderr, flush=True)
    wrong = {
        what: total[what] for what in ("lost", "too many twice", "store damaged", "NOT AS IT MAY BE") if total[what]
    }
    for what, times in sorted(total.items()):
        print(f"{times:7d}  {what}")
    print(f"NOT IN ORDER: {wrong}" if wrong else "all in order")
    return 1 if wrong else 0


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.kill", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--rounds", type=int, default=200, metavar="N", help="default: 200")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="of chance; default: another each time")
    args = parser.parse_args(argv)
    seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    began = time.monotonic()
    print(f"{args.rounds} rounds, seed {seed}")
    code = asyncio.run(run(args.rounds, seed))
    print(f"{time.monotonic() - began:.0f} s")
    return code


if __name__ == "__main__":
    sys.exit(main())
