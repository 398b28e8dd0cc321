"""What is known of an upstream: its circuit, its window, and what each failure and each success means for them."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from typing import Protocol

from relay.config import model
from relay.mail.reply import Reply
from relay.upstream.attempt import Progress
from relay.upstream.circuit import Circuit
from relay.upstream.redaction import reply_for_operators
from relay.upstream.results import LOST, TIMED_OUT, OpenFailed
from relay.upstream.window import Window


class Watcher(Protocol):
    """Gets a call when a lane's upstream goes down, when it comes back, and when it needs another treatment."""

    def down(self, lane: str, upstream: str, reason: str) -> None: ...

    def up(self, lane: str, upstream: str) -> None: ...

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        """It closes sessions that are idle for `after_s` seconds: they are opened when there is mail."""

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        """It can't take several messages on a session: they go one after the other for a time."""

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        """With `via: auto`: its API or its SMTP server is down; mail goes by the other."""

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        """That one is back."""


class Standing(ABC):
    """Of one upstream as one lane uses it. Times are time.monotonic."""

    def __init__(self, lane: str, name: str, config: model.Upstream, *, express: bool, watcher: Watcher) -> None:
        self.lane = lane
        self.name = name
        self.config = config
        self.express = express
        self._circuit = Circuit()
        most = config.sessions.max
        self.window = Window(most, most) if express else Window(most)
        self.settled = asyncio.Event()
        """set once a connection was opened, or couldn't be, or none is to stand ready"""
        self._watcher = watcher
        self._is_on_demand = False
        """that was said"""

    @property
    def circuit(self) -> Circuit:
        """Whether mail may go there."""
        return self._circuit

    @property
    def ways_down(self) -> str | None:
        """Which of several ways are down, and why. None: it has one way, or all are up."""
        return None

    @abstractmethod
    def fail_waiting(self, failure: OpenFailed) -> None:
        """Let each attempt that waits for a connection fail."""

    def timed_out(self, progress: Progress) -> None:
        """The upstream left the message unanswered, on a session that worked: its circuit opens, unless it answers the
        same message on another session."""
        if progress.rival is None or not progress.rival.answered:
            self.condemn(OpenFailed("session", TIMED_OUT))

    def condemn(self, reason: OpenFailed, *, reply_text: str = "") -> None:
        """Open the circuit: the upstream is unreachable, unsafe, doesn't respond, or refuses the account. `reply_text`:
        its reply, for operators, where it isn't the reason itself."""
        refused = reason.reply.permanent and reason.phase != "connect"
        reply_text = reply_for_operators(reason.reply) if reason.from_upstream else reply_text
        if self.circuit.failed(time.monotonic(), reason.reason, reply_text=reply_text, refused=refused):
            self._watcher.down(self.lane, self.name, reason.reason)
        self.settled.set()
        self.fail_waiting(reason)

    def account_refused(self, reason: OpenFailed, message_id: str) -> None:
        """The account was refused behind MAIL, which may be meant for this message alone: the second message in a row
        opens the circuit."""
        if self.circuit.account_refused(message_id):
            self.condemn(reason)

    def connection_lost(self) -> None:
        """A connection broke off that should not have. Two in a row open the circuit."""
        self.failed_once(OpenFailed("session", LOST))

    def failed_once(self, failure: OpenFailed) -> None:
        """It failed for no reason of the message's. Two in a row open the circuit."""
        if self.circuit.lost(time.monotonic(), failure.reason):
            self._watcher.down(self.lane, self.name, failure.reason)
            self.fail_waiting(failure)

    def throttled(self, for_s: float) -> None:
        """It asked for a pause: no message goes there before its end, and no probe."""
        now = time.monotonic()
        failure = OpenFailed("session", Reply.own(450, "4.7.1", f"too many requests: asked to wait {for_s:g} s"))
        if not self.express:
            self.window.throttled(now)
        if self.circuit.pause(now, failure.reason, for_s):
            self._watcher.down(self.lane, self.name, failure.reason)
        self.settled.set()
        self.fail_waiting(failure)

    def opens_on_demand(self, after_s: float) -> None:
        """The upstream closes connections that were idle for `after_s` seconds, so none is kept. Said once."""
        if not self._is_on_demand:
            self._is_on_demand = True
            self._watcher.on_demand(self.lane, self.name, after_s)

    def goes_one_at_a_time(self, reason: str) -> None:
        """Messages go to the upstream one after the other on each connection, for a time."""
        self._watcher.one_at_a_time(self.lane, self.name, reason)

    def connected(self) -> None:
        """A connection was opened."""
        self.settled.set()
        if self.circuit.connected():
            self._watcher.up(self.lane, self.name)

    def answered(self) -> None:
        """A message was answered as it should be."""
        if self.circuit.succeeded():
            self._watcher.up(self.lane, self.name)
