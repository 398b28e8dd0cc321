"""The HTTP services: the operator's, with all routes and the console's files, and the one that takes mail only."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from aiohttp import web

from relay.web import pages, stream
from relay.web.api import ANSWER_WITHIN_S, MAX_BODY_BYTES, Api
from relay.web.backend import Backend
from relay.web.guard import NO_TOKENS, Guard, Tokens
from relay.web.listening import Bounds, HttpListener
from relay.web.send import Send
from relay.web.sender import Sender

_BOUNDS = Bounds(ANSWER_WITHIN_S, MAX_BODY_BYTES)


class WebServer:
    """The operator's HTTP service: `start` it on bound sockets, `stop` it."""

    def __init__(
        self,
        backend: Backend,
        tokens: Tokens = NO_TOKENS,
        hosts: frozenset[str] = frozenset(),
    ) -> None:
        """`hosts`: host names, besides those of loopback, under which clients may call the service."""
        api = Api(backend)
        self.stream = api.stream
        routes = [*api.routes(), *pages.routes()]
        if backend.sender is not None:
            routes += Send(backend.sender).routes()
        self._listener = HttpListener(routes, _BOUNDS, Guard(tokens, hosts), endless=stream.PATH)

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        """Listen on bound sockets (`intake.sockets.bind`); the caller releases them after `stop`."""
        await self._listener.start(sockets)

    async def stop(self) -> None:
        """Stop listening, and finish the responses under way within a short deadline."""
        self._listener.close()
        await self.stream.close()
        await self._listener.stop()


def send_listener(sender: Sender, tokens: Tokens) -> HttpListener:
    """The service that takes mail, tells whether it works, and does nothing else (`http.send_address`)."""

    async def healthz(_: web.Request) -> web.Response:
        return web.json_response({"healthy": True})

    guard = Guard(tokens, only_sends=True)
    return HttpListener([*Send(sender).routes(), web.get("/healthz", healthz)], _BOUNDS, guard)
