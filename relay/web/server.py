"""Where the HTTP service listens, on a TCP address or a unix socket."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from contextlib import suppress

from relay.config.network import AnyAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.web.guard import Guard
from relay.web.parts import Parts
from relay.web.service import Service

BACKLOG = 128


class WebServer:
    """`start`, read `address`, `stop`. `hosts`: names by which the service is called besides loopback's."""

    def __init__(self, parts: Parts, token: str | None = None, hosts: frozenset[str] = frozenset()) -> None:
        self._service = Service(parts, Guard(token, hosts))
        self._address: AnyAddress | None = None
        self._file: str | None = None
        """the unix socket's"""
        self._listening: list[asyncio.Server] = []

    @property
    def address(self) -> AnyAddress:
        """Where it listens, with the port that a port 0 became, or the address of systemd's first socket."""
        if self._address is None:
            raise RuntimeError("not started")
        return self._address

    async def start(self, address: AnyAddress, bound: Sequence[socket.socket] = ()) -> None:
        """Listen. `bound`: the sockets of an address that isn't TCP's. Raises OSError when the address can't be had."""
        loop = asyncio.get_running_loop()
        await self._service.begin()
        match address:
            case TcpAddress(host, port):
                self._listening = [await loop.create_server(self._service.protocol, host, port, backlog=BACKLOG)]
                self._address = TcpAddress(host, int(self._listening[0].sockets[0].getsockname()[1]))
            case UnixAddress() | SystemdAddress():
                if not bound:
                    raise OSError(f"no socket for {address}")
                self._address = _bound(bound[0])
                for each in bound:
                    create = loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
                    self._listening.append(await create(self._service.protocol, sock=each, backlog=BACKLOG))
                if isinstance(address, UnixAddress):
                    self._file = address.path

    async def stop(self) -> None:
        """Finish the answers under way, within a short deadline, and let go of the address."""
        for server in self._listening:
            server.close()
        if self._file is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._file)
        await self._service.end()


def _bound(sock: socket.socket) -> AnyAddress:
    name = sock.getsockname()
    return UnixAddress(name) if sock.family == socket.AF_UNIX else TcpAddress(name[0], name[1])
