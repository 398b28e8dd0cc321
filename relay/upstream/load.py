"""What an attempt carries: a message for some recipients, finished for the upstream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from relay.config import model
from relay.mail.envelope import Envelope, Recipient
from relay.mail.recode import Form
from relay.mail.setting import Setting

Parts = Callable[[], Sequence[bytes]]
"""The signed content in parts. Called once, after the gate let the message through."""


class Finish(NamedTuple):
    """How a content is finished for an upstream, before it is signed."""

    unsigned: frozenset[str] = frozenset()
    """header fields (lower case) that no signature covers, because the upstream rewrites them"""
    provider: str | None = None
    """the relay's id is put into this provider's header field, for its delivery events; None: the content stays"""
    settings: tuple[Setting, ...] = ()
    """header fields that are set or removed"""
    taken_out: frozenset[str] = frozenset()
    """header fields (lower case) that an API has parameters for"""
    is_signed: bool = True
    """False: the upstream builds another message, or breaks signatures"""

    @classmethod
    def of(cls, config: model.Upstream) -> Finish:
        """As an upstream's configuration has it. The id is of use where the upstream has a webhook."""
        provider = config.webhook.kind if config.webhook is not None else None
        return cls(frozenset(config.unsigned_headers), provider, tuple(config.headers.items()))


class Load(Protocol):
    """What one attempt carries: a message, and those of its recipients that the attempt is for."""

    message_id: str
    """the relay's id of the message"""
    envelope: Envelope
    recipients: Sequence[tuple[int, Recipient]]
    """(position in the envelope, recipient) pairs"""
    original: bytes
    """the content as it was accepted, unsigned"""
    accepted_at: float
    """when the app sent its final dot (time.monotonic)"""
    is_part: bool
    """other recipients of the submission have taken another route"""
    repeat_key: str | None
    """the idempotency key of the request that goes again; None: this is the first"""
    redirected_to: str | None
    """the address that it goes to instead of its recipients"""
    memo: dict[object, object]
    """what upstreams found out about the content, by keys of their own"""

    async def content(self, form: Form) -> bytes:
        """The unsigned content in that form. Raises Unencodable."""

    async def signed(self, form: Form, finish: Finish) -> Parts:
        """The content in that form, finished and signed."""

    async def finished(self, finish: Finish) -> bytes:
        """The content as it was accepted, finished, with nothing taken out and not signed."""

    def finished_now(self, finish: Finish) -> bytes | None:
        """The same. None: to make it would hold up the event loop."""
