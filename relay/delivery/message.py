"""Delivery state of one message: pending recipients, attempts, signed renditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from relay.mail.message import over_long_line
from relay.mail.transfer import Form, recoded
from relay.store.model import Attempt, OpenRecipient, Queued, RecipientUpdate, Settlement
from relay.upstream.gate import EXPIRED, SUPERSEDED, Gate

TOILSOME_BYTES = 4_096
"""a content of more is re-encoded off the event loop"""

Signing = Callable[[Queued, frozenset[str]], Sequence[bytes]]
"""The content's parts with the signatures before them; the set names the headers (lower case) they must not cover."""


class SigningElsewhere(Protocol):
    """The same, under way in another process before it returns. None: there is none."""

    def __call__(
        self, queued: Queued, unsigned: frozenset[str], *, express: bool
    ) -> Coroutine[Any, Any, Sequence[bytes]] | None: ...


@dataclass(slots=True)
class Pending:
    """A recipient without a final outcome."""

    open: OpenRecipient
    last: str | None = None
    """why it still waits: the last reply, redacted, or a reason of the relay's own"""
    upstream: str | None = None
    is_unknown: bool = False
    """an upstream may have it: the answer to a final dot didn't come"""
    unsupported_everywhere: bool = True
    """so far every upstream of this round said that it can never carry it"""


class Job:
    """Lives from pick-up (or acceptance) to settlement. `rank` orders the lane: the earliest deadline first."""

    __slots__ = (
        "_forms",
        "_parts",
        "_sign",
        "attempts",
        "carried",
        "deadline",
        "final_dot",
        "gate",
        "is_claimed",
        "is_over",
        "is_stopped",
        "marking",
        "note",
        "offered_at",
        "older",
        "pending",
        "picked_at",
        "queued",
        "relayed",
        "settling",
        "sign_ms",
        "stored",
        "superseded_by",
        "timings_ms",
        "tries",
        "updates",
    )

    def __init__(self, queued: Queued, gate: Gate, sign: Signing, final_dot: float) -> None:
        """`final_dot`: when the app's was taken in (time.monotonic)."""
        self.queued = queued
        self.gate = gate
        self.deadline = gate.deadline
        self.final_dot = final_dot
        self.stored = asyncio.Event()
        """set when the message's first commit is over, one way or the other"""
        self.older: Job | None = None
        """the message to the same recipient that this one is to supersede, once it is stored"""
        self.superseded_by: str | None = None
        """the id of a newer message to the same recipient: this one is not tried again"""
        self.marking: asyncio.Task[None] | None = None
        """the final dot's mark being written, in lanes that hold what is ambiguous"""
        self.note: str | None = None
        """for the time line, with the next settlement"""
        self.is_stopped = False
        """the relay ends: nothing more of it is begun"""
        self.is_over = False
        """the lane has it no more"""
        self.is_claimed = False
        """it was in the store before it came into the lane's hands"""
        self.offered_at = self.picked_at = time.monotonic()
        self.pending: dict[int, Pending] = {one.position: Pending(one) for one in queued.due}
        self.carried: tuple[int, ...] = ()
        """positions of those whom the transaction under way is about: as many as one may have"""
        self.tries = {one.position: one.attempts for one in queued.due}
        """how many attempts were made for each recipient, over all its life"""
        self.attempts: list[Attempt] = []
        self.updates: list[RecipientUpdate] = []
        self.settling: tuple[Settlement, asyncio.Future[None]] | None = None
        """handed to the store, and not yet known to be written"""
        self.relayed: set[int] = set()
        """recipients sent to an upstream that doesn't do DSN: the success report asked for is then ours (RFC 3461
        5.2.2)"""
        self.timings_ms: dict[str, float] = {}
        self.sign_ms = 0.0
        self._sign = sign
        self._forms: dict[Form, Queued] = {}
        self._parts: dict[tuple[Form, frozenset[str]], Sequence[bytes]] = {}

    @property
    def rank(self) -> tuple[float, str]:
        return self.deadline, self.queued.id

    def withdrawn(self, now: float) -> Literal["superseded", "expired", "stopped"] | None:
        """Why nothing more of it may be sent (`now`: `steady`); None: it may."""
        if self.superseded_by is not None:
            return "superseded"
        if now >= self.deadline or self.gate.shut_reason is EXPIRED:
            return "expired"
        return "stopped" if self.is_stopped else None

    def supersede(self, by: str) -> None:
        """A newer message takes its place, unless this one's final dot has left already."""
        self.superseded_by = by
        self.gate.shut(SUPERSEDED)

    def stop(self) -> bool:
        """The relay ends. True: it is behind its final dot, and its round ends now, with an answer that is unknown."""
        self.is_stopped = True
        return self.gate.stop()

    def has(self, form: Form) -> bool:
        """It is made already."""
        return form in self._forms

    def is_toilsome(self, form: Form = "as it is") -> bool:
        """Is making this form more than the event loop has time for? A content may be all parts, of a few bytes
        each."""
        content = self.queued.content
        return len(content) > TOILSOME_BYTES and not self.has(form) and (form != "as it is" or over_long_line(content))

    def form(self, form: Form) -> Queued:
        """The message in the form that an upstream takes, made once. Raises Unencodable."""
        made = self._forms.get(form)
        if made is None:
            content = recoded(self.queued.content, form)
            made = self.queued if content is self.queued.content else self.queued._replace(content=content)
            self._forms[form] = made
        return made

    def parts(self, unsigned: frozenset[str], form: Form = "as it is") -> Sequence[bytes]:
        """The signed content for an upstream; signed once for each form and set of headers left out."""
        key = form, unsigned
        parts = self._parts.get(key)
        if parts is None:
            began = time.monotonic()
            parts = self._parts[key] = self._sign(self.form(form), unsigned)
            self.sign_ms += (time.monotonic() - began) * 1000.0
        return parts

    def sign_elsewhere(
        self, unsigned: frozenset[str], sign: SigningElsewhere, *, express: bool
    ) -> Coroutine[Any, Any, None] | None:
        """Have the signed content for `parts` made: begun when this returns, there when the coroutine ends. None: it
        is there already, or nobody else can make it."""
        if ("as it is", unsigned) in self._parts:
            return None
        began = time.monotonic()
        signing = sign(self.form("as it is"), unsigned, express=express)
        return None if signing is None else self._signed_elsewhere(unsigned, signing, began)

    async def _signed_elsewhere(
        self, unsigned: frozenset[str], signing: Coroutine[Any, Any, Sequence[bytes]], began: float
    ) -> None:
        self._parts["as it is", unsigned] = await signing
        self.sign_ms += (time.monotonic() - began) * 1000.0

    def take_note(self) -> str | None:
        taken, self.note = self.note, None
        return taken

    def take_attempts(self) -> tuple[Attempt, ...]:
        taken, self.attempts = tuple(self.attempts), []
        return taken

    def take_updates(self) -> tuple[RecipientUpdate, ...]:
        taken, self.updates = tuple(self.updates), []
        return taken
