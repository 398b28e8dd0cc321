"""Places on a message's way at which the relay is killed with SIGKILL, exactly there.

A `Point` brings one message to its place and kills; what may have become of it after the next start stands with it.
Nothing in the relay knows of this: the upstream holds a step, strace kills before a chosen call is carried out.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support import processes
from tests.support.app import BULK, OTP, Talk, letter, stuffed
from tests.support.relay import RelayProcess, get, time_line, until, write_config
from tests.support.script import Action, Hang, Moment, Script, Wait
from tests.support.strace import Strace, socket_of
from tests.support.upstream import Upstream

DIES_WITHIN_S = 10.0
LET_GO_AFTER_S = 0.3
RESTS_WITHIN_S = 30.0
HOLD = "pay@hold.example.com"
"""sender of mail for the lane that holds what is ambiguous"""
_numbers = itertools.count()


def configuration(folder: Path, upstream: Upstream, *, workers: int) -> Path:
    """No session is open but the one that is used, so that it is known which one."""
    one = {"host": upstream.host, "port": upstream.port, "tls": "none", "sessions": {"warm": 0, "max": 4}}
    lane = {"upstreams": ["one"], "retry": ["200ms"], "expires": "10m", "attempt": "10s", "final": "10s"}
    return write_config(
        folder,
        {"one": one},
        lanes={"otp": lane, "hold": {**lane, "on_ambiguous": "hold"}, "bulk": {**lane, "expires": "2d"}},
        rules=[
            {"name": "auth-sender", "match": {"sender": "*@auth.example.com"}, "lane": "otp"},
            {"name": "pay", "match": {"sender": HOLD}, "lane": "hold"},
        ],
        workers=workers,
    )


@dataclass(slots=True)
class Life:
    """One life of the relay, and the message that dies in it."""

    relay: RelayProcess
    upstream: Upstream
    store: Path
    sender: str
    victim: int
    """the process that dies"""
    to: str = field(default_factory=lambda: f"user{next(_numbers)}@example.net")
    id: str | None = None
    """as acknowledged"""

    @property
    def log(self) -> Path:
        """The write-ahead log of the victim's file."""
        name = "relay.db-wal" if self.victim == self.relay.pid else "relay-bulk1.db-wal"
        return self.store.with_name(name)

    @property
    def content(self) -> bytes:
        return letter("x" * 300, sender=self.sender)

    def strace(self, calls: str, path: str | Path | None = None, when: int = 1) -> Strace:
        return Strace(self.victim, calls, path=path, kills=True, when=when)

    def kill(self) -> None:
        os.kill(self.victim, signal.SIGKILL)

    async def dies(self, by: Strace | None = None) -> None:
        """`by`: who kills it. A tracer may hold what it killed, waiting for a last thread: then it has to let go."""
        ends, fired_at = time.monotonic() + DIES_WITHIN_S, 0.0
        while alive(self.victim):
            now = time.monotonic()
            assert now < ends, "it lives on"
            if by is not None and by.fired:
                fired_at = fired_at or now
                if now - fired_at > LET_GO_AFTER_S:
                    by.let_go()
                    by = None
            await asyncio.sleep(0.005)

    async def submit(self) -> None:
        async with Talk(self.relay.smtp) as app:
            self.id = await app.submit(self.content, self.sender, self.to)

    async def submit_and_die(self, calls: str, path: str | Path | None = None, when: int = 1) -> None:
        """Killed at a call between the app's final dot and its 250. `path` "app": the app's socket."""
        async with Talk(self.relay.smtp) as app:
            await app.envelope(self.sender, self.to)
            if path == "app":
                path = socket_of(self.relay.pid, app.writer.get_extra_info("sockname")[1])
            with self.strace(calls, path, when) as strace:
                app.send(stuffed(self.content) + b".\r\n")
                await self.dies(strace)
                with suppress(OSError):
                    said = await app.reply()
                    self.id = said.rsplit(" ", 1)[-1] if said.startswith("250") else None

    async def reaches(self, step: str, then: Action = None) -> asyncio.Event:
        """Submit, and return once the upstream stands before its answer to that step of this message; it answers when
        the event is set."""
        there, go_on = asyncio.Event(), asyncio.Event()

        def hold(moment: Moment) -> Action:
            if moment.step != step or moment.default[:1] not in ("2", "3"):
                return None
            there.set()
            return Wait(go_on, then)

        self.upstream.set_script(hold)
        await self.submit()
        await asyncio.wait_for(there.wait(), DIES_WITHIN_S)
        return go_on

    async def dies_at(self, step: str, then: Action = None) -> None:
        """Submit; the upstream kills when that step comes."""

        def kill(moment: Moment) -> Action:
            if moment.step != step:
                return None
            self.kill()
            return then

        self.upstream.set_script(kill)
        async with Talk(self.relay.smtp) as app:
            await app.envelope(self.sender, self.to)
            app.send(stuffed(self.content) + b".\r\n")
            with suppress(OSError):
                said = await app.reply()
                self.id = said.rsplit(" ", 1)[-1] if said.startswith("250") else None
        await self.dies()


