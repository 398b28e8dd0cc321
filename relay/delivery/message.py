"""Delivery state of one message: pending recipients, attempts, signed renditions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Literal

from relay.delivery.fastest import Ranking
from relay.mail.correlation import correlated
from relay.mail.message import over_long_line
from relay.mail.recode import Form, recoded
from relay.mail.setting import taken_out, with_fields
from relay.policy.suppression import BadAddress
from relay.providers.registry import provider_named
from relay.signing.signatures import LARGE_BYTES
from relay.store.model import Attempt, OpenRecipient, Queued, RecipientUpdate, Repeat, Settlement
from relay.upstream.gate import EXPIRED, NOT_STORED, SUPERSEDED, Gate
from relay.upstream.load import Finish, Parts

SLOW_BYTES = 4_096
"""a larger content is re-encoded off the event loop"""

Sign = Callable[[Queued, frozenset[str]], Awaitable[Sequence[bytes]]]
"""`Signatures.sign`, for the messages of one lane"""


class NotSigned(Exception):
    """The signature that was begun beside the commit has failed. The next attempt makes it."""


@dataclass(slots=True)
class Pending:
    """A recipient without a final outcome."""

    open: OpenRecipient
    last: str | None = None
    """why it still waits: the last reply, redacted, or a reason of the relay's own"""
    upstream: str | None = None
    is_unknown: bool = False
    """an upstream may have the message: the reply to a final dot didn't come"""
    repeat: Repeat | None = None
    """the upstream that may have it, where the same request can go again"""
    unsupported_everywhere: bool = True
    """so far every upstream of this round replied that it can never carry the message"""


