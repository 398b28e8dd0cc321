"""An HTTP connection of aiohttp's with a seat, and with a user at its other end."""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import cast

from aiohttp import web

from relay.web.answers import HEADERS, refusal
from relay.web.door import FULL, IDLE_FOR_S, Door, Seat
from relay.web.peer import Peer

_log = logging.getLogger("relay.web")
LINGER_S = 5.0
"""for the rest of a body that isn't wanted: a client that is cut off may not see the answer"""


class Connection(web.RequestHandler):
    """Tells its seat what it is at. Without a seat it is answered 503 and closed."""

    __slots__ = ("_door", "_seat", "peer")

    def __init__(self, server: web.Server, door: Door) -> None:
        super().__init__(
            server,
            loop=asyncio.get_running_loop(),
            access_log=None,  # type: ignore[arg-type]  # as AppRunner hands it on
            keepalive_timeout=IDLE_FOR_S,
            lingering_time=LINGER_S,
        )
        self._door = door
        self._seat: Seat | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        stream = cast(asyncio.Transport, transport)
        self._seat = self._door.seat(stream)
        if self._seat is None:
            stream.write(FULL)
            stream.close()
            return
        self.peer = Peer(transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if self._seat is not None:
            self._seat.arrived()
            super().data_received(data)

    def asked(self) -> None:
        """A request's head is complete."""
        if self._seat is not None:
            self._seat.asked()

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """aiohttp's, for every answer, errors of HTTP among them."""
        if isinstance(resp, web.HTTPException):  # aiohttp's own, raised outside of the service; its text quotes
            resp = _refused(resp.status)
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            if self._seat is not None:
                self._seat.answered()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's signature
    ) -> web.StreamResponse:
        """What can't be read as HTTP, TLS for one. aiohttp's answer and log line quote it, and name its version."""
        _log.debug("event=http_unreadable status=%s error=%s", status, type(exc).__name__)
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way; another can't be sent")
        answer = _refused(status)
        answer.force_close()
        return answer

    def connection_lost(self, exc: BaseException | None) -> None:
        if self._seat is not None:
            self._seat.leave()
            super().connection_lost(exc)


def _refused(status: int) -> web.Response:
    text = "the request can't be read as HTTP" if status == HTTPStatus.BAD_REQUEST else HTTPStatus(status).phrase
    answer = refusal(status, text)
    answer.headers.update(HEADERS)  # nothing else adds them here
    return answer
