"""`python -m bench.soak --minutes N`: the real relay in bad weather, and every message accounted for.

Apps submit codes with deadlines, bulk mail and large mail through the relay as it runs (two bulk processes) to four
upstreams of which one or two misbehave at any time: they hang, refuse, break off before and after the final dot, lose
their TLS, go away. Meanwhile the relay is reloaded, drained and started again, killed with SIGKILL, one of its bulk
processes likewise. In the end the weather is fair, the queue runs empty, and what the apps were told is compared with
what the upstreams took and what the log says. Exit 1 when a message is unaccounted for, or memory or descriptors grow.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from bench.account import Kill, Logged, Seen, Submitted, account, faults
from bench.growth import Growth
from bench.usage import trees
from bench.weather import KINDS, NOBODY, Station
from relay.demo.process import RelayProcess
from relay.store.merge import MergedReader, open_offline
from relay.store.model import Selection
from tests.support.app import Talk, Unexpected, letter
from tests.support.relay import command, get, until, upstream_keys, write_config
from tests.support.tls import make_certificates
from tests.support.upstream import DEFAULT_EXTENSIONS, Upstream

CODE_LIFE_S = 30
QUIET_WITHIN_S = 120.0
"""how long the queue may take to run empty in fair weather"""
CHUNKING = (*DEFAULT_EXTENSIONS, "CHUNKING")

_numbers = itertools.count()


class Apps:
    """Submit without end until told to stop; each over one connection for a while, as apps do."""

    def __init__(self, chance: random.Random) -> None:
        self.submitted: list[Submitted] = []
        self.unanswered = 0
        self.relay: RelayProcess | None = None
        self.stop = False
        self._chance = chance

    async def run(self, domain: str, every_s: float, size_bytes: Callable[[], int]) -> None:
        while not self.stop:
            relay = self.relay
            if relay is None:
                await asyncio.sleep(0.05)
                continue
            with contextlib.suppress(OSError, EOFError, TimeoutError):
                async with Talk(relay.smtp) as app:
                    for _ in range(self._chance.randint(1, 40)):
                        if self.stop or not await self._submit(app, domain, size_bytes()):
                            break
                        await asyncio.sleep(self._chance.uniform(0.0, 2 * every_s))
            await asyncio.sleep(0.02)

    async def _submit(self, app: Talk, domain: str, size_bytes: int) -> bool:
        """Whether the connection is still good."""
        number = next(_numbers)
        sender = f"app+{number}@{domain}"
        recipients = [
            f"{NOBODY if self._chance.random() < 0.02 else 'user+'}{number}.{at}@example.net"
            for at in range(3 if self._chance.random() < 0.1 else 1)
        ]
        content = letter("x" * 76 + ("\r\n" + "x" * 76) * (size_bytes // 78), sender=sender)
        message_id: str | None = None
        try:
            message_id = await app.submit(content, sender, *recipients)
        except Unexpected as said:
            if str(said)[:1] not in ("4", "5"):
                self.unanswered += 1
                return False
        except (OSError, EOFError, TimeoutError):
            self.unanswered += 1
            raise
        self.submitted += [Submitted(message_id, sender, one) for one in recipients]
        return message_id is not None


class Soak:
    """One run."""

    def __init__(self, directory: Path, minutes: float, seed: int) -> None:
        self.directory = directory
        self.length_s = minutes * 60
        self.chance = random.Random(seed)
        self.seen = Seen()
        self.apps = Apps(self.chance)
        self.growth = Growth()
        self.kills: list[Kill] = []
        self.events: list[str] = []
        self.stations: list[Station] = []
        self.trouble: Counter[str] = Counter()
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        self.events.append(f"{time.monotonic() - self._began:6.1f} s  {text}")
        print(self.events[-1], file=sys.stderr, flush=True)

    async def run(self) -> Mapping[str, int]:
        """What is wrong; nothing when all is well."""
        async with AsyncExitStack() as stack:
            config = await self._set_up(stack)
            beside = [
                asyncio.create_task(self._weather(), name="weather"),
                asyncio.create_task(self._harvest(), name="harvest"),
                asyncio.create_task(self._sample(), name="sample"),
            ]
            traffic = [
                asyncio.create_task(self.apps.run(domain, every_s, size), name=f"app {domain}")
                for domain, every_s, size in (
                    ("auth.example.com", 0.1, lambda: 500),
                    ("auth.example.com", 0.1, lambda: 2_000),
                    ("pay.example.com", 0.3, lambda: 2_000),
                    ("news.example.com", 0.05, lambda: 2_000),
                    ("news.example.com", 0.05, lambda: self.chance.choice((500, 5_000, 50_000))),
                    ("news.example.com", 2.0, lambda: self.chance.choice((300_000, 1_000_000, 5_000_000))),
                    ("auth.example.com", 5.0, lambda: 400_000),
                )
            ]
            relay = await self._live(config)
            self.apps.stop = True
            await asyncio.wait_for(asyncio.gather(*traffic), 60)
            beside[0].cancel()
            await asyncio.gather(beside[0], return_exceptions=True)
            for station in self.stations:
                await station.turn("fair")
            self.say("fair weather, no more submissions")
            await self._run_empty(relay)
            for task in beside[1:]:
                task.cancel()
            await asyncio.gather(*beside, return_exceptions=True)
            code = await relay.terminate()
            self._learn(relay)
            for station in self.stations:
                station.harvest(self.seen)
            wrong = dict(await self._accounts(config))
            if code != 0:
                wrong["LAST DRAIN'S EXIT CODE"] = code
            checked = await command("store", "check", "-c", config)
            if checked.code != 0:
                wrong["STORE CHECK"] = checked.code
                self.say(checked.err)
        return wrong

    async def _set_up(self, stack: AsyncExitStack) -> Path:
        certificates = make_certificates(self.directory)
        kinds = {
            "first": Upstream(tls="starttls", certificate=certificates.good, auth={"user": "secret"}),
            "second": Upstream(CHUNKING, tls="implicit", certificate=certificates.good),
            "third": Upstream(CHUNKING),
            "plain": Upstream(("8BITMIME", "SIZE 35882577")),
        }
        for name, upstream in kinds.items():
            await stack.enter_async_context(upstream)
            station = Station(name, upstream, random.Random(self.chance.random()))
            station.begin()
            self.stations.append(station)
        limits = {"attempt": "3s", "final": "3s"}
        bulk = {"upstreams": ["third", "plain"], "retry": ["500ms", "2s"], "expires": "2d", **limits}
        codes = {"upstreams": ["first", "second"], "retry": ["200ms", "1s"], "expires": f"{CODE_LIFE_S}s", **limits}
        rules = [
            {"name": lane, "match": {"sender": f"*@{domain}.example.com"}, "lane": lane}
            for lane, domain in (("otp", "auth"), ("pay", "pay"))
        ]
        return write_config(
            self.directory,
            {name: upstream_keys(one, certificates, sessions={"warm": 2, "max": 10}) for name, one in kinds.items()},
            lanes={
                "otp": {**codes, "hedge": "1s"},
                "pay": {**codes, "on_ambiguous": "hold"},
                "bulk": bulk,
            },
            rules=rules,
            workers=2,
            limits={"message_size": "20MB"},
        )

    async def _live(self, config: Path) -> RelayProcess:
        """The lives of the relay, one after the other; the last one still goes on, and is the longest."""
        relay = await self._start(config)
        await self._pass(0.15)
        self.say("SIGHUP")
        relay.send(signal.SIGHUP)
        await self._pass(0.15)
        await self._kill_worker(relay)
        await self._pass(0.1)
        self.say("SIGTERM")
        self.apps.relay = None
        self.say(f"drained, exit {await relay.terminate()}")
        self._learn(relay)
        relay = await self._start(config)
        await self._pass(0.1)
        self._note_kill("SIGKILL to the main process")
        self.apps.relay = None
        await relay.kill()
        self._learn(relay)
        relay = await self._start(config)
        await self._pass(0.5)
        return relay

    async def _start(self, config: Path) -> RelayProcess:
        relay = RelayProcess(config)
        await relay.start(60)
        self.say("ready")
        self.growth.begin(relay.pid)
        self.apps.relay = relay
        return relay

    async def _pass(self, share: float) -> None:
        await asyncio.sleep(self.length_s * share)

    def _note_kill(self, text: str) -> None:
        self.say(text)
        self.kills.append(Kill(time.time(), sum(station.upstream.open for station in self.stations)))

    async def _kill_worker(self, relay: RelayProcess) -> None:
        import os

        worker = min(trees([relay.pid]) - {relay.pid})
        self._note_kill("SIGKILL to a bulk process")
        os.kill(worker, signal.SIGKILL)

    def _learn(self, relay: RelayProcess) -> None:
        """What the relay said of itself."""
        for line in relay.stderr.splitlines():
            if "Traceback" in line:
                self.trouble["Traceback"] += 1
            elif "event=trouble" in line:
                self.trouble[line.partition("event=trouble ")[2]] += 1

    # what goes on beside

    async def _weather(self) -> None:
        """Each turn one upstream gets another kind, whatever the others have."""
        while True:
            await asyncio.sleep(self.chance.uniform(0.3, 2.0))
            await self.chance.choice(self.stations).turn(self.chance.choice(["fair", "fair", *KINDS]))

    async def _harvest(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for station in self.stations:
                station.harvest(self.seen)

    async def _sample(self) -> None:
        while True:
            await asyncio.sleep(2.0)
            self.growth.sample()

    # the end

    async def _run_empty(self, relay: RelayProcess) -> None:
        async def only_held() -> bool:
            lanes = (await get(relay, "/api/queue")).document["lanes"]
            return all(row["state"] == "ambiguous" for row in lanes)

        try:
            await until(only_held, QUIET_WITHIN_S, every_s=0.5)
        except AssertionError:
            for path in ("/api/queue?limit=3", "/readyz"):
                self.say(f"still waiting: {(await get(relay, path)).body[:3000]}")

    async def _accounts(self, config: Path) -> Mapping[str, int]:
        log = {}
        with open_offline(config.with_name("relay.db")) as reader:
            for message in reader.search(Selection(limit=10**9)):
                for one in message["recipients"]:
                    if message["sender"] == "" and one["state"] == "bounced":
                        self.seen.told.add(one["address"])
                    log[one["address"]] = Logged(one["state"], self._ambiguous(reader, message, one))
        found = account(self.apps.submitted, log, self.seen, self.kills)
        print(f"{len(self.apps.submitted)} recipients of answered messages; {self.apps.unanswered} messages unanswered")
        for verdict, some in sorted(found.items()):
            print(f"{len(some):7d}  {verdict}")
            if verdict.isupper():
                print(*(f"         {one} {log.get(one.recipient)}" for one in some[:5]), sep="\n")
        for text, times in self.trouble.most_common(20):
            print(f"{times:7d}  said {text}")
        wrong = dict(faults(found, self.kills))
        if self.trouble["Traceback"]:
            wrong["TRACEBACKS"] = self.trouble["Traceback"]
        return wrong

    def _ambiguous(self, reader: MergedReader, message: Mapping[str, object], one: Mapping[str, object]) -> bool:
        """Is there such an attempt? Asked only where it matters: it takes a query."""
        taken = len(self.seen.deliveries.get(str(one["address"]), ()))
        if taken < (2 if one["state"] == "sent" else 1):
            return False
        whole = reader.get(str(message["id"]))
        assert whole is not None
        (found,) = [each for each in whole["recipients"] if each["address"] == one["address"]]
        return any(attempt["outcome"] == "ambiguous" for attempt in found["attempts"])


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").partition("\n\n")[2])
    parser.add_argument("--minutes", type=float, default=10.0, metavar="N", help="default: 10")
    parser.add_argument("--seed", type=int, default=None, metavar="N", help="of chance; default: another each time")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="an empty folder for the store, which is left there")
    args = parser.parse_args(argv)
    seed = args.seed if args.seed is not None else random.randrange(1 << 32)
    with tempfile.TemporaryDirectory(prefix="otp-relay-soak-") as folder:
        soak = Soak(args.keep or Path(folder), args.minutes, seed)
        print(f"{args.minutes:g} minutes, seed {seed}")
        wrong = {**asyncio.run(soak.run()), **soak.growth.report()}
    print("\n".join(soak.growth.lines))
    print(f"NOT IN ORDER: {json.dumps(wrong)}" if wrong else "all in order")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
