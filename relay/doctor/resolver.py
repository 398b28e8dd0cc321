"""TXT look-ups with deadlines. What isn't known is Unknown, never taken for absent."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import dns.asyncresolver
import dns.exception
import dns.rdtypes.ANY.TXT
import dns.resolver

LOOKUP_S = 3.0
ALL_S = 20.0
_AT_ONCE = 16
_UDP_BYTES = 1232
"""an RSA-2048 key fits without a second try over TCP"""


@dataclass(frozen=True, slots=True)
class Texts:
    """The TXT records of a name, each with its strings joined; none when there is no such name or no TXT."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """Nobody could say."""

    reason: str


Answer = Texts | Unknown


class Resolver:
    """`server`: host and port to ask in place of the machine's own. Its time begins when it is made."""

    def __init__(
        self, server: tuple[str, int] | None = None, *, lookup_s: float = LOOKUP_S, all_s: float = ALL_S
    ) -> None:
        self._lookup_s = lookup_s
        self._ends = time.monotonic() + all_s
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._known: dict[str, Answer] = {}
        self._resolver: dns.asyncresolver.Resolver | None
        try:
            self._resolver = dns.asyncresolver.Resolver(configure=server is None)
        except dns.resolver.NoResolverConfiguration:
            self._resolver = None
            return
        if server is not None:
            self._resolver.nameservers = [server[0]]
            self._resolver.port = server[1]
        self._resolver.use_edns(0, 0, _UDP_BYTES)

    async def txt(self, name: str) -> Answer:
        """The TXT records of an absolute name, each asked for once."""
        async with self._at_once:
            if name not in self._known:
                self._known[name] = await self._ask(name)
            return self._known[name]

    async def _ask(self, name: str) -> Answer:
        lifetime_s = min(self._lookup_s, self._ends - time.monotonic())
        if self._resolver is None:
            return Unknown("this machine has no name server (/etc/resolv.conf)")
        if lifetime_s <= 0:
            return Unknown("no time was left to ask")
        try:
            async with asyncio.timeout(lifetime_s):
                found = await self._resolver.resolve(name, "TXT", lifetime=lifetime_s, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            return Texts(())
        except (dns.exception.Timeout, TimeoutError):
            return Unknown("no answer from DNS in time")
        except dns.resolver.NoNameservers:
            return Unknown("the name server has no answer to give (SERVFAIL, REFUSED or broken DNSSEC)")
        except dns.exception.DNSException as error:
            return Unknown(f"the look-up failed: {type(error).__name__}")
        except OSError as error:
            return Unknown(f"no name server can be reached: {error.strerror or type(error).__name__}")
        records = [record for record in found if isinstance(record, dns.rdtypes.ANY.TXT.TXT)]
        return Texts(tuple(sorted(b"".join(record.strings).decode("utf-8", "replace") for record in records)))
