"""The client at the other end of a connection: its address, and whether it is on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address

from relay.config.model import IpNetwork


@dataclass(frozen=True, slots=True)
class Peer:
    """`name` is the IP address, or `unix` for a client of a unix socket."""

    name: str
    ip: IPv4Address | IPv6Address | None
    proxied: bool = False

    @property
    def local(self) -> bool:
        """On this machine, so that nobody can listen in on the way. A proxy's claim to that doesn't count."""
        return not self.proxied and (self.ip is None or self.ip.is_loopback)

    def inside(self, networks: tuple[IpNetwork, ...]) -> bool:
        """Whether the address is in one of the networks; a unix socket's peer is in none."""
        ip = self.ip
        return ip is not None and any(ip.version == network.version and ip in network for network in networks)


UNIX = Peer("unix", None)


@lru_cache(maxsize=1024)
def peer_at(host: str, *, proxied: bool = False) -> Peer:
    """The peer at an IP address. A mapped one (`::ffff:10.0.0.1`) is the IPv4 address that it stands for."""
    ip = ip_address(host)
    if isinstance(ip, IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return Peer(str(ip), ip, proxied)
