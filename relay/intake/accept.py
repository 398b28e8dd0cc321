"""Accepts messages: each is read, checked, routed, prepared, and submitted to its destination."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple, Self, TypeVar

from relay.clock import Clock
from relay.config.model import Config
from relay.intake.admission import Admission
from relay.intake.destination import Destination
from relay.intake.draft import Draft
from relay.intake.spool import Large, SpoolFailed
from relay.intake.types import Receipt, Refused, Submission
from relay.mail.envelope import Envelope
from relay.mail.mailbox_provider import provider
from relay.mail.message import Message, Unacceptable, from_addresses, has_large_head, normalise, parse, subject
from relay.mail.redact import redact
from relay.mail.trace import received, rfc5322_date
from relay.observe.maillog import MailLog
from relay.policy.check import FULL, UNWRITABLE, PolicyFacts, Refuse, check, check_recipients
from relay.policy.suppression import Suppressions
from relay.routing.facts import Facts
from relay.routing.router import Route, Router
from relay.store.base import StoreError, StoreFull
from relay.store.model import NewMessage
from relay.store.ulid import IdMaker

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class ConfigState:
    """What messages are accepted by. A reload replaces it as a whole."""

    config: Config
    router: Router
    expires_s: Mapping[str, float]
    """of the rules that set their own"""

    @classmethod
    def of(cls, config: Config) -> Self:
        expires_s = {rule.name: rule.expires_s for rule in config.rules if rule.expires_s is not None}
        return cls(config, Router(config), expires_s)


class _Arrival(NamedTuple):
    """A message on its way to the store. It keeps one configuration and its facts, whatever changes meanwhile."""

    state: ConfigState
    facts: PolicyFacts
    submission: Submission
    id: str
    began: float
    """time.monotonic"""


class Acceptance:
    """The SMTP service's `Submit`. `state` is replaced at a reload; a message keeps the one that it began with."""

    def __init__(
        self,
        state: ConfigState,
        destination: Destination,
        clock: Clock,
        log: MailLog,
        admission: Admission,
        selectors: Callable[[Message], tuple[str, ...]],
        suppressions: Suppressions | None = None,
        provider_of: Callable[[str], str] = provider,
    ) -> None:
        """`selectors` names the keys that will sign a message. `provider_of`: an address's mailbox provider."""
        self._provider_of = provider_of
        self._suppressions = suppressions or Suppressions()
        self.state = state
        self._destination = destination
        self._clock = clock
        self._log = log
        self._admission = admission
        self._selectors = selectors
        self._ids = IdMaker()

    async def __call__(self, submission: Submission) -> Receipt:
        """Accept a message; it is durable when this returns. Raises Refused."""
        began, new_id = time.monotonic(), self._ids.new_id(self._clock.now(), os.urandom(10))
        facts = self._admission.facts(_size_bytes(submission.content))
        arrival = _Arrival(self.state, facts, submission, new_id, began)
        try:
            message = await self._submit(arrival)
        except Unacceptable as error:
            raise Refused(error.reply) from error
        except SpoolFailed as error:
            self._log.trouble("spool", error)
            raise Refused(error.reply, "store") from error
        except StoreError as error:
            full = isinstance(error, StoreFull)
            self._admission.store_failed(full=full)
            self._log.trouble("put", error)
            raise Refused(FULL if full else UNWRITABLE, "store") from error
        # The message is stored: from here on its client gets 250, whatever fails.
        self._admission.store_works()
        try:
            self._log.accepted(
                message.id,
                message.lane,
                message.rule,
                recipients=len(message.envelope.recipients),
                size_bytes=len(message.content) or _size_bytes(submission.content),
                timings_ms=message.timings_ms,
            )
        except Exception as error:  # noqa: BLE001
            self._log.trouble("accepted", error)
        return Receipt(message.id, arrival.state.config.lanes[message.lane].express)

    async def _submit(self, arrival: _Arrival) -> NewMessage:
        """Read, check, route and prepare the message, and submit it. Raises what `__call__` turns into Refused."""
        content, final_dot = arrival.submission.content, arrival.submission.final_dot
        if isinstance(content, Large):
            # It stays in its file until it is stored: this process looks at its head only, and codes go on.
            draft = await _off_loop_if_large(self._draft, arrival, content.head)
            self._check_recipients(arrival, draft.new)
            return await self._destination.submit_spooled(draft, content)
        message = await _off_loop_if_large(self._message, arrival, content)
        self._check_recipients(arrival, message)
        await self._destination.submit(message, final_dot)
        return message

    def _check_recipients(self, arrival: _Arrival, new: NewMessage) -> None:
        """Raises Refused if each recipient is suppressed."""
        lane = arrival.state.config.lanes[new.lane]
        decision = check_recipients(new.envelope, lane, self._suppressions, new.accepted_at)
        if isinstance(decision, Refuse):
            self._log.suppressed(new.id, new.lane, recipients=len(new.envelope.recipients))
            raise Refused(decision.reply, decision.reason)

    def _message(self, arrival: _Arrival, content: bytes) -> NewMessage:
        message = _read(content)
        return self._prepare(arrival, message).completed(message)

    def _draft(self, arrival: _Arrival, head: bytes) -> Draft:
        return self._prepare(arrival, _read(head))

    def _prepare(self, arrival: _Arrival, message: Message) -> Draft:
        """Check and route a message, and decide what the relay adds to it. Raises Refused."""
        state, submission, envelope = arrival.state, arrival.submission, arrival.submission.envelope
        decision = check(envelope, arrival.facts)
        if isinstance(decision, Refuse):
            raise Refused(decision.reply, decision.reason)
        facts = _routing_facts(submission, message)
        route = state.router.route(facts)
        lane = state.config.lanes[route.lane]
        accepted_at = self._clock.epoch(submission.final_dot)
        dated_at = self._clock.of_day(accepted_at)
        hostname, recipients = state.config.hostname, envelope.recipients
        only = recipients[0].address if len(recipients) == 1 else None
        new = NewMessage(
            id=arrival.id,
            lane=route.lane,
            rule=route.rule,
            envelope=envelope,
            content=b"",
            client=submission.client,
            message_id="",
            subject=redact(facts.subject),
            providers=tuple(self._provider_of(one.address) for one in recipients),
            accepted_at=accepted_at,
            expires_at=accepted_at + _life_s(state, route, envelope),
            signed=self._selectors(message),
            upstreams=route.upstreams if route.upstreams != lane.upstreams else (),
            supersede_key=_supersede_key(route, envelope) if lane.supersede else None,
            timings_ms={
                "receive": submission.receive_s * 1000.0,
                "classify": (time.monotonic() - arrival.began) * 1000.0,
            },
        )
        trace = received(hostname, submission.helo, submission.client, arrival.id, submission.protocol, only, dated_at)
        return Draft(new, trace, rfc5322_date(dated_at), f"<{arrival.id.lower()}@{hostname}>")


