"""Where the HTTP service listens, on a TCP address or a unix socket.

The service itself is loaded at the first connection: aiohttp takes as long to import as half of the relay, and 15 MB.
Neither a start nor a relay that nobody asks pays for it.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from relay.config.units import AnyAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.web.door import FULL, Door, Seat
from relay.web.guard import Guard
from relay.web.parts import Parts

if TYPE_CHECKING:
    from relay.web.service import Service

BACKLOG = 128
SWITCH_EVERY_S = 0.0005
"""While a thread imports, the loop waits this long (instead of 5 ms) whenever it wants the interpreter back: a code
that comes just then is 1 or 2 ms late."""

_log = logging.getLogger("relay.web")


class WebServer:
    """`start`, read `address`, `stop`. `hosts`: names by which the service is called besides loopback's."""

    def __init__(self, parts: Parts, token: str | None = None, hosts: frozenset[str] = frozenset()) -> None:
        self._parts = parts
        self._guard = Guard(token, hosts)
        self._address: AnyAddress | None = None
        self._file: str | None = None
        """the unix socket's"""
        self._door = Door()
        self._listening: list[asyncio.Server] = []
        self._service: Service | None = None
        self._loading: asyncio.Task[None] | None = None
        self._waiting: set[_Arrival] = set()

    @property
    def address(self) -> AnyAddress:
        """Where it listens, with the port that a port 0 became, or the address of systemd's first socket."""
        if self._address is None:
            raise RuntimeError("not started")
        return self._address

    async def start(self, address: AnyAddress, bound: Sequence[socket.socket] = ()) -> None:
        """Listen. `bound`: the sockets of an address that isn't TCP's. Raises OSError when the address can't be had."""
        loop = asyncio.get_running_loop()
        match address:
            case TcpAddress(host, port):
                self._listening = [await loop.create_server(self._protocol, host, port, backlog=BACKLOG)]
                self._address = TcpAddress(host, int(self._listening[0].sockets[0].getsockname()[1]))
            case UnixAddress() | SystemdAddress():
                if not bound:
                    raise OSError(f"no socket for {address}")
                self._address = _bound(bound[0])
                for each in bound:
                    create = loop.create_unix_server if each.family == socket.AF_UNIX else loop.create_server
                    self._listening.append(await create(self._protocol, sock=each, backlog=BACKLOG))
                if isinstance(address, UnixAddress):
                    self._file = address.path

    async def stop(self) -> None:
        """Finish the answers under way, within a short deadline, and let go of the address."""
        for server in self._listening:
            server.close()
        if self._file is not None:
            with suppress(FileNotFoundError):
                os.unlink(self._file)
        if self._loading is not None:
            await self._loading  # a third of a second at most; an import can't be broken off
        if self._service is not None:
            await self._service.end()

    def _protocol(self) -> asyncio.Protocol:
        if self._service is None and self._loading is None:
            self._loading = asyncio.create_task(self._load(), name="load the HTTP service")
        return _Arrival(self._door, self._arrived, self._waiting.discard)

    def _arrived(self, arrival: _Arrival) -> None:
        if self._service is not None:
            arrival.hand_over(self._service)
        else:
            self._waiting.add(arrival)

    async def _load(self) -> None:
        try:
            service_class = await asyncio.to_thread(_imported)
            service = service_class(self._parts, self._guard)
            await service.begin()
        except Exception as error:  # noqa: BLE001 - mail goes on; the next connection tries again
            _log.error("event=http_unavailable reason=%s", json.dumps(f"{type(error).__name__}: {error}"))
            self._loading = None
            for waiting in list(self._waiting):
                waiting.turn_away()
            return
        self._service = service
        for waiting in self._waiting:
            waiting.hand_over(service)
        self._waiting.clear()


class _Arrival(asyncio.Protocol):
    """A new connection, up to where the service takes it over: at once, once that is loaded."""

    def __init__(self, door: Door, arrived: Callable[[_Arrival], None], gone: Callable[[_Arrival], None]) -> None:
        self._door = door
        self._arrived = arrived
        self._gone = gone
        self._seat: Seat | None = None
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._seat = self._door.seat(self._transport)
        if self._seat is not None:
            self._arrived(self)
        else:
            self._transport.write(FULL)
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._seat is None:
            return
        # Here and not in connection_made: uvloop begins to read behind that, whatever it said.
        self._transport.pause_reading()
        self._received += data

    def connection_lost(self, _: Exception | None) -> None:
        if self._seat is not None:
            self._seat.leave()
        self._gone(self)

    def hand_over(self, service: Service) -> None:
        if self._transport.is_closing() or self._seat is None:
            return
        protocol = service.protocol(self._seat)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if self._received:
            protocol.data_received(self._received)
        self._transport.resume_reading()

    def turn_away(self) -> None:
        self._transport.abort()


def _bound(sock: socket.socket) -> AnyAddress:
    name = sock.getsockname()
    return UnixAddress(name) if sock.family == socket.AF_UNIX else TcpAddress(name[0], name[1])


def _imported() -> type[Service]:
    """On a thread of its own."""
    switch_every_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_EVERY_S)
    try:
        from relay.web.service import Service

        gc.freeze()  # what was imported stays: it need not be looked at ever again
        return Service
    finally:
        sys.setswitchinterval(switch_every_s)
