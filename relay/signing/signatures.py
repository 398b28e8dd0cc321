"""DKIM signatures on what goes out, by the keys of the configuration that is in force."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence

from relay.clock import Clock
from relay.mail.address import domain_of
from relay.mail.dkim import KeySet, Signer, Unsignable, Unsigned, why_unsignable
from relay.mail.message import Message, from_addresses, parse
from relay.observe.maillog import MailLog
from relay.signing.client import HelperClient, HelperUnavailable
from relay.store.model import Queued

LARGE_BYTES = 256_000
"""from here on a content is looked through, re-encoded and signed off the event loop"""
HELP_WITHIN_S = 0.02
"""a code's signature that the helper hasn't made by then is made by this process"""
MAX_PENDING, MAX_BULK_PENDING = 8, 64
"""with more signatures pending, the helper isn't asked for that of a code, or of a bulk message"""


class Signatures:
    def __init__(self, clock: Clock, log: MailLog) -> None:
        self.helper: HelperClient | None = None
        self._signer = Signer((), {})
        self._has_keys = False
        self._clock = clock
        self._log = log

    def use(self, signer: Signer) -> None:
        """Sign with these keys from now on: at the start, and after a reload."""
        self._signer, self._has_keys = signer, bool(signer.keys)
        if self.helper is not None:
            self.helper.load(signer.keys)

    def on_helper_exit(self) -> None:
        """Make signatures in this process from now on."""
        self.helper = None
        self._log.trouble("sign", ChildProcessError("the helper for signatures ended; they are made without it"))

    def sign(self, message: Queued, unsigned: frozenset[str], *, express: bool) -> Awaitable[Sequence[bytes]]:
        """The parts of the signed content: signature fields, then the message. `unsigned`: header fields (lower case)
        that no signature covers.

        A large content is signed on a thread. Else the helper, if it is free, has begun when this returns, and what it
        doesn't make is made here when the result is awaited. What can't be signed is logged, and goes unsigned.
        """
        if not self._has_keys:
            return _completed(message, None, [])
        if len(message.content) >= LARGE_BYTES:
            return asyncio.get_running_loop().run_in_executor(None, self._sign_here, message, unsigned)
        signature, helper = self._unsigned(message, unsigned), self.helper
        pending: list[Awaitable[bytes]] = []
        if signature is not None and helper is not None and all(map(helper.has, signature.keys)):
            limits = (MAX_PENDING, HELP_WITHIN_S) if express else (MAX_BULK_PENDING, None)
            pending = [helper.sign(*each, *limits) for each in zip(signature.keys, signature.digests, strict=True)]
        return _completed(message, signature, pending)

    def _sign_here(self, message: Queued, unsigned: frozenset[str]) -> Sequence[bytes]:
        signature = self._unsigned(message, unsigned)
        return (message.content,) if signature is None else (signature.sign().headers, message.content)

    def _unsigned(self, message: Queued, unsigned: frozenset[str]) -> Unsigned | None:
        """The signature without the private keys' part; None: the message goes unsigned."""
        parsed = parse(message.content)
        keys = self._keys(parsed)
        if keys is None:
            return None
        try:
            return self._signer.prepare(parsed, keys, now=int(self._clock.today()), unsigned_headers=unsigned)
        except Unsignable as error:
            self._log.unsigned(message.id, message.lane, error.reason)
            return None

    def selectors(self, message: Message) -> tuple[str, ...]:
        """Selectors of the keys that will sign the message; none where it can't be signed."""
        keys = self._keys(message) if why_unsignable(message) is None else None
        return keys.selectors if keys is not None else ()

    def _keys(self, message: Message) -> KeySet | None:
        addresses = from_addresses(message)
        return self._signer.select(domain_of(addresses[0])) if addresses else None


async def _completed(message: Queued, signature: Unsigned | None, pending: list[Awaitable[bytes]]) -> Sequence[bytes]:
    """The signed content, once the helper has made its part; what it doesn't make is made here."""
    if signature is None:
        return (message.content,)
    try:
        made = signature.signed([await each for each in pending]) if pending else signature.sign()
    except HelperUnavailable:
        made = signature.sign()
    return (made.headers, message.content)
