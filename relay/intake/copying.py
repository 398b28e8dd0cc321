"""Copies of accepted mail for an archive (`copy_to` of a lane): each is a message of its own, by the default lane.

The app gets its 250 once the copy is stored, too. A copy that can't be stored is logged; the app isn't refused then,
since its mail is stored and would come twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NamedTuple

from relay.config.model import COPY_RULE, Config, Lane
from relay.delivery.traces import trace_own
from relay.intake.destination import Destination
from relay.intake.draft import Draft
from relay.intake.spool import Large
from relay.intake.types import Submission
from relay.mail.envelope import Envelope, Recipient
from relay.mail.masked import masked
from relay.mail.message import Message, parse
from relay.observe.maillog import MailLog
from relay.policy.suppression import canonical
from relay.store.model import NewMessage


class Original(NamedTuple):
    """A message that is stored; of a split one the entry."""

    submission: Submission
    read: Message
    """as it came; of a large one the head"""
    draft: Draft
    message: NewMessage
    """of a large one without its content"""
    routed: str
    """the lane that the rules chose; the message's own, unless that demoted it"""


class Copier:
    def __init__(
        self,
        destination: Destination,
        log: MailLog,
        selectors: Callable[[Message], tuple[str, ...]],
        provider_of: Callable[[str], str],
    ) -> None:
        """`selectors`, `provider_of`: see `AcceptanceServices`."""
        self._destination = destination
        self._log = log
        self._selectors = selectors
        self._provider_of = provider_of

    async def copy(self, config: Config, original: Original, copy_id: Callable[[], str]) -> None:
        """Store a copy where the message's lane wants one: of a split message one, by the entry's lane. It is durable
        when this returns, or the log says why it isn't. `copy_id` makes its id."""
        # A code that was demoted is still one.
        lane = config.lanes[original.routed]
        address = lane.copy_to or config.lanes[original.message.lane].copy_to
        if address is None or _goes_to(original.submission.envelope, address):
            return
        new = self._new(config, original, address, copy_id())
        try:
            await self._submit(lane, original, new)
        except Exception as error:  # noqa: BLE001 - whatever it is, the app must get its 250
            self._log.not_copied(original.message.id, original.message.lane, error)
        else:
            self._log.copied(original.message.id, original.message.lane, new.id)
            if self._log.tracing is not None:
                trace_own(self._log.tracing, new, "copy", original.message.id, original.message.trace)

    async def _submit(self, lane: Lane, original: Original, new: NewMessage) -> None:
        submission = original.submission
        if lane.express and not lane.copy_codes:
            new = await asyncio.to_thread(self._masked, original, new)
        elif isinstance(submission.content, Large):
            await self._destination.submit_spooled(original.draft._replace(new=new, others=()), submission.content)
            return
        else:
            new = new._replace(content=original.message.content)
        await self._destination.submit(new, submission.final_dot)

    def _masked(self, original: Original, new: NewMessage) -> NewMessage:
        read = parse(masked(original.read, is_whole=not isinstance(original.submission.content, Large)))
        return original.draft._replace(new=new._replace(signed=self._selectors(read))).completed(read)

    def _new(self, config: Config, original: Original, address: str, copy_id: str) -> NewMessage:
        """The copy without content. No report about it goes to the sender, which never heard of it (RFC 3461 4.1)."""
        message, envelope = original.message, original.message.envelope
        recipients = (Recipient(address, frozenset({"NEVER"})),)
        return NewMessage(
            id=copy_id,
            lane=config.default_lane,
            rule=COPY_RULE,
            envelope=Envelope(envelope.sender, recipients, envelope.body, envelope.smtputf8),
            content=b"",
            client=message.client,
            message_id=message.message_id,
            subject=message.subject,
            providers=(self._provider_of(address),),
            accepted_at=message.accepted_at,
            expires_at=message.accepted_at + config.lanes[config.default_lane].expires_s,
            signed=message.signed,
        )


def _goes_to(envelope: Envelope, address: str) -> bool:
    wanted = canonical(address)
    return any(canonical(one.address) == wanted for one in envelope.recipients)
