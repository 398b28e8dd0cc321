"""What one listener asks of its clients, built once from the configuration and its files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Self

from relay.config.model import IpNetwork, Limits, Listener
from relay.intake.types import CannotListen
from relay.intake.users import Users, UsersError


@dataclass(frozen=True, slots=True)
class Policy:
    """A listener, ready: files read, contexts made."""

    listener: Listener
    tls: ssl.SSLContext | None
    users: Users | None

    @classmethod
    def load(cls, listener: Listener) -> Self:
        """Reads the listener's files. Raises CannotListen."""
        tls = None
        if listener.tls != "none":
            if listener.cert_file is None or listener.key_file is None:
                raise CannotListen(f"{listener.address}: tls needs cert_file and key_file", "tls")
            tls = server_context(listener.cert_file, listener.key_file)
        users = None
        if listener.auth == "required":
            if listener.users_file is None:
                raise CannotListen(f"{listener.address}: auth: required needs users_file", "auth")
            try:
                users = Users.load(listener.users_file)
            except UsersError as error:
                raise CannotListen(str(error), "users_file") from None
        return cls(listener, tls, users)


@dataclass(frozen=True, slots=True)
class Peer:
    """Who is at the other end. `name` is the IP or `unix`."""

    name: str
    ip: IPv4Address | IPv6Address | None
    proxied: bool = False

    @property
    def local(self) -> bool:
        """On this machine: nobody can listen in on the way. A proxy's word that it is so doesn't count."""
        return not self.proxied and (self.ip is None or self.ip.is_loopback)

    def inside(self, networks: tuple[IpNetwork, ...]) -> bool:
        """Whether the peer's address is in one of them; a unix socket's peer is in none."""
        ip = self.ip
        return ip is not None and any(ip.version == network.version and ip in network for network in networks)


UNIX = Peer("unix", None)


@lru_cache(maxsize=1024)
def peer_at(host: str, *, proxied: bool = False) -> Peer:
    """A peer by its IP; `::ffff:10.0.0.1` is 10.0.0.1, wherever a rule or a limit looks at it."""
    ip = ip_address(host)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Peer(str(ip), ip, proxied)


def may_connect(peer: Peer, listener: Listener) -> bool:
    """A unix socket is guarded by its directory; an empty `allow` allows (what must have one, load has checked)."""
    return peer.ip is None or not listener.allow or peer.inside(listener.allow)


def connections_allowed(peer: Peer, limits: Limits) -> int | None:
    """How many connections this peer may have at once; None: no cap of its own."""
    if limits.connections_per_client is not None:
        return limits.connections_per_client
    return None if peer.local else 100


def kept_for_local(limits: Limits) -> int:
    """How many connections only clients on this machine can have: whatever others do, an app here gets through."""
    return max(1, limits.connections // 5)


def server_context(cert_file: Path, key_file: Path) -> ssl.SSLContext:
    """TLS 1.2 or newer with that certificate. Raises CannotListen naming the file."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # A key with a passphrase must not make the relay wait for someone to type it.
        context.load_cert_chain(cert_file, key_file, password=lambda: "")
    except ssl.SSLError as error:
        raise CannotListen(
            f"{cert_file}, {key_file}: no matching certificate and key ({error.reason})", "cert_file"
        ) from None
    except OSError as error:
        raise CannotListen(f"{cert_file}, {key_file}: {error.strerror}", "cert_file") from None
    return context
