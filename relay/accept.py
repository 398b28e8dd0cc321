"""What happens between an app's final dot and its 250: classify, then store, in the engine or in a worker."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from relay.admission import BROKEN, FULL, Admission
from relay.config.model import Config
from relay.delivery.clock import Clock
from relay.delivery.dispatch import Delivery
from relay.draft import Draft
from relay.engine import Engine
from relay.intake.types import Receipt, Refused, Submission
from relay.mail.address import provider
from relay.mail.dkim import Signer
from relay.mail.envelope import Envelope
from relay.mail.message import Message, Unacceptable, from_addresses, normalise, parse, subject
from relay.mail.redact import redact
from relay.mail.trace import received, rfc5322_date
from relay.observe.maillog import MailLog
from relay.routing.facts import Facts
from relay.routing.router import Route, Router
from relay.spool import Large, SpoolFull
from relay.store.base import NewMessage, StoreError, StoreFull
from relay.store.ulid import IdMaker
from relay.upstream.pool import Whole
from relay.workers.link import LinkLost
from relay.workers.supervisor import Workers


@dataclass(frozen=True, slots=True)
class Running:
    """What a reload replaces as a whole."""

    config: Config
    router: Router
    signer: Signer
    shared: Mapping[str, Whole]
    """sessions and rate of each upstream"""
    delivery: Delivery
    """the lanes of this process"""
    expiry: Mapping[str | None, float]
    """seconds, of the rules that set their own"""


@dataclass(frozen=True, slots=True)
class Helpers:
    """What stays when the configuration is replaced."""

    engine: Engine
    workers: Workers
    clock: Clock
    log: MailLog
    admission: Admission


class _Case(NamedTuple):
    """A message on its way to the store. Whatever is reloaded meanwhile, it is judged by one configuration."""

    running: Running
    submission: Submission
    id: str
    began: float
    """time.monotonic"""


class Acceptance:
    """The intake's `Accept`. `running` is replaced at a reload: a message keeps the one that it began with."""

    def __init__(self, running: Running, helpers: Helpers) -> None:
        self.running = running
        self._engine = helpers.engine
        self._workers = helpers.workers
        self._clock = helpers.clock
        self._log = helpers.log
        self._admission = helpers.admission
        self._ids = IdMaker()
        self._large = asyncio.Semaphore(1)
        """A content that came in by a file is read into this process's memory one at a time."""

    async def __call__(self, submission: Submission) -> Receipt:
        """The message is durable when this returns. Raises Refused."""
        began = time.monotonic()
        case = _Case(self.running, submission, self._ids.new_id(self._clock.now(), os.urandom(10)), began)
        try:
            if isinstance(submission.content, Large):
                new = await self._take_large(case, submission.content)
            else:
                message = _read(submission.content)
                new = self._draft(case, message).completed(message)
                await self._store(case, new)
        except Unacceptable as error:
            raise Refused(error.reply) from error
        except SpoolFull as error:
            self._log.trouble("spool", error)
            raise Refused(FULL, "store") from error
        except StoreError as error:
            full = isinstance(error, StoreFull)
            self._admission.store_failed(full=full)
            self._log.trouble("put", error)
            raise Refused(FULL if full else BROKEN, "store") from error
        # It is stored: from here on its app hears 250, whatever fails.
        self._admission.store_works()
        try:
            self._log.accepted(
                new.id,
                new.lane,
                new.rule,
                recipients=len(new.envelope.recipients),
                size_bytes=len(new.content) or _size_bytes(submission),
                timings_ms=new.timings_ms,
            )
        except Exception as error:  # noqa: BLE001
            self._log.trouble("accepted", error)
        return Receipt(new.id, case.running.config.lanes[new.lane].express)

    async def _store(self, case: _Case, new: NewMessage) -> None:
        """In this process, or in a worker; while none is there, here, from where it is forwarded."""
        if case.running.delivery.has(new.lane):
            await self._engine.take(new, case.submission.final_dot)
            return
        try:
            await self._workers.put(new, case.submission.final_dot)
        except LinkLost:
            await self._engine.leave(new)

    async def _take_large(self, case: _Case, content: Large) -> NewMessage:
        """A content of megabytes stays in its file until it is where it will be stored: this process looks at its
        head only, and codes go on."""
        draft = self._draft(case, _read(content.head))
        ours = case.running.delivery.has(draft.new.lane)
        if not ours:
            with suppress(LinkLost):
                return await self._workers.put_large(draft, content, case.submission.final_dot)
        async with self._large:
            new = await asyncio.to_thread(draft.from_file, content)
            # Whether the worker that is gone stored it isn't known: what is forwarded to it later is there once.
            await (self._store(case, new) if ours else self._engine.leave(new))
        return new

    def _draft(self, case: _Case, message: Message) -> Draft:
        """Its lane, its deadline, and what the relay changes of it. Raises Unacceptable."""
        running, submission, envelope = case.running, case.submission, case.submission.envelope
        accepted_at = self._clock.epoch(submission.final_dot)
        dated_at = self._clock.of_day(accepted_at)
        route = running.router.route(_facts(submission, message))
        lane = running.config.lanes[route.lane]
        alone = envelope.recipients[0].address if len(envelope.recipients) == 1 else None
        trace = received(
            running.config.hostname,
            submission.helo,
            submission.client,
            case.id,
            submission.protocol,
            alone,
            dated_at,
        )
        new = NewMessage(
            id=case.id,
            lane=route.lane,
            rule=route.rule,
            envelope=envelope,
            content=b"",
            client=submission.client,
            message_id="",
            subject=redact(subject(message)),
            providers=tuple(provider(one.address) for one in envelope.recipients),
            accepted_at=accepted_at,
            expires_at=accepted_at + _life_s(running, submission, route),
            signed=self._engine.signatures.selectors(message),
            upstreams=route.upstreams if route.upstreams != lane.upstreams else (),
            supersede_key=_supersede_key(route, envelope) if lane.supersede else None,
            timings_ms={
                "receive": submission.receive_s * 1000.0,
                "classify": (time.monotonic() - case.began) * 1000.0,
            },
        )
        return Draft(new, trace, rfc5322_date(dated_at), f"<{case.id.lower()}@{running.config.hostname}>")


def _read(content: bytes) -> Message:
    """A content, or the head of a large one. Raises Unacceptable."""
    return parse(normalise(content), door=True)


def _life_s(running: Running, submission: Submission, route: Route) -> float:
    """Seconds from the final dot: the lane's, the rule's, or DELIVERBY's (RFC 2852, mode R), whichever is least."""
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


def _size_bytes(submission: Submission) -> int:
    content = submission.content
    return content.size_bytes if isinstance(content, Large) else len(content)


def _facts(submission: Submission, message: Message) -> Facts:
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
    )
