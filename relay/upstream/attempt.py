"""One attempt at an upstream: how long it may take, how far it is, and how it went."""

from __future__ import annotations

from typing import NamedTuple

from relay.mail.outcome import SessionKind, Via
from relay.upstream.results import Result


class Progress:
    """How far an attempt has come, for hedging."""

    __slots__ = ("answered", "asked", "behind", "content_sent", "rival")

    def __init__(self) -> None:
        self.asked = False
        """the upstream was asked to take the message"""
        self.behind = False
        """it has another message to answer first, so its silence says nothing of this one"""
        self.answered = False
        """it answered (SMTP: the whole envelope)"""
        self.content_sent = False
        """the attempt passed the gate: from now on the upstream may have the message"""
        self.rival: Progress | None = None
        """of another attempt with the same message at the same upstream, over a session of its own"""

    def again(self) -> None:
        """Another connection to the same upstream is asked, since none of the message was accepted."""
        self.asked = self.behind = self.answered = self.content_sent = False


class Terms(NamedTuple):
    """How long an attempt may take."""

    attempt_s: float
    """seconds for all that comes before the end of the content"""
    final_s: float
    """seconds for the answer to the content"""
    progress: Progress
    own_session: bool = False
    """not behind another message: on a session that carries nothing else"""


class Report(NamedTuple):
    """How an attempt at one upstream went, for each recipient that it was for."""

    upstream: str
    started_at: float
    """time.monotonic"""
    session: SessionKind
    """the connection was open before, was opened for this attempt, or could not be had"""
    results: tuple[Result, ...]
    timings_ms: dict[str, float]
    """milliseconds of each phase; together they are the attempt's duration"""
    codes: tuple[int, ...] = ()
    """reply codes of the upstream, in order"""
    dsn: bool = False
    """the upstream took over the duty to report success (RFC 3461)"""
    error: Exception | None = None
    """a fault of the relay's own that ended the attempt"""
    via: Via = "smtp"
    knows_for_s: float = 0.0
    """how long the upstream knows the request, if it comes again: by its idempotency key; 0: it doesn't"""
    key: str = ""
    """that key"""
    is_signed: bool = True
    """with the signatures of the relay, where it has keys"""
    redirected: bool = False
    """it went to another address than the recipients', so replies say nothing of theirs"""

    @property
    def may_be_repeated(self) -> bool:
        """The same request may go again, where its outcome is unknown."""
        return self.knows_for_s > 0

    @property
    def ended_at(self) -> float:
        """time.monotonic: when the upstream answered, or the attempt was given up."""
        return self.started_at + sum(self.timings_ms.values()) / 1000.0
