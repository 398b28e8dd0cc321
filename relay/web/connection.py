"""An HTTP connection of aiohttp's with a seat, and with a user at its other end."""

from __future__ import annotations

import asyncio

from aiohttp import web

from relay.web.door import IDLE_FOR_S, Seat
from relay.web.peer import Peer

LINGER_S = 5.0
"""for the rest of a body that isn't wanted: a client that is cut off may not see the answer"""


class Connection(web.RequestHandler):
    """Tells its seat what it is at."""

    __slots__ = ("peer", "seat")

    def __init__(self, server: web.Server, seat: Seat) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as AppRunner hands it on
            keepalive_timeout=IDLE_FOR_S,
            lingering_time=LINGER_S,
        )
        self.seat = seat

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.peer = Peer(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        self.seat.arrived()
        super().data_received(data)

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """aiohttp's, for every answer, errors of HTTP among them."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self.seat.answered()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.seat.leave()
        super().connection_lost(exc)
