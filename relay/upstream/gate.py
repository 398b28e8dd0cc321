"""The gate between the envelope and the content of a message.

The envelope may be under way while the message is still being committed and signed, and two upstreams may race with
it (hedging). The content leaves through one gate, once: it opens when the commit is durable, shuts when the message
expired or was superseded, and lets a single carrier through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from relay.mail.reply import Reply

EXPIRED = Reply.own(451, "4.4.7", "expired before the final dot")
SUPERSEDED = Reply.own(451, "4.4.7", "a newer message took its place")
LOST_RACE = Reply.own(451, "4.4.1", "another attempt was faster")
NOT_STORED = Reply.own(451, "4.3.0", "could not be stored")
STOPPED = Reply.own(451, "4.3.2", "the relay stopped before the upstream answered")


class Carrier(Protocol):
    """An attempt that waits at the gate, or went through it."""

    def proceed(self) -> None:
        """The gate's state changed: call `ask` again."""

    def stop(self) -> None:
        """If the content is still unanswered, wait no longer: end as if the connection were lost."""


class _Ended:
    """Stands for a carrier whose attempt is over."""

    def proceed(self) -> None: ...

    def stop(self) -> None: ...


_ENDED = _Ended()

Answer = Literal["wait", "go", "shut"]


class Gate:
    """One for each message. Past `deadline` (`steady`) no carrier goes through.

    `mark` is for lanes that must know after a crash what may have left. It is called once, when the first carrier
    comes to the open gate, and `marked` lets that carrier go on. After `unmark` (other recipients) it is called again.
    """

    __slots__ = ("_marking", "_waiting", "deadline", "is_marked", "is_open", "mark", "passed", "shut_reason")

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.is_open = False
        self.shut_reason: Reply | None = None
        self.passed: Carrier | None = None
        self.mark: Callable[[], None] | None = None
        self.is_marked = False
        self._marking = False
        self._waiting: list[Carrier] = []

    def open(self) -> None:
        """The message is durable and signed."""
        self.is_open = True
        self._notify()

    def marked(self) -> None:
        """The mark asked for by `mark` is durable."""
        self.is_marked = True
        self._notify()

    def unmark(self) -> None:
        """The next content is for other recipients: they need a mark of their own."""
        self.is_marked = self._marking = False

    def shut(self, reason: Reply) -> bool:
        """Let no carrier through any more; False when one already went through."""
        if self.passed is not None:
            return False
        if self.shut_reason is None:
            self.shut_reason = reason
        self._notify()
        return True

    def stop(self) -> bool:
        """The relay ends: no carrier goes through any more, and one that did waits no longer for its answer. True: one
        had gone through."""
        if self.shut_reason is None:
            self.shut_reason = STOPPED
        if self.passed is None:
            self._notify()
            return False
        self.passed.stop()
        return True

    def ask(self, carrier: Carrier, now: float, *, needs_mark: bool = True) -> Answer:
        """May `carrier` send the content now? `wait`: until its `proceed` is called. Until `reopen`, only one
        carrier gets `go`. `needs_mark`: False where the upstream can tell after a crash whether it has the message."""
        if self.passed is not None:
            return "go" if self.passed is carrier else "shut"
        if self.shut_reason is None and now >= self.deadline:
            self.shut_reason = EXPIRED
        if self.shut_reason is not None:
            return "shut"
        if self.is_open and (self.mark is None or self.is_marked or not needs_mark):
            self.passed = carrier
            return "go"
        self._waiting.append(carrier)
        if self.is_open and self.mark is not None and not self._marking:
            self._marking = True
            self.mark()
        return "wait"

    def reason(self) -> Reply:
        """Why it was shut."""
        return self.shut_reason or LOST_RACE

    def refusal(self, now: float) -> Reply | None:
        """Why a new attempt has no chance to get through (`now`: `steady`); None: it has one."""
        if self.passed is None and self.shut_reason is None and now >= self.deadline:
            self.shut_reason = EXPIRED
        return self.reason() if self.passed is not None or self.shut_reason is not None else None

    def ended(self, carrier: Carrier) -> None:
        """The carrier's attempt is over. The gate lets go of it: a circle of references would keep the content in
        memory until Python looks for such circles."""
        if self.passed is carrier:
            self.passed = _ENDED

    def reopen(self) -> None:
        """The carrier that went through was refused, or was dead: the next may be tried."""
        self.passed = None

    def _notify(self) -> None:
        waiting, self._waiting = self._waiting, []
        for carrier in waiting:
            carrier.proceed()
