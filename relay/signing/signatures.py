"""DKIM signatures on what goes out, by the keys of the configuration that is in force."""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Iterable, Sequence
from typing import Any, Protocol

from relay.clock import Clock
from relay.mail.address import domain_of
from relay.mail.dkim import Key, KeySet, Signer, Unsignable, Unsigned, why_unsignable
from relay.mail.message import Message, from_addresses, parse
from relay.observe.maillog import MailLog
from relay.store.model import Queued

HELP_WITHIN_S = 0.02
"""what the helper hasn't signed of a code by then is signed by this process"""
MOST_WAITING, MOST_BULK_WAITING = 8, 64
"""behind more signatures than so many a code, or a bulk message, doesn't wait for it either"""


class NotHelped(Exception):
    """The helper did not make the signature."""


class HelperEnded(Exception):
    """Only to be said: signatures are made without it."""

    def __init__(self) -> None:
        super().__init__("the helper for signatures ended; they are made without it")


class Helper(Protocol):
    """Another process that makes private keys' signatures."""

    def load(self, keys: Iterable[Key]) -> None:
        """The keys it can sign with from now on."""

    def has(self, key: Key) -> bool:
        """Can it sign with it?"""

    def sign(self, key: Key, digest: bytes, most_waiting: int, within_s: float | None) -> Awaitable[bytes]:
        """`Key.sign`, over there; under way before this returns. The awaitable raises NotHelped, at once where more
        than `most_waiting` wait already, and when it takes longer than `within_s`."""


class Signatures:
    """Signs content for an upstream; what can't be signed goes out as it is, and is counted."""

    def __init__(self, clock: Clock, log: MailLog) -> None:
        self.helper: Helper | None = None
        self._signer = Signer((), {})
        self._clock = clock
        self._log = log

    def __call__(self, queued: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        begun = self._begin(queued, unsigned)
        return (queued.content,) if begun is None else (begun.sign().headers, queued.content)

    def use(self, signer: Signer) -> None:
        """At the start, and after a reload."""
        self._signer = signer
        if self.helper is not None:
            self.helper.load(signer.keys)

    def unhelped(self) -> None:
        """From now on signatures are made here."""
        self.helper = None
        self._log.trouble("sign", HelperEnded())

    def elsewhere(
        self, queued: Queued, unsigned: frozenset[str], *, express: bool
    ) -> Coroutine[Any, Any, Sequence[bytes]] | None:
        """The same by the helper, whose part is under way before this returns; what it can't make in time is made
        here. None: there is nobody to help."""
        helper = self.helper
        if helper is None:
            return None
        begun = self._begin(queued, unsigned)
        signing: list[Awaitable[bytes]] = []
        if begun is not None and all(map(helper.has, begun.keys)):
            limits = (MOST_WAITING, HELP_WITHIN_S) if express else (MOST_BULK_WAITING, None)
            signing = [helper.sign(*each, *limits) for each in zip(begun.keys, begun.digests, strict=True)]
        return self._made(queued, begun, signing)

    @staticmethod
    async def _made(queued: Queued, begun: Unsigned | None, signing: list[Awaitable[bytes]]) -> Sequence[bytes]:
        if begun is None:
            return (queued.content,)
        try:
            signature = begun.signed([await each for each in signing]) if signing else begun.sign()
        except NotHelped:
            signature = begun.sign()
        return (signature.headers, queued.content)

    def _begin(self, queued: Queued, unsigned: frozenset[str]) -> Unsigned | None:
        message = parse(queued.content)
        keys = self._keys(message)
        if keys is None:
            return None
        try:
            return self._signer.begin(message, keys, now=int(self._clock.today()), unsigned_headers=unsigned)
        except Unsignable as error:
            self._log.unsigned(queued.id, queued.lane, error.reason)
            return None

    def selectors(self, message: Message) -> tuple[str, ...]:
        """Whose keys will sign; none where nothing can be signed."""
        keys = self._keys(message) if why_unsignable(message) is None else None
        return keys.selectors if keys is not None else ()

    def _keys(self, message: Message) -> KeySet | None:
        addresses = from_addresses(message)
        return self._signer.select(domain_of(addresses[0])) if addresses else None
