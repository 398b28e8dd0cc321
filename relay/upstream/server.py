"""A server that is connected to: its TLS, its addresses, a proxy before them."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from relay.config.access import Endpoint
from relay.upstream.addresses import Addresses, Peer
from relay.upstream.proxy import ProxiedAddresses


class Contexts:
    """TLS contexts of one configuration. Upstreams that trust the same CAs share one: reading the CAs takes 20 ms."""

    def __init__(self) -> None:
        self._built: dict[Path | None, ssl.SSLContext] = {}

    def trusting(self, ca_file: Path | None) -> ssl.SSLContext:
        """Raises OSError or ssl.SSLError for an unreadable `ca_file`; None: the system's CAs."""
        context = self._built.get(ca_file)
        if context is None:
            context = self._built[ca_file] = verifying_context(ca_file)
        return context


def verifying_context(ca_file: Path | None = None) -> ssl.SSLContext:
    """A new TLS context of a client that verifies by these CAs; None: the system's. Raises as `Contexts.trusting`."""
    context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


class Dialer(Protocol):
    """Opens sockets to an upstream; call `served` or `failed` with what became of each."""

    async def connected(self) -> socket.socket:
        """A non-blocking socket. Raises OSError."""

    def served(self, peer: Peer) -> None: ...

    def failed(self, peer: Peer) -> None: ...


@dataclass(frozen=True, slots=True)
class ApiServer:
    """A server that speaks HTTP, ready to be connected to."""

    where: Endpoint
    tls_context: ssl.SSLContext | None
    """None: in clear, to this machine"""
    addresses: Dialer = field(compare=False)


def dialer(proxy: str | None) -> Callable[[str, int], Dialer]:
    """Makes a `Dialer` of host and port. `proxy`: its URL; None: directly."""
    if proxy is None:
        return Addresses
    return lambda host, port: ProxiedAddresses(proxy, host, port)
