"""TXT look-ups with deadlines. A failed look-up is Unknown, never an absent record."""

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
"""An RSA-2048 key fits without a second query over TCP."""


@dataclass(frozen=True, slots=True)
class Texts:
    """The TXT records of a name, each with its strings joined; empty if the name or the record doesn't exist."""

    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unknown:
    """The look-up failed."""

    reason: str


Answer = Texts | Unknown


class _Failed(Exception):
    """A failed look-up; the text is the reason."""


class Resolver:
    """Looks up TXT records. `server`: host and port of a name server to ask instead of the machine's own. `all_s`: the
    time for all look-ups, from now."""

    def __init__(
        self, server: tuple[str, int] | None = None, *, lookup_s: float = LOOKUP_S, all_s: float = ALL_S
    ) -> None:
        self._lookup_s = lookup_s
        self._ends = time.monotonic() + all_s
        self._at_once = asyncio.Semaphore(_AT_ONCE)
        self._known: dict[str, Answer] = {}
        self._public: dict[str, bool] = {}
        """top-level domain → whether it exists for this name server"""
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
        """The TXT records of an absolute name. Each name is asked for once."""
        async with self._at_once:
            if name not in self._known:
                self._known[name] = await self._ask(name)
            return self._known[name]

    async def _ask(self, name: str) -> Answer:
        try:
            found = await self._resolve(name, "TXT")
        except dns.resolver.NoAnswer:
            return Texts(())
        except dns.resolver.NXDOMAIN:
            return await self._absent(name)
        except _Failed as error:
            return Unknown(str(error))
        records = [record for record in found if isinstance(record, dns.rdtypes.ANY.TXT.TXT)]
        return Texts(tuple(sorted(b"".join(record.strings).decode("utf-8", "replace") for record in records)))

    async def _absent(self, name: str) -> Answer:
        """The name server denies the name. In a closed network it denies every public name, so that counts only if it
        knows the top-level domain."""
        top = name.rstrip(".").rpartition(".")[2].lower()
        if top not in self._public:
            try:
                await self._resolve(top, "NS")
                self._public[top] = True
            except dns.resolver.NoAnswer:
                self._public[top] = True
            except dns.resolver.NXDOMAIN:
                self._public[top] = False
            except _Failed as error:
                return Unknown(str(error))
        if not self._public[top]:
            return Unknown(f"the name server doesn't know .{top}: it doesn't serve public DNS")
        return Texts(())

    async def _resolve(self, name: str, kind: str) -> dns.resolver.Answer:
        """Raises NXDOMAIN, NoAnswer; _Failed for every other error."""
        lifetime_s = min(self._lookup_s, self._ends - time.monotonic())
        if self._resolver is None:
            raise _Failed("this machine has no name server (/etc/resolv.conf)")
        if lifetime_s <= 0:
            raise _Failed("no time was left to ask")
        try:
            async with asyncio.timeout(lifetime_s):
                return await self._resolver.resolve(name, kind, lifetime=lifetime_s, search=False)
        except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
            raise
        except (dns.exception.Timeout, TimeoutError):
            raise _Failed("no answer from DNS in time") from None
        except dns.resolver.NoNameservers:
            raise _Failed("the name server gives no answer (SERVFAIL, REFUSED or broken DNSSEC)") from None
        except dns.exception.DNSException as error:
            raise _Failed(f"the look-up failed: {type(error).__name__}") from None
        except OSError as error:
            raise _Failed(f"no name server can be reached: {error.strerror or type(error).__name__}") from None
