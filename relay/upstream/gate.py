"""The gate between the envelope and the content of a message.

The envelope may be under way while the message is still being committed and signed, and two sessions may race with
it (hedging). The content leaves through one gate, once: it opens when the commit is durable, shuts when the message
expired or was superseded, and lets a single session through.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, Protocol

from relay.mail.reply import Reply

EXPIRED = Reply.own(451, "4.4.7", "expired before the final dot")
SUPERSEDED = Reply.own(451, "4.4.7", "a newer message took its place")
OUTRUN = Reply.own(451, "4.4.1", "another upstream was faster")
NOT_STORED = Reply.own(451, "4.3.0", "could not be stored")
STOPPED = Reply.own(451, "4.3.2", "the relay stopped before the upstream answered")


class Carrier(Protocol):
    """A session waiting at the gate."""

    def proceed(self) -> None:
        """The gate has moved: ask again."""

    def stop(self, gate: Gate) -> None:
        """If what went through `gate` is still unanswered, wait no longer: end as if the connection were lost."""


Answer = Literal["wait", "go", "shut"]


class Gate:
    """One a message. Past `deadline` (`steady`) nobody goes through.

    `mark` is for lanes that must know after a crash what may have left: it is called once, when the first session
    stands at the open gate, and `marked` lets it go on; after `unmark` (other recipients), once more.
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
        self._move()

    def marked(self) -> None:
        """The mark asked for by `mark` is durable."""
        self.is_marked = True
        self._move()

    def unmark(self) -> None:
        """The next to leave is for others: they need a mark of their own."""
        self.is_marked = self._marking = False

    def shut(self, reason: Reply) -> bool:
        """Nobody goes through any more; False when somebody already has."""
        if self.passed is not None:
            return False
        if self.shut_reason is None:
            self.shut_reason = reason
            self._move()
        return True

    def stop(self) -> bool:
        """The relay ends: nothing more goes through, and the answer to what did is not waited for. True: something had
        gone through."""
        if self.shut_reason is None:
            self.shut_reason = STOPPED
        if self.passed is None:
            self._move()
            return False
        self.passed.stop(self)
        return True

    def ask(self, carrier: Carrier, now: float) -> Answer:
        """May `carrier` send the content now? `wait`: it is told by `proceed`. `go` is said to one."""
        if self.passed is not None:
            return "go" if self.passed is carrier else "shut"
        if self.shut_reason is None and now >= self.deadline:
            self.shut_reason = EXPIRED
        if self.shut_reason is not None:
            return "shut"
        if self.is_open and (self.mark is None or self.is_marked):
            self.passed = carrier
            return "go"
        self._waiting.append(carrier)
        if self.is_open and self.mark is not None and not self._marking:
            self._marking = True
            self.mark()
        return "wait"

    def reason(self) -> Reply:
        """Why it was shut."""
        return self.shut_reason or OUTRUN

    def refusal(self, now: float) -> Reply | None:
        """Why nothing more need be begun (`now`: `steady`); None: it may yet be let through."""
        if self.passed is None and self.shut_reason is None and now >= self.deadline:
            self.shut_reason = EXPIRED
        return self.reason() if self.passed is not None or self.shut_reason is not None else None

    def release(self, carrier: Carrier) -> None:
        """Where `carrier` went through, nobody took the message over: it may be asked again, over another session."""
        if self.passed is carrier:
            self.passed = None

    def reopen(self) -> None:
        """The one that went through was refused: the next upstream may be tried."""
        self.passed = None

    def _move(self) -> None:
        waiting, self._waiting = self._waiting, []
        for carrier in waiting:
            carrier.proceed()
