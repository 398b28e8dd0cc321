"""Opens the sessions of a pool, within its quota and its window, and learns from those that can't be opened."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, cast

from relay.mail.reply import Reply
from relay.upstream.base import Upstream
from relay.upstream.quota import SessionQuota
from relay.upstream.results import OpenFailed, Phase
from relay.upstream.sessions.kept import S
from relay.upstream.window import is_throttling_text

CLOSE_WITHIN_S = 1.0
_CONNECT_PHASES: tuple[Phase, ...] = ("connect", "greeting", "ehlo")
"""In these phases a failure may mean "too many sessions", whatever the reply says."""


class Openings(Generic[S]):
    """Its length is the number of sessions that are being opened."""

    def __init__(
        self,
        upstream: Upstream,
        quota: SessionQuota,
        open_session: Callable[[float], Awaitable[S]],
        opened: Callable[[S], None],
        *,
        open_within_s: float,
    ) -> None:
        """`open_session`: see `Pool`; `opened` takes each session."""
        self._upstream = upstream
        self._open_session = open_session
        self._quota = quota
        self._opened = opened
        self._open_within_s = open_within_s
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def use(self, open_session: Callable[[float], Awaitable[S]], open_within_s: float) -> None:
        """Open sessions by these from now on."""
        self._open_session, self._open_within_s = open_session, open_within_s

    def begin(self) -> None:
        """Open a session, whose place the quota has given."""
        task = asyncio.create_task(self._open(), name=f"open {self._upstream.lane}/{self._upstream.name}")
        self._tasks.add(task)
        task.add_done_callback(self._never_opened)

    async def cancel(self) -> None:
        """Give up all of them."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            # With a deadline: Python 3.11's wait_for, which aiosmtplib uses, may swallow a cancellation.
            await asyncio.wait(self._tasks, timeout=CLOSE_WITHIN_S)

    def _never_opened(self, task: asyncio.Task[None]) -> None:
        """A task that is cancelled before its first step runs nothing of its own, not even its `finally`."""
        if task in self._tasks:
            self._tasks.discard(task)
            self._quota.release()

    async def _open(self) -> None:
        session = None
        try:
            session = await self._open_session(self._open_within_s)
        except OpenFailed as failure:
            self._failed(failure)
        except Exception as error:  # noqa: BLE001 - else attempts would wait for nothing, and no probe would follow
            fault = Reply.own(451, "4.3.0", f"internal error: {type(error).__name__}")
            self._upstream.condemn(OpenFailed("connect", fault))
        finally:
            self._upstream.urged = False
            self._tasks.discard(cast(asyncio.Task[None], asyncio.current_task()))
            if session is None:
                self._quota.release()
        if session is not None:
            self._opened(session)

    def _failed(self, failure: OpenFailed) -> None:
        upstream, now = self._upstream, time.monotonic()
        counts = upstream.counts()
        there = counts["idle"] + counts["busy"]
        others = there + len(self._tasks) - 1
        refused = failure.reply.transient and failure.phase in ("greeting", "ehlo", "auth")
        closed = upstream.circuit.state == "closed"
        if closed and ((refused and others) or (there and failure.phase in _CONNECT_PHASES)):
            # It serves other sessions of ours, or may yet: this is one too many, not a dead host.
            upstream.window.refused(now, others)
        elif closed and refused and not upstream.express and is_throttling_text(failure.reply):
            # It serves codes, or another process of ours.
            upstream.circuit.tried = True
            upstream.window.throttled(now)
            upstream.fail_waiting(failure)
        else:
            upstream.condemn(failure)
