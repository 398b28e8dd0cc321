"""What happens between an app's final dot and its 250: admit, classify, store, hand over, sign.

The message goes to its lane at once: the upstream's envelope is under way while the commit is, and the signature is
made meanwhile. The gate keeps the content back until both are done.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from relay.admission import BROKEN, FULL, Admission
from relay.config.model import Config
from relay.delivery.clock import Clock
from relay.delivery.dispatch import Delivery
from relay.delivery.lane import Lane
from relay.intake.types import Refused, Submission
from relay.mail.address import domain_of, provider
from relay.mail.dkim import KeySet, Signer, Unsignable
from relay.mail.envelope import Envelope
from relay.mail.message import Message, Unacceptable, from_addresses, normalise, parse, prepare, subject
from relay.mail.redact import redact
from relay.mail.trace import received, rfc5322_date
from relay.mail.words import decoded
from relay.observe.maillog import MailLog
from relay.routing.facts import Facts
from relay.routing.router import Route, Router
from relay.store.base import NewMessage, OpenRecipient, Queued, Store, StoreError, StoreFull
from relay.store.ulid import IdMaker
from relay.upstream.gate import NOT_STORED


@dataclass(frozen=True, slots=True)
class Running:
    """What a reload replaces as a whole."""

    config: Config
    router: Router
    signer: Signer
    delivery: Delivery
    expiry: Mapping[str | None, float]
    """seconds, of the rules that set their own"""


class Signatures:
    """Signs content for an upstream; what can't be signed goes out as it is, and is counted."""

    def __init__(self, signer: Signer, clock: Clock, log: MailLog) -> None:
        self.signer = signer
        self._clock = clock
        self._log = log

    def __call__(self, queued: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        keys = self._keys(parse(queued.content))
        if keys is None:
            return (queued.content,)
        try:
            now = int(self._clock.now())
            signature = self.signer.sign(queued.content, keys, now=now, unsigned_headers=unsigned)
        except Unsignable as error:
            self._log.unsigned(queued.id, queued.lane, error.reason)
            return (queued.content,)
        return (signature.headers, queued.content)

    def selectors(self, message: Message) -> tuple[str, ...]:
        """Whose keys will sign."""
        keys = self._keys(message)
        return keys.selectors if keys is not None else ()

    def _keys(self, message: Message) -> KeySet | None:
        addresses = from_addresses(message)
        return self.signer.select(domain_of(addresses[0])) if addresses else None


@dataclass(frozen=True, slots=True)
class Helpers:
    """What stays when the configuration is replaced."""

    store: Store
    clock: Clock
    log: MailLog
    signatures: Signatures
    admission: Admission


class Acceptance:
    """The intake's `Accept`. `running` is replaced at a reload, between two messages."""

    def __init__(self, running: Running, helpers: Helpers) -> None:
        self.running = running
        self._store = helpers.store
        self._clock = helpers.clock
        self._log = helpers.log
        self._signatures = helpers.signatures
        self._admission = helpers.admission
        self._ids = IdMaker()

    async def __call__(self, submission: Submission) -> str:
        """The id of the message, which is durable by then. Raises Refused."""
        began = time.monotonic()
        message_id = self._ids.new_id(self._clock.now(), os.urandom(10))
        try:
            content = normalise(submission.content)
            message = parse(content)
            new = self._classified(submission, message, message_id, began)
        except Unacceptable as error:
            raise Refused(error.reply) from error
        lane = self.running.delivery.lane(new.lane)
        try:
            if lane.has_room(len(new.content)):
                await self._express(lane, new, submission.final_dot)
            else:
                await self._store.put(new, claimed=False)
                lane.wake(new.accepted_at)
        except StoreError as error:
            self._admission.store_failed()
            self._log.trouble("put", error)
            raise Refused(FULL if isinstance(error, StoreFull) else BROKEN, "store") from error
        self._admission.store_works()
        self._log.accepted(
            new.id,
            new.lane,
            new.rule,
            recipients=len(new.envelope.recipients),
            size_bytes=len(new.content),
            timings_ms=new.timings_ms,
        )
        return new.id

    async def _express(self, lane: Lane, new: NewMessage, final_dot: float) -> None:
        """Commit, and send at the same time as far as that goes."""
        job = lane.job(_queued(new))
        job.final_dot = final_dot
        putting = asyncio.ensure_future(self._store.put(new, claimed=True))
        lane.offer(job)
        try:
            # Both get under way before the processor is kept busy with the signature.
            await asyncio.sleep(0)
            lane.sign_ahead(job)
            await putting
            await lane.supersede(job)
        except StoreError:
            job.gate.shut(NOT_STORED)
            raise
        finally:
            job.timings_ms["store"] = (time.monotonic() - job.offered_at) * 1000.0
            job.gate.open()
            job.stored.set()

    def _classified(self, submission: Submission, message: Message, id_: str, began: float) -> NewMessage:
        """The message as it will be stored: its lane, its deadline, and what the relay changes of it."""
        running, envelope = self.running, submission.envelope
        accepted_at = self._clock.epoch(submission.final_dot)
        route = running.router.route(_facts(submission, message))
        alone = envelope.recipients[0].address if len(envelope.recipients) == 1 else None
        trace = received(
            running.config.hostname,
            submission.helo,
            submission.client,
            id_,
            submission.protocol,
            alone,
            accepted_at,
        )
        prepared = prepare(
            message,
            trace=trace,
            date=rfc5322_date(accepted_at),
            message_id=f"<{id_.lower()}@{running.config.hostname}>",
        )
        return NewMessage(
            id=id_,
            lane=route.lane,
            rule=route.rule,
            envelope=envelope,
            content=prepared.content,
            client=submission.client,
            message_id=prepared.message_id,
            subject=redact(subject(message)),
            providers=tuple(provider(one.address) for one in envelope.recipients),
            accepted_at=accepted_at,
            expires_at=accepted_at + self._life_s(submission, route),
            signed=self._signatures.selectors(message),
            upstreams=route.upstreams,
            supersede_key=_supersede_key(route, envelope) if running.config.lanes[route.lane].supersede else None,
            timings_ms={
                "receive": submission.receive_s * 1000.0,
                "classify": (time.monotonic() - began) * 1000.0,
            },
        )

    def _life_s(self, submission: Submission, route: Route) -> float:
        """Seconds from the final dot: the lane's, the rule's, or DELIVERBY's (RFC 2852, mode R), whichever is least."""
        running = self.running
        lives = [running.config.lanes[route.lane].expires_s]
        if route.rule in running.expiry:
            lives.append(running.expiry[route.rule])
        by = submission.envelope.deliver_by
        if by is not None and by.mode == "R":
            lives.append(by.seconds)
        return min(lives)


def _supersede_key(route: Route, envelope: Envelope) -> str | None:
    """The same for messages of one rule to one recipient. A message to several is nobody's newer code."""
    if len(envelope.recipients) != 1:
        return None
    named = f"{route.lane}\n{route.rule or ''}\n{envelope.recipients[0].address.casefold()}"
    return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


def _facts(submission: Submission, message: Message) -> Facts:
    return Facts(
        sender=submission.envelope.sender,
        from_addresses=from_addresses(message),
        recipients=tuple(one.address for one in submission.envelope.recipients),
        client=submission.client,
        subject=subject(message),
        headers=tuple((field.name, decoded(field.value)) for field in message.fields),
        listener=str(submission.listener.address),
        listener_lane=submission.listener.lane,
        priority=submission.envelope.priority,
    )


def _queued(new: NewMessage) -> Queued:
    due = tuple(OpenRecipient(position, one) for position, one in enumerate(new.envelope.recipients))
    return Queued(
        id=new.id,
        lane=new.lane,
        rule=new.rule,
        envelope=new.envelope,
        content=new.content,
        accepted_at=new.accepted_at,
        expires_at=new.expires_at,
        due=due,
        upstreams=new.upstreams,
        supersede_key=new.supersede_key,
    )
