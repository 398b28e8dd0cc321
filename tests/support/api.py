"""A real HTTP/1.1 server for tests that does what a script says: see `api_script` for the answers.

async with ApiServer([Reply(429, headers=[("Retry-After", "1")]), Reply(200, {"id": "1"})]) as server:
    ...
    await server.wait_for(2)
    assert server.requests[0].path == "/emails"
    assert server.faults == []
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType

from tests.support.api_dialogue import ApiDialogue, HttpWire
from tests.support.api_script import (
    Action,
    Answer,
    AtHead,
    Bomb,
    CloseAfter,
    CloseBefore,
    CloseWhileReading,
    Early,
    Endless,
    Hang,
    Header,
    IdleClose,
    Raw,
    Redirect,
    Reply,
    Request,
    Reset,
    Responder,
    Slow,
    StopReading,
    Taken,
)
from tests.support.listening import Listening
from tests.support.tls import Certificate
from tests.support.wire import Lost, Wire

__all__ = [
    "Action", "Answer", "ApiServer", "Bomb", "CloseAfter", "CloseBefore", "CloseWhileReading", "Early", "Endless",
    "Hang", "Header", "IdleClose", "Raw", "Redirect", "Reply", "Request", "Reset", "Responder", "Slow", "StopReading",
    "Taken",
]  # fmt: skip


class ApiServer(Listening[HttpWire]):
    """An async context manager that listens on loopback; what it saw is in `requests` and `faults`."""

    def __init__(
        self,
        respond: Answer | Sequence[Answer],
        *,
        tls: Certificate | ssl.SSLContext | None = None,
        address: str = "127.0.0.1",
        port: int = 0,
        at_head: AtHead | None = None,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        """`respond`: one answer, or one for each request in turn, of which the last repeats.
        `at_head`: asked before the body of a request is read; None from it means to read on and answer.
        `receive_buffer_bytes`: of the kernel, for each connection; the kernel doubles it."""
        super().__init__()
        self.address = address
        self.port = port
        self.requests: list[Request] = []
        """all whose head came, in the order in which they ended, whole or not"""
        self.faults: list[str] = []
        """what the clients did wrong, and what a callable raised"""
        self.connections = 0
        """opened so far, with those whose handshake failed"""
        self.peak = 0
        """most connections open at once"""
        self.at_head = at_head
        self.set_respond(respond)
        self._context = tls.server_context() if isinstance(tls, Certificate) else tls
        self._receive_buffer_bytes = receive_buffer_bytes

    @property
    def url(self) -> str:
        return f"{'http' if self._context is None else 'https'}://localhost:{self.port}"

    @property
    def open(self) -> int:
        """Connections that are open now."""
        return len(self._wires)

    def set_respond(self, respond: Answer | Sequence[Answer]) -> None:
        """Other answers from the next request on."""
        self._answers: Sequence[Answer] = respond if isinstance(respond, Sequence) else [respond]
        self._turn = 0
        if not self._answers:
            raise ValueError("a server needs an answer")

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Connections that their end has closed with FIN are reset, too: clients notice at once."""
        wires = list(self._wires)
        await super().__aexit__(kind, exc, trace)
        for wire in wires:
            with suppress(OSError):  # a handshake that failed has closed its socket
                wire.reset()

    async def resume(self) -> None:
        """Listen (again) on the same port."""
        sock = socket.create_server(
            (self.address, self.port), family=socket.AF_INET6 if ":" in self.address else socket.AF_INET
        )
        if self._receive_buffer_bytes is not None:
            # Accepted sockets inherit it; set later, it wouldn't take back the window that is open already.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer_bytes)
        self._server = await asyncio.get_running_loop().create_server(
            lambda: HttpWire(self._serve, self._tasks, held=self._context is not None), sock=sock
        )
        self.port = int(sock.getsockname()[1])

    def reset_connections(self) -> None:
        """RST on every open connection."""
        self._reset_all()

    def close_connections(self) -> None:
        """What a server does to idle connections: FIN, without a word."""
        for wire in list(self._wires):
            wire.close()

    def swallow_connections(self) -> None:
        """The network loses what comes on the connections that are open now, without an RST. Linux only."""
        self._swallow_all()

    async def wait_for(self, n: int, within_s: float = 10.0) -> list[Request]:
        """The requests, once there are `n`."""
        await self.wait_until(lambda: len(self.requests) >= n, within_s)
        return self.requests

    def _seen(self) -> str:
        seen = [f"{one.method} {one.path}" for one in self.requests]
        return f"{seen}, {self.connections} connections, faults {self.faults}"

    def _choose(self) -> Answer:
        answer = self._answers[min(self._turn, len(self._answers) - 1)]
        self._turn += 1
        return answer

    def _noted(self, request: Request) -> None:
        self.requests.append(request)
        self.changed()

    def _fault(self, text: str) -> None:
        self.faults.append(text)
        self.changed()

    async def _serve(self, wire: Wire) -> None:
        assert isinstance(wire, HttpWire)
        number = self.connections
        self.connections += 1
        self._wires.add(wire)
        self.peak = max(self.peak, self.open)
        self.changed()
        try:
            if self._context is not None:
                await wire.secure(self._context)
            await ApiDialogue(wire, number, self._choose, self.at_head, self._noted, self._fault).run()
        except Lost:
            pass  # the script or the client ended it: what was seen is noted
        finally:
            self._wires.discard(wire)
            wire.close()
            self.changed()
