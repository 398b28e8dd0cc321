"""What takes the messages that come in by HTTP: the interface that the relay implements."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Literal, NamedTuple, Protocol

Reason = Literal["busy", "recipients", "size", "store", "syntax", "timeout"]
"""Why the HTTP service itself refuses a message: labels of `relay_messages_rejected_total`."""

ErrorCode = Literal[
    "unreadable", "unauthorized", "forbidden", "not_found", "method_not_allowed", "too_slow", "idempotency_key",
    "too_large", "unsupported_type", "invalid", "unknown_lane", "too_many_recipients", "sender_not_allowed",
    "suppressed", "limited", "refused", "unavailable",
]  # fmt: skip
"""what a program knows an error of `/api/send` by"""


class NotSent(NamedTuple):
    """Why a message isn't taken, as HTTP says it."""

    status: int
    code: ErrorCode
    message: str
    """a sentence for a person; it quotes nothing of the message"""
    reason: Reason | None = None
    """to be counted; None: it is counted already, or isn't about a message"""
    retry_after_s: int | None = None


class CannotReceive(Exception):
    """The request is answered with this."""

    def __init__(self, answer: NotSent) -> None:
        super().__init__(answer.code)
        self.answer = answer


class Outgoing(NamedTuple):
    """A message's envelope, and how it came. Addresses have no display names."""

    sender: str
    """'' for the null sender"""
    recipients: tuple[str, ...]
    lane: str | None
    idempotency_key: str | None
    client: str | None
    """the peer's IP; None: a unix socket"""
    receive_s: float
    received_at: float
    """time.monotonic"""


class Upload(Protocol):
    """A content while it comes in: in memory while it is small, else in a file."""

    @property
    def size_bytes(self) -> int:
        """What was written so far."""

    def write(self, piece: bytes) -> None:
        """Never raises. Where a piece can't be written, `reader` and `Sender.send` say so."""

    def reader(self) -> Callable[[], bytes]:
        """A function that reads the whole content, for a thread as well. Both raise CannotReceive."""

    def close(self) -> None:
        """Delete it. Further calls do nothing."""


class Sender(Protocol):
    """Takes messages."""

    def unavailable(self, *, has_key: bool) -> NotSent | None:
        """Why no message can be taken now; None: it can. `has_key`: of the request, which may be one that was taken
        before, and is then answered however full the queue is."""

    def lanes(self) -> Collection[str]:
        """The names of the lanes."""

    def most_bytes(self) -> int:
        """of a message"""

    def most_recipients(self) -> int:
        """of a message"""

    def begin(self) -> Upload:
        """Where a content can be written to. The caller closes it, unless it goes to `send`."""

    async def send(self, outgoing: Outgoing, upload: Upload) -> str | NotSent:
        """Accept a message. Returns its id once it is durable. The upload is closed once it isn't needed any more, also
        where this call is cancelled: what was being stored is stored."""

    def refused(self, reason: Reason) -> None:
        """Count a message that never came to `send`."""
