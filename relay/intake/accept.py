"""Accepts messages: each is read, checked, routed, prepared, and submitted to its destination."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple, Self

from relay.clock import Clock
from relay.config.model import Config
from relay.intake.admission import Admission
from relay.intake.copying import Copier, Original
from relay.intake.destination import Destination
from relay.intake.draft import Draft
from relay.intake.idempotency import Idempotency, Repeated
from relay.intake.placing import PlacedPart, Placer
from relay.intake.spool import Large, SpoolFailed
from relay.intake.traces import trace_accepted
from relay.intake.types import Receipt, Refused, Submission
from relay.mail.codes.examination import Examination
from relay.mail.envelope import Envelope
from relay.mail.mailbox_provider import provider
from relay.mail.message import (
    Message,
    Unacceptable,
    from_addresses,
    has_clear_authors,
    has_large_head,
    normalise,
    parse,
    subject,
)
from relay.mail.redact import redact
from relay.mail.reply import Reply
from relay.mail.trace import received, rfc5322_date
from relay.mail.traceparent import traceparent
from relay.observe.maillog import MailLog
from relay.policy.check import FULL, UNWRITABLE, PolicyFacts, Refuse, check
from relay.policy.limiter import Incoming, Limiter, client_of
from relay.policy.sender import check_author
from relay.policy.superseding import supersede_key
from relay.policy.suppression import Suppressions
from relay.routing.facts import Facts
from relay.routing.router import Route, Router
from relay.store.base import StoreError, StoreFull
from relay.store.model import IdempotencyKey, NewMessage, SplitPart
from relay.store.ulid import IdMaker

_NO_SUCH_LANE = Reply(550, "5.7.1 there is no lane of that name")


@dataclass(frozen=True, slots=True)
class ConfigState:
    """What messages are accepted by. A reload replaces it as a whole."""

    config: Config
    router: Router

    @classmethod
    def of(cls, config: Config) -> Self:
        return cls(config, Router(config))


def _ignored(_lane: str, _content: bytes | None) -> None:
    """Lint that no lane wants."""


@dataclass(frozen=True, slots=True)
class AcceptanceServices:
    """What accepting a message needs from the rest of the relay."""

    destination: Destination
    clock: Clock
    log: MailLog
    admission: Admission
    selectors: Callable[[Message], tuple[str, ...]]
    """names the keys that will sign a message"""
    limiter: Limiter
    idempotency: Idempotency
    suppressions: Suppressions = field(default_factory=Suppressions)
    provider_of: Callable[[str], str] = provider
    """an address's mailbox provider"""
    lint: Callable[[str, bytes | None], None] = _ignored
    """called with each lane and the content, as the app sent it, of each message that is durable; None: a large one"""


class _Arrival(NamedTuple):
    """A message on its way to the store. It keeps one configuration and its facts, whatever changes meanwhile."""

    state: ConfigState
    facts: PolicyFacts
    submission: Submission
    id: str
    began: float
    """time.monotonic"""
    accepted_at: float


class _Reading(NamedTuple):
    """A content, or the head of a large one, as it was read."""

    message: Message
    facts: Facts


class _Accepted(NamedTuple):
    """A message that is durable."""

    original: Original
    parts: Sequence[PlacedPart]
    """the entry first"""


