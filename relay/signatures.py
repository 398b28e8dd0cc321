"""DKIM signatures on what goes out, by the keys of the configuration that is in force."""

from __future__ import annotations

from collections.abc import Sequence

from relay.delivery.clock import Clock
from relay.mail.address import domain_of
from relay.mail.dkim import KeySet, Signer, Unsignable, why_unsignable
from relay.mail.message import Message, from_addresses, parse
from relay.observe.maillog import MailLog
from relay.store.base import Queued


class Signatures:
    """Signs content for an upstream; what can't be signed goes out as it is, and is counted."""

    def __init__(self, clock: Clock, log: MailLog) -> None:
        self.signer = Signer((), {})
        """replaced at a reload"""
        self._clock = clock
        self._log = log

    def __call__(self, queued: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        message = parse(queued.content)
        keys = self._keys(message)
        if keys is None:
            return (queued.content,)
        try:
            now = int(self._clock.now())
            signature = self.signer.sign(message, keys, now=now, unsigned_headers=unsigned)
        except Unsignable as error:
            self._log.unsigned(queued.id, queued.lane, error.reason)
            return (queued.content,)
        return (signature.headers, queued.content)

    def selectors(self, message: Message) -> tuple[str, ...]:
        """Whose keys will sign; none where nothing can be signed."""
        keys = self._keys(message) if why_unsignable(message) is None else None
        return keys.selectors if keys is not None else ()

    def _keys(self, message: Message) -> KeySet | None:
        addresses = from_addresses(message)
        return self.signer.select(domain_of(addresses[0])) if addresses else None
