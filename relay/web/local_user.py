"""Which local user is at the other end of a connection (Linux: SO_PEERCRED, /proc/net/tcp)."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
import sys
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any, NamedTuple

PROC = Path("/proc/self/net")
"""not /proc/net, which systemd's ProcSubset=pid hides"""
ATTEMPTS = 3
"""Attempts: a table that changes while it is read may lack a line."""
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid
_OWNER = re.compile(rb"\S+ \S+ \S+ +(\d+) +\d+ +(\d+)")
"""The columns behind a socket's state: queues, timer, retransmits; then user, timeout and inode."""


class Owner(NamedTuple):
    """Owner of a socket, as /proc has it."""

    uid: int
    inode: int


class SocketPeer:
    """The other end of one connection. Its user is looked up once, when it is first needed."""

    def __init__(self, transport: asyncio.BaseTransport) -> None:
        self._socket: Any = transport.get_extra_info("socket")
        self._ends = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        self._uid: int | None = None
        self._looked_up = False
        self.unix: bool = self._socket is not None and self._socket.family == socket.AF_UNIX
        """connected over a unix socket"""

    async def is_operator(self) -> bool:
        """True for root and for the user of this process; False for others, and where the user is unknown."""
        if not self._looked_up:
            # Over TCP: a file of the kernel with a line for each socket of the machine.
            self._uid = self._credentials() if self.unix else await asyncio.to_thread(user_of, *self._ends)
            self._looked_up = True
        return self._uid is not None and self._uid in (0, os.geteuid())

    def _credentials(self) -> int | None:
        """unix(7), SO_PEERCRED: the user that connected."""
        try:
            given = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        except OSError:
            return None
        uid = int(_CREDENTIALS.unpack(given)[1])
        return uid if uid >= 0 else None


def user_of(client: object, server: object, proc: Path = PROC) -> int | None:
    """The user of the socket at `client` that is connected to `server` (`getpeername` and `getsockname`).

    None if this machine has no such open socket. The kernel shows uid 0 for a socket that its process has closed, so
    the socket must still be there, with its inode, after its uid was read.
    """
    for _ in range(ATTEMPTS):
        first = _owner(client, server, proc)
        if first is not None:
            return first.uid if first == _owner(client, server, proc) else None
    return None


def _owner(client: object, server: object, proc: Path) -> Owner | None:
    ends = _end(client), _end(server)
    if None in ends:
        return None
    found: set[Owner] = set()
    for name, mapped in (("tcp", False), ("tcp6", True)):
        written = [_hexadecimal(*end, mapped=mapped) for end in ends if end is not None]
        if all(written):
            found |= _lines(proc / name, b" ".join(written))
    owner = found.pop() if len(found) == 1 else None
    return owner if owner is not None and owner.inode else None


def _lines(file: Path, needle: bytes) -> set[Owner]:
    """The owners of the established sockets with these two addresses: one, or none."""
    try:
        table = file.read_bytes()
    except OSError:
        return set()
    found, at = set(), -1
    while (at := table.find(b" " + needle + b" 01 ", at + 1)) >= 0:
        if (owner := _OWNER.match(table, at + len(needle) + len("  01 "))) is not None:
            found.add(Owner(int(owner[1]), int(owner[2])))
    return found


def _end(name: object) -> tuple[IPv4Address | IPv6Address, int] | None:
    """Address and port of a socket; an IPv4-mapped IPv6 address as IPv4."""
    match name:
        case (str(host), int(port), *_):
            try:
                address = ip_address(host.partition("%")[0])
            except ValueError:
                return None
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            return mapped or address, port
        case _:
            return None


def _hexadecimal(address: IPv4Address | IPv6Address, port: int, *, mapped: bool) -> bytes:
    """An address as the kernel writes it: words of 32 bits in the machine's order. `mapped`: for the table of IPv6
    sockets. b'' if the address can't be in that table."""
    packed = address.packed
    if len(packed) == 4 and mapped:
        packed = bytes(10) + b"\xff\xff" + packed
    if (len(packed) == 16) is not mapped:
        return b""
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return b"%s:%04X" % ("".join(f"{word:08X}" for word in words).encode(), port)