@dataclass(frozen=True, slots=True)
class Point:
    """`arrives`: how often its message may be at the upstream in the end, at least and at most; what was acknowledged
    never less than once, whatever stands there."""

    name: str
    reach: Callable[[Life], Awaitable[None]]
    arrives: tuple[int, int]


def held(step: str) -> Script:
    """The upstream says nothing more from there."""
    return {step: lambda moment: Hang()}  # type: ignore[dict-item]


async def half_of_the_content(life: Life) -> None:
    async with Talk(life.relay.smtp) as app:
        await app.envelope(life.sender, life.to)
        app.send(life.content[:200])
        await app.writer.drain()
        await asyncio.sleep(0.02)
        life.kill()
        await life.dies()


async def read_but_not_looked_at(life: Life) -> None:
    await life.submit_and_die("getrandom")  # for the id that it is given first of all


async def not_in_the_store(life: Life) -> None:
    await life.submit_and_die("pwrite64", life.log)


async def in_the_middle_of_the_commit(life: Life) -> None:
    await life.submit_and_die("pwrite64", life.log, when=6)


async def written_but_not_synced(life: Life) -> None:
    await life.submit_and_die("fdatasync", life.log)


async def committed_but_not_answered(life: Life) -> None:
    life.upstream.set_script(held("mail"))
    await life.submit_and_die("write,writev,sendmsg", "app")


async def answered(life: Life) -> None:
    life.upstream.set_script(held("mail"))
    await life.submit()
    life.kill()
    await life.dies()


async def claim_being_written(life: Life) -> None:
    life.upstream.set_script({"rcpt": ["451 4.3.0 later"] * 2})
    await life.submit()
    assert life.id is not None
    with suppress(AssertionError, OSError):
        await time_line(life.relay, life.id, "deferred", within_s=2.0)
    with life.strace("pwrite64", life.log) as strace:
        await life.dies(strace)


async def claimed_again(life: Life) -> None:
    seen: list[Moment] = []

    def script(moment: Moment) -> Action:
        if moment.step == "mail":
            seen.append(moment)
            if len(seen) == 2:
                life.kill()
        return "451 4.3.0 later" if moment.step == "rcpt" and len(seen) == 1 else None

    life.upstream.set_script(script)
    await life.submit()
    await life.dies()


async def envelope_sent(life: Life) -> None:
    await life.dies_at("data")


async def content_about_to_leave(life: Life) -> None:
    go_on = asyncio.Event()
    there = asyncio.Event()

    def hold(moment: Moment) -> Action:
        if moment.step != "data":
            return None
        there.set()
        return Wait(go_on)

    life.upstream.set_script(hold)
    submitting = asyncio.create_task(life.submit())
    await asyncio.wait_for(there.wait(), DIES_WITHIN_S)
    await asyncio.gather(submitting)
    with life.strace("write,writev,sendmsg", socket_of(life.victim, life.upstream.port)) as strace:
        go_on.set()
        await life.dies(strace)


async def final_dot_sent(life: Life) -> None:
    await life.dies_at("dot", Hang(taken=True))


async def replied_but_not_settled(life: Life) -> None:
    go_on = await life.reaches("dot")
    with life.strace("pwrite64", life.log) as strace:
        go_on.set()
        await life.dies(strace)


async def settled_but_not_synced(life: Life) -> None:
    go_on = await life.reaches("dot")
    with life.strace("fdatasync", life.log) as strace:
        go_on.set()
        await life.dies(strace)


async def settled(life: Life) -> None:
    await life.submit()
    assert life.id is not None
    await time_line(life.relay, life.id, "sent")
    life.kill()
    await life.dies()


async def not_yet_given_back_to_the_main_process(life: Life) -> None:
    """A worker's commit, before it says so."""
    life.upstream.set_script(held("mail"))
    link = os.readlink(f"/proc/{life.victim}/fd/{processes.link_of(life.victim)}")
    await life.submit_and_die("write,writev,sendmsg", link)


async def taken_in_but_not_forgotten(life: Life) -> None:
    """A message that waited in the main file goes to a worker's: it is there, and to be deleted here."""
    (worker,) = processes.workers(life.relay.pid)
    os.kill(worker, signal.SIGKILL)
    life.upstream.set_script(held("mail"))
    await life.submit()
    with life.strace("pwrite64", life.log) as strace:
        await life.dies(strace)