class Acceptance:
    """The SMTP service's `Submit`. `state` is replaced at a reload; a message keeps the one that it began with."""

    def __init__(self, state: ConfigState, services: AcceptanceServices) -> None:
        self.state = state
        self.limiter = services.limiter
        self._services = services
        self._log = services.log
        self._placer = Placer(services.limiter, services.suppressions, services.log)
        self._copier = Copier(services.destination, services.log, services.selectors, services.provider_of)
        self._ids = IdMaker()

    async def __call__(self, submission: Submission) -> Receipt:
        """Accept a message; it is durable when this returns. Raises Refused."""
        services, began = self._services, time.monotonic()
        new_id = self._new_id()
        facts = services.admission.facts(_size_bytes(submission.content))
        arrival = _Arrival(self.state, facts, submission, new_id, began, services.clock.epoch(submission.final_dot))
        try:
            accepted = await self._submit(arrival)
        except Unacceptable as error:
            raise Refused(error.reply) from error
        except SpoolFailed as error:
            self._log.trouble("spool", error)
            raise Refused(error.reply, "store") from error
        except StoreError as error:
            full = isinstance(error, StoreFull)
            services.admission.store_failed(full=full)
            self._log.trouble("put", error)
            raise Refused(FULL if full else UNWRITABLE, "store") from error
        if isinstance(accepted, Repeated):
            self._log.repeated(accepted.message_id)
            return Receipt(accepted.message_id, None)
        # The message is stored: from here on its client gets 250, whatever fails.
        services.admission.store_works()
        try:
            self._log_accepted(accepted, submission)
            if self._log.tracing is not None:
                message, others = accepted.original.message, accepted.original.draft.others
                trace_accepted(self._log.tracing, submission, message, others, began)
            content = None if isinstance(submission.content, Large) else submission.content
            for lane in dict.fromkeys(one.placement.route.lane for one in accepted.parts):
                self._services.lint(lane, content)
            await self._copier.copy(arrival.state.config, accepted.original, self._new_id)
        except Exception as error:  # noqa: BLE001
            self._log.trouble("accepted", error)
        return Receipt(new_id, arrival.state.config.lanes[accepted.original.message.lane].express)

    def _new_id(self) -> str:
        return self._ids.new_id(self._services.clock.now(), os.urandom(10))

    def _log_accepted(self, accepted: _Accepted, submission: Submission) -> None:
        message, others = accepted.original.message, accepted.original.draft.others
        self._log.accepted(
            message.id,
            message.lane,
            message.rule,
            recipients=len(submission.envelope.recipients),
            size_bytes=len(message.content) or _size_bytes(submission.content),
            timings_ms=message.timings_ms,
            detected=message.detected,
            parts=1 + len(others) if others else None,
            client=submission.client,
            listener=str(submission.listener.address),
        )
        for one in others:
            self._log.part(one.id, one.lane, one.rule, entry=message.id, recipients=len(one.envelope.recipients))
        for placement in (one.placement for one in accepted.parts):
            if placement.resent:
                self._log.resent(placement.route.lane, recipients=placement.resent)

    async def _submit(self, arrival: _Arrival) -> _Accepted | Repeated:
        """Read, check, route and prepare the message, and submit it. Raises what `__call__` turns into Refused."""
        services, content = self._services, arrival.submission.content
        # A large one stays in its file until it is stored: this process looks at its head only, and codes go on.
        head = content.head if isinstance(content, Large) else content
        is_long = has_large_head(head)
        reading = await asyncio.to_thread(_read, arrival, head) if is_long else _read(arrival, head)
        _check_author(arrival.submission, reading)
        async with services.idempotency.claimed(arrival.submission, reading.message, arrival.accepted_at) as claim:
            if isinstance(claim, Repeated):
                return claim
            parts = self._place(arrival, reading)
            try:
                prepare = partial(self._draft, arrival, reading, parts, claim)
                draft = await asyncio.to_thread(prepare) if is_long else prepare()
                if isinstance(content, Large):
                    message = await services.destination.submit_spooled(draft, content)
                else:
                    complete = partial(draft.completed, reading.message)
                    message = await asyncio.to_thread(complete) if is_long else complete()
                    others = draft.others_like(message)
                    await services.destination.submit(message, arrival.submission.final_dot, others)
            except BaseException:
                self._placer.withdraw(parts)
                raise
        original = Original(arrival.submission, reading.message, draft, message, parts[0].placement.routed)
        return _Accepted(original, parts)

    def _place(self, arrival: _Arrival, reading: _Reading) -> Sequence[PlacedPart]:
        """Find the lanes, within all limits, and count the message. Raises Refused."""
        state = arrival.state
        full = None if arrival.submission.was_admitted else self._services.admission.refusal()
        if full is not None:
            raise Refused(full, "busy")
        named = reading.facts.named_lane
        if named is not None and named not in state.config.lanes:
            raise Refused(_NO_SUCH_LANE)
        routed = state.router.parts(reading.facts)
        # Each part has a content of its own in the store.
        decision = check(arrival.facts._replace(size_bytes=len(routed) * arrival.facts.size_bytes))
        if isinstance(decision, Refuse):
            raise Refused(decision.reply, decision.reason)
        return self._placer.place(state.config, state.router, routed, _incoming(arrival, reading))

    def _draft(
        self,
        arrival: _Arrival,
        reading: _Reading,
        parts: Sequence[PlacedPart],
        idempotency: IdempotencyKey | None,
    ) -> Draft:
        """The message as it will be stored, but for its content, and what the relay adds to that. All parts of a split
        one get the same."""
        state, submission, recipients = arrival.state, arrival.submission, arrival.submission.envelope.recipients
        dated_at = self._services.clock.of_day(arrival.accepted_at)
        hostname = state.config.hostname
        only = recipients[0].address if len(recipients) == 1 else None
        trace = received(hostname, submission.helo, submission.client, arrival.id, submission.protocol, only, dated_at)
        first, *others = parts
        split = SplitPart(None, first.places) if others else None
        entry = self._new(arrival, reading, first)._replace(id=arrival.id, split=split, idempotency=idempotency)
        more = [
            self._new(arrival, reading, one)._replace(id=self._new_id(), split=SplitPart(arrival.id, one.places))
            for one in others
        ]
        return Draft(entry, trace, rfc5322_date(dated_at), f"<{arrival.id.lower()}@{hostname}>", tuple(more))

    def _new(self, arrival: _Arrival, reading: _Reading, part: PlacedPart) -> NewMessage:
        """The part as it will be stored, without id and content."""
        state, submission, envelope, placement = arrival.state, arrival.submission, part.envelope, part.placement
        route, accepted_at = placement.route, arrival.accepted_at
        lane = state.config.lanes[route.lane]
        return NewMessage(
            id="",
            lane=route.lane,
            rule=route.rule,
            envelope=envelope,
            content=b"",
            client=submission.client,
            message_id="",
            subject=redact(reading.facts.subject),
            providers=tuple(self._services.provider_of(one.address) for one in envelope.recipients),
            accepted_at=accepted_at,
            expires_at=accepted_at + _life_s(route, envelope),
            signed=self._services.selectors(reading.message),
            upstreams=route.upstreams if route.upstreams != lane.upstreams else (),
            supersede_key=supersede_key(route, envelope) if lane.supersede else None,
            timings_ms={
                "receive": submission.receive_s * 1000.0,
                "classify": (time.monotonic() - arrival.began) * 1000.0,
            },
            due_at=placement.due_at,
            limited=placement.limited,
            admission=placement.admission,
            withdrawn=placement.superseded.seq if placement.superseded is not None else None,
            detected=_detected(reading),
            trace=traceparent(reading.message),
        )


