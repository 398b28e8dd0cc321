"""From an app's final dot to its 250: classify the message, prepare it, and submit it to its destination."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from relay.clock import Clock
from relay.config.model import Config
from relay.intake.admission import BROKEN, FULL, Admission
from relay.intake.destination import Destination
from relay.intake.draft import Draft
from relay.intake.spool import Large, SpoolFull
from relay.intake.types import Receipt, Refused, Submission
from relay.mail.address import provider
from relay.mail.envelope import Envelope
from relay.mail.message import Message, Unacceptable, from_addresses, has_large_head, normalise, parse, subject
from relay.mail.redact import redact
from relay.mail.trace import received, rfc5322_date
from relay.observe.maillog import MailLog
from relay.routing.facts import Facts
from relay.routing.router import Route, Router
from relay.store.base import StoreError, StoreFull
from relay.store.model import NewMessage
from relay.store.ulid import IdMaker


@dataclass(frozen=True, slots=True)
class Rules:
    """What a reload replaces as a whole."""

    config: Config
    router: Router
    expiry: Mapping[str | None, float]
    """seconds, of the rules that set their own"""


class _Case(NamedTuple):
    """A message on its way to the store. Whatever is reloaded meanwhile, it is judged by one configuration."""

    rules: Rules
    submission: Submission
    id: str
    began: float
    """time.monotonic"""


class Acceptance:
    """The intake's `Accept`. `rules` is replaced at a reload: a message keeps the ones that it began with."""

    def __init__(
        self,
        rules: Rules,
        destination: Destination,
        clock: Clock,
        log: MailLog,
        admission: Admission,
        selectors: Callable[[Message], tuple[str, ...]],
    ) -> None:
        """`selectors`: names the keys that will sign a message."""
        self.rules = rules
        self._destination = destination
        self._clock = clock
        self._log = log
        self._admission = admission
        self._selectors = selectors
        self._ids = IdMaker()

    async def __call__(self, submission: Submission) -> Receipt:
        """The message is durable when this returns. Raises Refused."""
        began = time.monotonic()
        case = _Case(self.rules, submission, self._ids.new_id(self._clock.now(), os.urandom(10)), began)
        try:
            if isinstance(submission.content, Large):
                new = await self._take_large(case, submission.content)
            else:
                content = submission.content
                new = (
                    await asyncio.to_thread(self._new, case, content)
                    if has_large_head(content)
                    else self._new(case, content)
                )
                await self._destination.submit(new, submission.final_dot)
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
        return Receipt(new.id, case.rules.config.lanes[new.lane].express)

    def _of_head(self, case: _Case, head: bytes) -> Draft:
        return self._draft(case, _read(head))

    def _new(self, case: _Case, content: bytes) -> NewMessage:
        message = _read(content)
        return self._draft(case, message).completed(message)

    async def _take_large(self, case: _Case, content: Large) -> NewMessage:
        """A content of megabytes stays in its file until it is where it will be stored: this process looks at its
        head only, and codes go on."""
        head = content.head
        draft = (
            await asyncio.to_thread(self._of_head, case, head) if has_large_head(head) else self._of_head(case, head)
        )
        return await self._destination.submit_spooled(draft, content, case.submission.final_dot)

    def _draft(self, case: _Case, message: Message) -> Draft:
        """Its lane, its deadline, and what the relay changes of it. Raises Unacceptable."""
        rules, submission, envelope = case.rules, case.submission, case.submission.envelope
        accepted_at = self._clock.epoch(submission.final_dot)
        dated_at = self._clock.of_day(accepted_at)
        route = rules.router.route(_facts(submission, message))
        lane = rules.config.lanes[route.lane]
        alone = envelope.recipients[0].address if len(envelope.recipients) == 1 else None
        trace = received(
            rules.config.hostname,
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
            expires_at=accepted_at + _life_s(rules, submission, route),
            signed=self._selectors(message),
            upstreams=route.upstreams if route.upstreams != lane.upstreams else (),
            supersede_key=_supersede_key(route, envelope) if lane.supersede else None,
            timings_ms={
                "receive": submission.receive_s * 1000.0,
                "classify": (time.monotonic() - case.began) * 1000.0,
            },
        )
        return Draft(new, trace, rfc5322_date(dated_at), f"<{case.id.lower()}@{rules.config.hostname}>")


def _read(content: bytes) -> Message:
    """A content, or the head of a large one. Raises Unacceptable."""
    return parse(normalise(content), door=True)


def _life_s(rules: Rules, submission: Submission, route: Route) -> float:
    """Seconds from the final dot: the lane's, the rule's, or DELIVERBY's (RFC 2852, mode R), whichever is least."""
    lives = [rules.config.lanes[route.lane].expires_s]
    if route.rule in rules.expiry:
        lives.append(rules.expiry[route.rule])
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