WAY: Sequence[Point] = (
    Point("half of the content is in", half_of_the_content, (0, 0)),
    Point("the content is read, nothing done with it", read_but_not_looked_at, (0, 0)),
    Point("classified, about to be written", not_in_the_store, (0, 0)),
    Point("half written", in_the_middle_of_the_commit, (0, 0)),
    Point("written, not synced", written_but_not_synced, (0, 1)),
    Point("committed, the 250 about to be written", committed_but_not_answered, (1, 1)),
    Point("the 250 is out", answered, (1, 1)),
    Point("the claim of a retry about to be written", claim_being_written, (1, 1)),
    Point("claimed, MAIL sent", claimed_again, (1, 1)),
    Point("the envelope is out, beside the commit", envelope_sent, (0, 1)),
    Point("the content about to leave", content_about_to_leave, (1, 1)),
    Point("the final dot is out", final_dot_sent, (1, 2)),
    Point("the reply is in, the settlement about to be written", replied_but_not_settled, (1, 2)),
    Point("the settlement is written, not synced", settled_but_not_synced, (1, 2)),
    Point("settled", settled, (1, 1)),
)
"""With no workers: the main process dies."""
HELD: Sequence[Point] = (
    Point("the final dot is out", final_dot_sent, (1, 1)),
    Point("the reply is in, the settlement about to be written", replied_but_not_settled, (1, 1)),
)
"""In a lane that holds what is ambiguous."""
WORKER: Sequence[Point] = (
    Point("about to be written", not_in_the_store, (1, 1)),
    Point("written, not synced", written_but_not_synced, (1, 1)),
    Point("committed, not yet told", not_yet_given_back_to_the_main_process, (1, 1)),
    Point("the content about to leave", content_about_to_leave, (1, 1)),
    Point("the final dot is out", final_dot_sent, (1, 2)),
    Point("the reply is in, the settlement about to be written", replied_but_not_settled, (1, 2)),
)
"""Bulk mail: its worker dies, and the main process lives."""
MAIN: Sequence[Point] = (
    Point("committed by the worker, the 250 about to be written", committed_but_not_answered, (1, 1)),
    Point("the 250 is out", answered, (1, 1)),
    Point("the final dot is out", final_dot_sent, (1, 2)),
    Point("taken in by the worker, not deleted in the main file", taken_in_but_not_forgotten, (1, 1)),
)
"""Bulk mail: the main process dies, and its worker finishes what it can and ends."""


@dataclass(frozen=True, slots=True)
class Series:
    points: Sequence[Point]
    sender: str
    workers: int
    victim: str


SERIES: Mapping[str, Series] = {
    "one process": Series(WAY, OTP, 0, "main"),
    "a lane that holds": Series(HELD, HOLD, 0, "main"),
    "a worker": Series(WORKER, BULK, 1, "worker"),
    "the main process beside a worker": Series(MAIN, BULK, 1, "main"),
}


async def die_at_every_point(folder: Path, series: Series) -> Mapping[str, int]:
    """How often the message of each point arrived. AssertionError where that is not as it may be."""
    arrived: dict[str, int] = {}
    async with Upstream() as upstream:
        config = configuration(folder, upstream, workers=series.workers)
        relay = RelayProcess(config)
        await relay.start()
        try:
            for point in series.points:
                await _works(relay, series.workers)
                victim = relay.pid if series.victim == "main" else processes.workers(relay.pid)[0]
                life = Life(relay, upstream, folder / "relay.db", series.sender, victim)
                await asyncio.wait_for(point.reach(life), 2 * DIES_WITHIN_S)
                upstream.set_script({})
                upstream.reset_sessions()
                if series.victim == "main":
                    await relay.wait()
                    relay = RelayProcess(config)
                    await relay.start()
                await until(_rests(relay), RESTS_WITHIN_S)
                times = sum(life.to in one.recipients for one in upstream.messages)
                least, most = point.arrives
                least = max(least, 1 if life.id is not None else 0)
                assert least <= times <= most, f"{point.name}: acknowledged as {life.id}, arrived {times} times"
                arrived[point.name] = times
                if series.victim == "worker":
                    # One that died often is started again later and later: the relay begins anew.
                    await relay.terminate()
                    relay = RelayProcess(config)
                    await relay.start()
        finally:
            await relay.kill()
    return arrived


async def _works(relay: RelayProcess, workers: int) -> None:
    async def ready() -> bool:
        return len(processes.workers(relay.pid)) == workers and (
            not workers or relay.stderr.count("event=worker_ready") > relay.stderr.count("event=trouble where=worker")
        )

    await until(ready, RESTS_WITHIN_S)


def _rests(relay: RelayProcess) -> Callable[[], Awaitable[bool]]:
    """Nothing waits but what an operator must decide."""

    async def holds() -> bool:
        lanes = (await get(relay, "/api/queue")).document["lanes"]
        return all(row["state"] == "ambiguous" for row in lanes)

    return holds


def alive(pid: int) -> bool:
    """It runs; a process that has ended and was not waited for yet doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except OSError:
        return False