async def _off_loop_if_large(function: Callable[[_Arrival, bytes], _T], arrival: _Arrival, content: bytes) -> _T:
    """A large header section is parsed on a thread, so that codes go on meanwhile."""
    if has_large_head(content):
        return await asyncio.to_thread(function, arrival, content)
    return function(arrival, content)


def _read(content: bytes) -> Message:
    """A content, or the head of a large one. Raises Unacceptable."""
    return parse(normalise(content), limited=True)


def _life_s(state: ConfigState, route: Route, envelope: Envelope) -> float:
    """Seconds from the final dot: the lane's, the rule's, or DELIVERBY's (RFC 2852, mode R), whichever is least."""
    lives = [state.config.lanes[route.lane].expires_s]
    if route.rule is not None and route.rule in state.expires_s:
        lives.append(state.expires_s[route.rule])
    if envelope.deliver_by is not None and envelope.deliver_by.mode == "R":
        lives.append(envelope.deliver_by.seconds)
    return min(lives)


def _supersede_key(route: Route, envelope: Envelope) -> str | None:
    """The same for messages of one rule to one recipient. Messages with several recipients never supersede."""
    if len(envelope.recipients) != 1:
        return None
    named = f"{route.lane}\n{route.rule or ''}\n{envelope.recipients[0].address.casefold()}"
    return hashlib.blake2b(named.encode(), digest_size=16).hexdigest()


def _size_bytes(content: bytes | Large) -> int:
    return content.size_bytes if isinstance(content, Large) else len(content)


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
    )
