"""DKIM signatures on what goes out, by the keys of the configuration that is in force."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Protocol

from relay.delivery.clock import Clock
from relay.mail.address import domain_of
from relay.mail.dkim import Key, KeySet, Signer, Unsignable, Unsigned, why_unsignable
from relay.mail.message import Message, from_addresses, parse
from relay.observe.maillog import MailLog
from relay.store.base import Queued


class NotHelped(Exception):
    """The helper did not make the signature."""


class Helper(Protocol):
    """Another process that makes private keys' signatures."""

    def sign(self, key: Key, digest: bytes) -> Awaitable[bytes]:
        """`Key.sign`, over there; under way before this returns. The awaitable raises NotHelped."""


class Signatures:
    """Signs content for an upstream; what can't be signed goes out as it is, and is counted."""

    def __init__(self, clock: Clock, log: MailLog) -> None:
        self.signer = Signer((), {})
        """replaced at a reload"""
        self.helper: Helper | None = None
        self._clock = clock
        self._log = log

    def __call__(self, queued: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        begun = self._begin(queued, unsigned)
        return (queued.content,) if begun is None else (begun.sign().headers, queued.content)

    async def elsewhere(self, queued: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        """The same by the helper, or here where there is none."""
        begun = self._begin(queued, unsigned)
        if begun is None:
            return (queued.content,)
        if self.helper is not None:
            try:
                signing = [self.helper.sign(key, digest) for key, digest in zip(begun.keys, begun.digests, strict=True)]
                return (begun.signed([await each for each in signing]).headers, queued.content)
            except NotHelped:
                pass
        return (begun.sign().headers, queued.content)

    def _begin(self, queued: Queued, unsigned: frozenset[str]) -> Unsigned | None:
        message = parse(queued.content)
        keys = self._keys(message)
        if keys is None:
            return None
        try:
            return self.signer.begin(message, keys, now=int(self._clock.now()), unsigned_headers=unsigned)
        except Unsignable as error:
            self._log.unsigned(queued.id, queued.lane, error.reason)
            return None

    def selectors(self, message: Message) -> tuple[str, ...]:
        """Whose keys will sign; none where nothing can be signed."""
        keys = self._keys(message) if why_unsignable(message) is None else None
        return keys.selectors if keys is not None else ()

    def _keys(self, message: Message) -> KeySet | None:
        addresses = from_addresses(message)
        return self.signer.select(domain_of(addresses[0])) if addresses else None
