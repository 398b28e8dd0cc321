"""Finds the mailbox provider behind a domain of its own by the domain's MX records, in the background.

dnspython's exceptions stop here. Nothing ever waits for it.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.rdtypes.ANY.MX
import dns.resolver

from relay.mail.mailbox_provider import KNOWN_PROVIDERS, MOST_LEARNT, provider_of_mx

WITHIN_S = 5.0
"""for one domain, all its name servers and retries included"""
PER_SECOND = 4.0
MOST_WAITING = 1_000
"""domains that wait to be looked up; further ones are asked for when mail goes there again"""
FOUND_FOR_S = 7 * 86400.0
ABSENT_FOR_S = 86400.0
"""a domain without MX, or with ones of no known provider"""
FAILED_FOR_S = 3600.0
SPECIAL_USE = ("test", "example", "invalid", "localhost", "local", "internal", "onion", "arpa")
"""top-level domains that the public DNS doesn't have (RFC 6761)"""


class Found(NamedTuple):
    """What is known of a domain. `provider`: None: none of the known ones. `until`: seconds since the epoch."""

    provider: str | None
    until: float


Save = Callable[[str, Found], Awaitable[None]]
"""Keeps what was found, over restarts. Raises StoreError."""
Resolve = Callable[[str], Awaitable[tuple[str | None, float]]]
"""The provider of a domain, and for how many seconds that is known. Doesn't raise."""


class MxLookups:
    """`run` as a background task; `ask` for domains."""

    def __init__(
        self,
        known: Mapping[str, Found],
        resolve: Resolve,
        save: Save,
        found: Callable[[str, str], None],
        now: Callable[[], float],
    ) -> None:
        """`known`: from the last run. `found` is called with each domain and its provider, one of KNOWN_PROVIDERS."""
        self._known = dict(known)
        self._resolve = resolve
        self._save = save
        self._found = found
        self._now = now
        self._waiting: deque[str] = deque()
        self._asked: set[str] = set()
        self._wake = asyncio.Event()

    def provider(self, provider: str) -> str:
        """The known name behind a recipient's provider where that is a domain; else what was given. It asks for what
        isn't known, and doesn't wait for it."""
        if provider in KNOWN_PROVIDERS:
            return provider
        found = self._known.get(provider)
        if found is None or found.until <= self._now():
            self._ask(provider)
        return found.provider if found is not None and found.provider is not None else provider

    def _ask(self, domain: str) -> None:
        if domain in self._asked or len(self._waiting) >= MOST_WAITING or not _is_public(domain):
            return
        self._asked.add(domain)
        self._waiting.append(domain)
        self._wake.set()

    async def run(self) -> None:
        """Never returns. Raises StoreError."""
        while True:
            while self._waiting:
                await self._look_up(self._waiting.popleft())
                await asyncio.sleep(1 / PER_SECOND)
            self._wake.clear()
            await self._wake.wait()

    async def _look_up(self, domain: str) -> None:
        try:
            provider, for_s = await self._resolve(domain)
            found = Found(provider, self._now() + for_s)
            self._known.pop(domain, None)
            while len(self._known) >= MOST_LEARNT:
                del self._known[next(iter(self._known))]
            self._known[domain] = found
            if provider is not None:
                self._found(domain, provider)
            await self._save(domain, found)
        finally:
            self._asked.discard(domain)


def _is_public(domain: str) -> bool:
    top = domain.rpartition(".")[2]
    return "." in domain and not domain.startswith("[") and top not in SPECIAL_USE and len(domain) <= 253


def resolve_with(server: tuple[str, int] | None = None, within_s: float = WITHIN_S) -> Resolve:
    """A look-up by the machine's resolver, or by a name server at this host and port."""

    async def resolve(domain: str) -> tuple[str | None, float]:
        try:
            resolver = dns.asyncresolver.Resolver(configure=server is None)
            if server is not None:
                resolver.nameservers, resolver.port = [server[0]], server[1]
            async with asyncio.timeout(within_s + 1):
                answer = await resolver.resolve(domain, "MX", lifetime=within_s, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, UnicodeError):
            return None, ABSENT_FOR_S
        except (dns.exception.DNSException, OSError, TimeoutError, ValueError):
            return None, FAILED_FOR_S
        hosts = sorted(
            (record.preference, record.exchange.to_text(omit_final_dot=True).lower())
            for record in answer
            if isinstance(record, dns.rdtypes.ANY.MX.MX)
        )
        provider = next((name for _, host in hosts if (name := provider_of_mx(host)) is not None), None)
        return provider, FOUND_FOR_S if provider is not None else ABSENT_FOR_S

    return resolve
