"""Listening sockets: bound by the relay, or handed over by systemd."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress

from relay.config.network import AnyAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.intake.types import CannotListen

FIRST_PASSED_FD = 3


def passed_sockets(environ: Mapping[str, str], pid: int) -> dict[str, list[socket.socket]]:
    """The sockets that systemd passed to this process, by FileDescriptorName (sd_listen_fds(3))."""
    if environ.get("LISTEN_PID") != str(pid):
        return {}
    names = environ.get("LISTEN_FDNAMES", "").split(":")
    sockets: dict[str, list[socket.socket]] = {}
    for offset in range(int(environ.get("LISTEN_FDS", "0"))):
        name = names[offset] if offset < len(names) and names[offset] else "unknown"
        fd = FIRST_PASSED_FD + offset
        os.set_inheritable(fd, False)
        sockets.setdefault(name, []).append(socket.socket(fileno=fd))
    return sockets


def bind(address: AnyAddress, passed: Mapping[str, list[socket.socket]]) -> list[socket.socket]:
    """The bound sockets of an address; a host name may have several. Raises CannotListen."""
    try:
        match address:
            case TcpAddress():
                return _bind_tcp(address)
            case UnixAddress():
                return [_bind_unix(address.path)]
            case SystemdAddress():
                # Duplicates: systemd's own stay open, so that one reload can remove the listener and another add it.
                found = [each.dup() for each in passed.get(address.name, [])]
    except OSError as error:
        raise cannot_listen(address, error) from None
    if not found:
        raise CannotListen(f"cannot listen on {address}: systemd passed no socket of that name")
    return found


def cannot_listen(address: AnyAddress, error: OSError) -> CannotListen:
    return CannotListen(f"cannot listen on {address}: {error.strerror or error}")


def release(sockets: list[socket.socket], address: AnyAddress) -> None:
    """Close the sockets, and remove a unix socket's file."""
    for each in sockets:
        each.close()
    if isinstance(address, UnixAddress):
        with suppress(FileNotFoundError):
            os.unlink(address.path)


def shown(bound: socket.socket) -> str:
    """The address as the ready line prints it."""
    name = bound.getsockname()
    if bound.family == socket.AF_UNIX:
        return f"unix:{name}"
    return str(TcpAddress(name[0], name[1]))


def _bind_tcp(address: TcpAddress) -> list[socket.socket]:
    found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, target in dict.fromkeys(found):
            each = socket.socket(family, kind, protocol)
            bound.append(each)
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                # [::] is every address, IPv4 too; a mapped peer is treated as IPv4.
                each.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
            each.bind(target)
    except OSError:
        for each in bound:
            each.close()
        raise
    return bound


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        bound.bind(path)
        # Like loopback, open to every user of this machine; the folder's mode can restrict it.
        os.chmod(path, 0o666)  # noqa: S103
    except OSError:
        bound.close()
        raise
    return bound


def _remove_stale(path: str) -> None:
    """Remove the socket file of a killed process: one where no process answers."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            return
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