def _read(arrival: _Arrival, content: bytes) -> _Reading:
    """Read a content, or the head of a large one. Raises Unacceptable."""
    message = parse(normalise(content), limited=True)
    return _Reading(message, _routing_facts(arrival.submission, message))


def _incoming(arrival: _Arrival, reading: _Reading) -> Incoming:
    submission, message = arrival.submission, reading.message
    return Incoming(
        id=arrival.id,
        envelope=submission.envelope,
        message=message,
        is_whole=not isinstance(submission.content, Large),
        client=client_of(message, submission.user, submission.client),
        sender=submission.envelope.sender or next(iter(reading.facts.from_addresses), ""),
        now=arrival.accepted_at,
    )


def _life_s(route: Route, envelope: Envelope) -> float:
    """Seconds from the final dot: the route's, or DELIVERBY's (RFC 2852, mode R), if that is less."""
    by = envelope.deliver_by
    return min(route.life_s, by.seconds) if by is not None and by.mode == "R" else route.life_s


def _size_bytes(content: bytes | Large) -> int:
    return content.size_bytes if isinstance(content, Large) else len(content)


def _detected(reading: _Reading) -> str | None:
    """What the content detector saw; None: no rule asked."""
    examination = reading.facts.examination
    return None if examination is None or examination.made is None else examination.made.content


def _check_author(submission: Submission, reading: _Reading) -> None:
    """Raises Refused where the client may not send as this sender or author."""
    restrictions, facts = (submission.listener.senders or (), submission.user_senders), reading.facts
    is_clear = partial(has_clear_authors, reading.message)
    decision = check_author(restrictions, facts.sender, facts.from_addresses, is_clear)
    if isinstance(decision, Refuse):
        raise Refused(decision.reply, decision.reason)


def _routing_facts(submission: Submission, message: Message) -> Facts:
    return Facts(
        sender=submission.envelope.sender,
        from_addresses=from_addresses(message),
        recipients=tuple(one.address for one in submission.envelope.recipients),
        client=submission.client,
        subject=subject(message),
        headers=lambda: tuple((field.name, field.value) for field in message.fields),
        listener=str(submission.listener.address),
        listener_lane=submission.listener.lane,
        priority=submission.envelope.priority,
        user=submission.user,
        named_lane=submission.lane,
        examination=Examination(message),
    )
