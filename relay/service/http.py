"""The HTTP service's start: its sockets listen before `ready`, aiohttp is imported after it.

The import takes a third of a start's time, in which no code could be taken. Clients that connect meanwhile wait in the
kernel's queue.
"""

from __future__ import annotations

import asyncio
import gc
import importlib
import socket
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relay.config.model import Http
from relay.intake.sockets import shown
from relay.supervise import Supervisor
from relay.web import BACKLOG
from relay.web.backend import Backend
from relay.web.guard import Tokens

if TYPE_CHECKING:
    from pydantic import SecretStr

    from relay.web.listening import HttpListener
    from relay.web.server import WebServer

SWITCH_INTERVAL_S = 0.0005
"""while the import runs: a code that comes then waits so long for the interpreter's lock, not 5 ms"""


class HttpService:
    """`listen`, then `start`; `stop`."""

    def __init__(self, backend: Backend, config: Http, supervisor: Supervisor) -> None:
        self._backend = backend
        self._tokens = Tokens(_text(config.token), _text(config.send_token), _text(config.read_token))
        self._supervisor = supervisor
        self._sockets: Sequence[socket.socket] = ()
        self._send_sockets: Sequence[socket.socket] = ()
        self._send_listener: HttpListener | None = None
        self._starting: asyncio.Task[None] | None = None
        self._server: WebServer | None = None

    @property
    def address(self) -> str:
        """Where the first socket listens: `127.0.0.1:8025`, `unix:/run/relay.sock`."""
        return shown(self._sockets[0])

    def listen(self, sockets: Sequence[socket.socket], send_sockets: Sequence[socket.socket]) -> None:
        """Let clients connect to these bound sockets; `send_sockets`: to send mail only. The caller releases them after
        `stop`."""
        for each in (*sockets, *send_sockets):
            each.listen(BACKLOG)
        self._sockets, self._send_sockets = sockets, send_sockets

    def start(self) -> None:
        """Answer clients as soon as the service is imported. Returns at once."""
        self._starting = self._supervisor.run_until_done("start_http", self._start)

    async def _start(self) -> None:
        await asyncio.to_thread(_import)
        from relay.web.server import WebServer, send_listener

        if self._send_sockets and self._backend.sender is not None:
            self._send_listener = send_listener(self._backend.sender, self._tokens)
            await self._send_listener.start(self._send_sockets)
        self._server = WebServer(self._backend, self._tokens)
        await self._server.start(self._sockets)
        gc.freeze()  # what was imported stays: no collection looks at it again

    def wake(self) -> None:
        """The store has new events, for the clients of the stream."""
        if self._server is not None:
            self._server.stream.wake()

    async def stop(self) -> None:
        """Answer no new request, and finish the responses under way within a short deadline."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.gather(self._starting, return_exceptions=True)
        stopping = [one.stop() for one in (self._send_listener, self._server) if one is not None]
        await asyncio.gather(*stopping)


def _text(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret is not None else None


def _import() -> None:
    before_s = sys.getswitchinterval()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    try:
        importlib.import_module("relay.web.server")
    finally:
        sys.setswitchinterval(before_s)
