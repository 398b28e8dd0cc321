"""The HTTP service itself, on aiohttp: metrics, health, API, console."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from importlib.resources import files

from aiohttp import web

from relay.store.base import StoreError
from relay.web.answers import HEADERS, refusal
from relay.web.api import ANSWER_WITHIN_S, MAX_BODY_BYTES, Api
from relay.web.connection import Connection
from relay.web.door import Door
from relay.web.guard import Denial, Guard
from relay.web.parts import Parts
from relay.web.query import BadQuery

STOP_WITHIN_S = 2.0
CHALLENGES: dict[Denial, str] = {
    "token": 'Basic realm="otp-relay", charset="UTF-8"',
    "operator": 'Local realm="otp-relay"',  # no scheme that a browser would ask its user for a password for
}

_STATIC = {
    "/": ("index.html", "text/html"),
    "/console.css": ("console.css", "text/css"),
    "/console.js": ("console.js", "text/javascript"),
}
_DENIED: dict[Denial, tuple[int, str]] = {
    "token": (401, "a token is required"),
    "operator": (
        401,
        "without http.token this is for root and the relay's own user only; run it as one of them, or set http.token",
    ),
    "host": (403, "the Host header names another server"),
    "origin": (403, "the request comes from another site"),
    "content type": (415, "the body must be application/json"),
}

_log = logging.getLogger("relay.web")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Service:
    """`begin`, make a `protocol` for each connection, `end`."""

    def __init__(self, parts: Parts, guard: Guard) -> None:
        self._guard = guard
        self._door = Door()
        app = web.Application(middlewares=[_answer_errors, self._watch], client_max_size=MAX_BODY_BYTES)
        app.add_routes(Api(parts).routes())
        app.add_routes([web.get(path, _static(*source)) for path, source in _STATIC.items()])
        app.on_response_prepare.append(_add_headers)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=STOP_WITHIN_S)

    async def begin(self) -> None:
        await self._runner.setup()

    def protocol(self) -> asyncio.Protocol:
        """Of a new connection."""
        server = self._runner.server
        assert server is not None, "begun"
        return Connection(server, self._door)

    async def end(self) -> None:
        """Finish the answers under way, within a short deadline."""
        await self._runner.cleanup()

    @web.middleware
    async def _watch(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        connection = request.protocol
        assert isinstance(connection, Connection), "made by `protocol`"
        connection.asked()
        denial = await self._guard.denies(request.method, request.path, request.headers, connection.peer)
        if denial is None:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return await handler(request)
        status, text = _DENIED[denial]
        answer = refusal(status, text)
        if denial in CHALLENGES:
            answer.headers["WWW-Authenticate"] = CHALLENGES[denial]
        return answer


@web.middleware
async def _answer_errors(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every error is a JSON answer; none carries a traceback or what the relay holds."""
    try:
        return await handler(request)
    except web.HTTPException as exc:
        ours = exc.text is not None and exc.text != f"{exc.status}: {exc.reason}"
        answer = refusal(exc.status, str(exc.text) if ours else exc.reason)
        if "Allow" in exc.headers:
            answer.headers["Allow"] = exc.headers["Allow"]
        return answer
    except BadQuery as exc:
        return refusal(400, str(exc))
    except StoreError as exc:
        return refusal(503, str(exc))
    except TimeoutError:
        return refusal(503, "no answer in time")
    except Exception as exc:  # noqa: BLE001 - the last line: a traceback may quote what it held
        _log.error("event=http_error method=%s error=%s", request.method, type(exc).__name__)
        _log.debug("event=http_error_traceback", exc_info=True)
        return refusal(500, "trouble of the relay's own; see its log")


async def _add_headers(_: web.Request, response: web.StreamResponse) -> None:
    response.headers.update(HEADERS)


def _static(name: str, content_type: str) -> _Handler:
    body = files("relay.web").joinpath("static", name).read_bytes()

    async def serve(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, content_type=content_type, charset="utf-8")

    return serve