@dataclass(slots=True, eq=False)
class Job:
    """Lives from acceptance, or from its claim, to its settlement."""

    queued: Queued
    gate: Gate
    sign: Sign
    final_dot: float
    """when the app sent it (time.monotonic)"""
    redirect: str | None = None
    """the address that it goes to instead of its recipients"""
    offered_at: float = field(default_factory=time.monotonic)
    picked_at: float = 0.0
    """when its delivery began (time.monotonic)"""
    is_claimed: bool = False
    """it was claimed from the store"""
    is_stopped: bool = False
    """the relay ends: nothing more of it is begun"""
    is_over: bool = False
    """its lane no longer has it in memory"""
    put_over: asyncio.Event = field(default_factory=asyncio.Event)
    """set when the message's first commit is over, whether or not it succeeded"""
    is_stored: bool = False
    """its first commit succeeded: only then does the store have something to settle or to give back"""
    older: Job | None = None
    """the message to the same recipient that this one supersedes once it is stored"""
    superseded_by: str | None = None
    """the id of a newer message to the same recipient: this one is not tried again"""
    marking: asyncio.Task[None] | None = None
    """writes that the final dot is about to leave, in lanes that hold ambiguous messages"""
    pending: dict[int, Pending] = field(init=False)
    tries: dict[int, int] = field(init=False)
    """attempts made for each recipient, over the message's whole life"""
    carried: tuple[int, ...] = ()
    """positions of the recipients of the transaction under way"""
    attempts: list[Attempt] = field(default_factory=list)
    updates: list[RecipientUpdate] = field(default_factory=list)
    note: str | None = None
    """for the time line, with the next settlement"""
    settling: tuple[Settlement, asyncio.Future[None]] | None = None
    """handed to the store, and not known to be written"""
    relayed: set[int] = field(default_factory=set)
    """recipients accepted by an upstream without DSN: the success report is the relay's (RFC 3461 5.2.2)"""
    went_unsigned: bool = False
    """an upstream that builds another message, or breaks signatures, has accepted it"""
    bad_addresses: list[BadAddress] = field(default_factory=list)
    """to be reported once the outcome is durable"""
    provider: str = ""
    """in a lane that prefers the fastest upstream: the label of the first recipient's mailbox provider"""
    explores: bool = False
    """it goes to another upstream than the fastest first"""
    ranking: Ranking | None = None
    """by which its upstreams were put in order"""
    timings_ms: dict[str, float] = field(default_factory=dict)
    sign_ms: float = 0.0
    sign_began_at: float = 0.0
    """time.monotonic"""
    is_traced: bool = False
    """its way to the first attempt is in its trace"""
    memo: dict[object, object] = field(default_factory=dict)
    """what upstreams found out about the content, by keys of their own"""
    _renditions: dict[Form, Queued] = field(default_factory=dict)
    _parts: dict[tuple[Form, Finish], Sequence[bytes]] = field(default_factory=dict)
    _being_signed: tuple[Form, Finish] | None = None

    def __post_init__(self) -> None:
        self.pending = {one.position: Pending(one, repeat=one.repeat) for one in self.queued.due}
        self.tries = {one.position: one.attempts for one in self.queued.due}

    def on_put(self, *, stored: bool) -> None:
        """The message's first commit is over."""
        self.is_stored = stored
        if stored:
            self.gate.open()
        else:
            self.gate.shut(NOT_STORED)
        self.put_over.set()

    async def was_stored(self) -> bool:
        """`is_stored`, once the first commit is over."""
        await self.put_over.wait()
        return self.is_stored

    @property
    def rank(self) -> tuple[float, str]:
        """The lane's order: the earliest deadline first."""
        return self.gate.deadline, self.queued.id

    def withdrawn(self, now: float) -> Literal["superseded", "expired", "stopped"] | None:
        """Why nothing more of it may be sent (`now`: `steady`); None: it may."""
        if self.superseded_by is not None:
            return "superseded"
        if now >= self.gate.deadline or self.gate.shut_reason is EXPIRED:
            return "expired"
        return "stopped" if self.is_stopped else None

    def supersede(self, by: str) -> None:
        """A newer message takes its place, unless this one's final dot has left already."""
        self.superseded_by = by
        self.gate.shut(SUPERSEDED)

    def stop(self) -> bool:
        """The relay ends. True: it is behind its final dot, and its round ends now with an unknown outcome."""
        self.is_stopped = True
        return self.gate.stop()

    async def rendition(self, form: Form) -> Queued:
        """The message in the form that an upstream takes, made once. Raises Unencodable."""
        if self._is_slow(form):
            return await asyncio.to_thread(self._rendered, form)
        return self._rendered(form)

    def sign_ahead(self, finish: Finish) -> Coroutine[Any, Any, None] | None:
        """Begin the signature beside the commit and the envelope. The gate must stay closed until the result was
        awaited. None: it would hold up the event loop; `signed` makes it."""
        form: Form = "as it is"
        if self._is_slow(form) or not finish.is_signed:
            return None
        finished = _finished(self._rendered(form), finish)
        signing = self._keep(time.monotonic(), form, finish, self.sign(finished, finish.unsigned))
        self._being_signed = form, finish
        return signing

    async def signed(self, form: Form, finish: Finish) -> Parts:
        """The signed content, for a session that is about to send the envelope; complete before the gate lets it
        through. Each form and finish is signed once. Raises Unencodable."""
        key = form, finish
        under_way = key == self._being_signed and not self.put_over.is_set()
        if key not in self._parts and not under_way:
            rendition = await self.rendition(form)
            rendition = await _in_time(rendition, finish)
            if finish.is_signed:
                await self._keep(time.monotonic(), form, finish, self.sign(rendition, finish.unsigned))
            else:
                self._parts[key] = (rendition.content,)
        return partial(self._complete, key)

    async def finished(self, finish: Finish) -> bytes:
        """The content as it was accepted, finished, with nothing taken out and not signed."""
        return (await _in_time(self.queued, finish._replace(taken_out=frozenset()))).content

    def finished_now(self, finish: Finish) -> bytes | None:
        """The same. None: to make it would hold up the event loop."""
        if len(self.queued.content) >= LARGE_BYTES:
            return None
        return _finished(self.queued, finish._replace(taken_out=frozenset())).content

    async def _keep(self, began_at: float, form: Form, finish: Finish, signing: Awaitable[Sequence[bytes]]) -> None:
        self.sign_began_at = self.sign_began_at or began_at
        self._parts[form, finish] = await signing
        self.sign_ms += (time.monotonic() - began_at) * 1000.0

    def _complete(self, key: tuple[Form, Finish]) -> Sequence[bytes]:
        parts = self._parts.get(key)
        if parts is None:
            raise NotSigned
        return parts

    def _is_slow(self, form: Form) -> bool:
        """Would making this form hold up the event loop? A content may be all parts, of a few bytes each."""
        content = self.queued.content
        if form in self._renditions or len(content) <= SLOW_BYTES:
            return False
        return len(content) >= LARGE_BYTES or form != "as it is" or over_long_line(content)

    def _rendered(self, form: Form) -> Queued:
        made = self._renditions.get(form)
        if made is None:
            content = recoded(self.queued.content, form)
            made = self.queued if content is self.queued.content else self.queued._replace(content=content)
            self._renditions[form] = made
        return made


async def _in_time(queued: Queued, finish: Finish) -> Queued:
    """`_finished`, off the event loop where that would hold it up."""
    if len(queued.content) >= LARGE_BYTES:
        return await asyncio.to_thread(_finished, queued, finish)
    return _finished(queued, finish)


def _finished(queued: Queued, finish: Finish) -> Queued:
    """With the upstream's own fields, the relay's id in the field of its provider, and without what its API has
    parameters for."""
    content = with_fields(queued.content, finish.settings) if finish.settings else queued.content
    provider = provider_named(finish.provider) if finish.provider is not None else None
    if provider is not None:
        content = correlated(content, provider, queued.id)
    if finish.taken_out:
        content, _ = taken_out(content, finish.taken_out)
    return queued if content is queued.content else queued._replace(content=content)
