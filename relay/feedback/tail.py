"""Follows the relay's own events in the message files: what receivers are to get of them, and what an objective waits
for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from relay.feedback.message_files import MessageFiles
from relay.feedback.receiver import Receiver
from relay.feedback.record import posts
from relay.store.base import StoreError
from relay.store.events import MailEvent, Post, Undecided
from relay.store.sqlite import relay_events
from relay.store.sqlite.events_file import EventsFile
from relay.store.sqlite.locate import Located
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.relay_events import TailRow
from relay.store.timeline import Recipients

LOOK_EVERY_S = 0.25
"""each file is looked at so often, besides the nudges"""
ROWS_AT_ONCE = 500
UNDECIDED_FOR_S = 900.0
"""without a delivered event the upstream's 250 decides about an objective then"""


Happened = tuple[MailEvent, Located]
"""An event of the relay's own, and the recipient that it is about."""


@dataclass(slots=True)
class Following:
    """What the rows of all files are followed for. A reload changes it."""

    receivers: Sequence[Receiver] = ()
    since: Mapping[str, float] = field(default_factory=dict)
    """by the receiver's key: what happened before then is no news for it"""
    objectives: frozenset[str] = field(default_factory=frozenset)
    """lanes that have one"""
    reporting: frozenset[str] = field(default_factory=frozenset)
    """upstreams that report deliveries"""

    def may_want(self, kind: str) -> bool:
        """Is an event of this kind of use, in some lane?"""
        if kind == "sent" and self.objectives:
            return True
        return any(each.kinds is None or kind in each.kinds for each in self.receivers)


class Posted(Protocol):
    def __call__(self) -> None:
        """New rows are in the outbox."""


class Tail:
    """`load`, then `run` as a background task; `nudge` when something was written."""

    def __init__(
        self,
        files: MessageFiles,
        events: EventsFile,
        posted: Posted,
        trouble: Callable[[str, BaseException], None],
    ) -> None:
        self.following = Following()
        self.seen: Callable[[str], object] = lambda _: None
        """called with the mailbox provider of each recipient"""
        self.begin: Mapping[str, int] = {}
        """by file: its newest event when it was first to be followed; of a file that came later it is the first"""
        self._files = files
        self._events = events
        self._posted = posted
        self._trouble = trouble
        self._until: dict[str, int] = {}
        self._wake = asyncio.Event()
        self._stepping = asyncio.Lock()

    def nudge(self) -> None:
        """Look now."""
        self._wake.set()

    async def load(self) -> None:
        """Before all else: find out how far each file was read. Raises StoreError."""
        self._until = dict(await self._events.read_until())

    async def run(self) -> None:
        """Never returns."""
        while True:
            self._wake.clear()
            try:
                await self.catch_up()
            except StoreError as error:
                self._trouble("follow", error)
                await asyncio.sleep(1.0)
            try:
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def catch_up(self) -> None:
        """Take over all that is committed by now. Raises StoreError."""
        async with self._stepping:
            while await self._step():
                pass

    async def save(self) -> None:
        """Note how far each file was read, at the end."""
        for name, seq in self._until.items():
            await self._events.follow(name, seq)

    async def _step(self) -> bool:
        """Take over what is new in each file, up to a number of rows. True: there is more."""
        more = False
        for name, reader in list(self._files.by_name.items()):
            if not self.following.receivers and not self.following.objectives:
                self._until[name] = await self._files.thread.run(partial(reader.ask, relay_events.last))
                continue
            if name not in self._until:
                self._until[name] = self.begin.get(name, 0)
                await self._events.follow(name, self._until[name])
            rows, happened = await self._files.thread.run(partial(self._read, reader, self._until[name]))
            if not rows:
                continue
            await self._take_over(name, rows[-1].seq, happened)
            more = more or len(rows) == ROWS_AT_ONCE
        return more

    async def _take_over(self, name: str, seq: int, happened: Sequence[Happened]) -> None:
        following = self.following
        outgoing: list[tuple[str, str, int, Post]] = []
        undecided: list[Undecided] = []
        for event, one in happened:
            self.seen(one.provider)
            receivers = [each for each in following.receivers if event.at >= following.since.get(each.key, 0.0)]
            for post in posts(event, one, receivers):
                outgoing.append((event.id, event.message_id, event.position, post))  # noqa: PERF401
            if event.kind == "sent" and one.lane in following.objectives and event.upstream in following.reporting:
                due_at, after_s = one.accepted_at + UNDECIDED_FOR_S, event.at - one.accepted_at
                undecided.append(Undecided(event.message_id, event.position, one.lane, due_at, after_s))
        if outgoing or undecided or seq - self._until[name] >= ROWS_AT_ONCE:
            await self._events.follow(name, seq, outgoing, undecided)
        # Else rows of no interest are read again after a restart, which costs less than a commit.
        self._until[name] = seq
        if outgoing:
            self._posted()

    def _read(self, reader: Reader, seq: int) -> tuple[list[TailRow], list[Happened]]:
        """The next rows of a file, and what those of use are about."""
        rows = reader.ask(partial(relay_events.since, seq=seq, limit=ROWS_AT_ONCE))
        wanted = [row for row in rows if self.following.may_want(row.kind)]
        return rows, list(Recipients.from_(reader, self._files.readers()).of_rows(wanted))
