"""Parse the configuration's addresses, networks and host names."""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, Any

from relay.config.masking import Expanded, first_word, shown
from relay.config.parse import in_folder

if TYPE_CHECKING:
    from pydantic import ValidationInfo

# sockaddr_un.sun_path holds 108 bytes with its final NUL (unix(7)).
UNIX_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A host, without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """The path of a unix socket."""

    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """A socket that systemd passes (sd_listen_fds(3)), by its FileDescriptorName."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


AnyAddress = TcpAddress | UnixAddress | SystemdAddress


def parse_network(value: Any) -> IPv4Network | IPv6Network:
    """`10.1.0.0/16`, `192.0.2.7`, `2001:db8::/32`. A network of mapped addresses (`::ffff:0:0/96`) becomes its IPv4
    network. Raises ValueError."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    expected = "expected an IP network such as 10.1.0.0/16 or 2001:db8::/32"
    if not isinstance(value, str):
        raise ValueError(f"{expected}, got {shown(value)}")  # noqa: TRY004 (pydantic collects ValueError only)
    try:
        network = ip_network(value, strict=False)
    except ValueError:
        raise ValueError(f"{expected}, got {shown(value)}") from None
    if "/" in value and network.network_address != ip_address(value.partition("/")[0]):
        meant = "" if isinstance(value, Expanded) else f"; did you mean {network}?"
        raise ValueError(f"expected a network without host bits, got {shown(value)}{meant}")
    mapped = network.network_address.ipv4_mapped if isinstance(network, IPv6Network) else None
    if mapped is not None and network.prefixlen >= 96:
        return IPv4Network((mapped, network.prefixlen - 96))
    return network


def parse_address(value: Any, info: ValidationInfo | None) -> AnyAddress:
    """`127.0.0.1:2525`, `[::1]:2525`, `localhost:2525`, `unix:/run/relay.sock`, `systemd:NAME`. A relative unix path
    becomes absolute while a file is loaded. Raises ValueError."""
    if isinstance(value, AnyAddress):
        return value
    expected = "expected an address such as 127.0.0.1:2525, [::1]:2525, unix:/path or systemd:NAME"
    if not isinstance(value, str):
        raise ValueError(f"{expected}, got {first_word(value)}")  # noqa: TRY004
    if value.startswith("unix:"):
        return _unix_address(value, info)
    if value.startswith("systemd:"):
        if not re.fullmatch(r"[\x21-\x39\x3b-\x7e]{1,255}", value[8:]):  # sd_listen_fds(3): no control, no colon
            raise ValueError(f"expected systemd:NAME with the FileDescriptorName= of a socket, got {first_word(value)}")
        return SystemdAddress(value[8:])
    host, colon, port = value.rpartition(":")
    if not colon or not re.fullmatch(r"[0-9]{1,5}", port) or int(port) > 65535:
        raise ValueError(f"{expected}, got {first_word(value)}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
        if not is_ip(host, IPv6Address):
            raise ValueError(f"expected an IPv6 address between the brackets, got {first_word(value)}")
    elif ":" in host:
        raise ValueError(f"an IPv6 address goes in brackets, as in [::1]:2525; got {first_word(value)}")
    elif not is_host(host):
        raise ValueError(f"{expected}, got {first_word(value)}")
    return TcpAddress(host, int(port))


def _unix_address(value: str, info: ValidationInfo | None) -> UnixAddress:
    if not value[5:] or "\0" in value:
        raise ValueError(f"expected unix:/path, got {first_word(value)}")
    path = str(in_folder(value[5:], info))
    if len(path.encode(errors="surrogateescape")) > UNIX_PATH_BYTES:
        raise ValueError(f"a socket's absolute path holds at most {UNIX_PATH_BYTES} bytes, got {first_word(value)}")
    return UnixAddress(path)


def is_ip(text: str, kind: type[IPv4Address | IPv6Address] | None = None) -> bool:
    """Whether it is an IP address without brackets, of that kind if one is given."""
    try:
        return isinstance(ip_address(text), kind or (IPv4Address, IPv6Address))
    except ValueError:
        return False


_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_DOTTED_NUMBERS = re.compile(r"[0-9.]+")


def is_host(text: str) -> bool:
    """A host name in ASCII (RFC 1123 2.1, underscores allowed) or an IP address without brackets."""
    if is_ip(text):
        return True
    return len(text) <= 253 and _HOST.fullmatch(text) is not None and not _DOTTED_NUMBERS.fullmatch(text)


def is_loopback(host: str) -> bool:
    """Whether a host can only be this machine. Names other than localhost aren't looked up."""
    try:
        address = ip_address(host)
    except ValueError:
        return host.rstrip(".").lower() == "localhost"
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return (mapped or address).is_loopback


def is_private(address: AnyAddress) -> bool:
    """Whether only this machine can reach it. False for a socket of systemd, whose address isn't known."""
    return isinstance(address, UnixAddress) or (isinstance(address, TcpAddress) and is_loopback(address.host))
