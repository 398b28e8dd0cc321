"""Every error of the HTTP services as a JSON response."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from aiohttp import web

from relay.logfmt import logfmt
from relay.store.base import StoreError
from relay.web.guard import SEND
from relay.web.query import BadQuery
from relay.web.responses import HEADERS, error_response, send_error

_log = logging.getLogger("relay.web")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def error_of(path: str) -> Callable[[int, str], web.Response]:
    """How errors of that path look."""
    return send_error if path == SEND else error_response


@web.middleware
async def errors_as_json(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Every error is a JSON response; none carries a traceback or what the relay holds."""
    answer = error_of(request.path)
    try:
        return await handler(request)
    except web.HTTPException as exc:
        ours = exc.text is not None and exc.text != f"{exc.status}: {exc.reason}"
        response = answer(exc.status, str(exc.text) if ours else exc.reason)
        if "Allow" in exc.headers:
            response.headers["Allow"] = exc.headers["Allow"]
        return response
    except BadQuery as exc:
        return answer(400, str(exc))
    except StoreError as exc:
        return answer(503, str(exc))
    except TimeoutError:
        return answer(503, "no answer in time")
    except Exception as exc:  # noqa: BLE001 - a traceback may quote what the relay holds
        _log.error(logfmt("http_error", method=request.method, error=type(exc).__name__))
        _log.debug(logfmt("http_error_traceback"), exc_info=True)
        return answer(500, "an internal error of the relay; see its log")


async def add_headers(_: web.Request, response: web.StreamResponse) -> None:
    """A signal handler for `on_response_prepare`."""
    response.headers.update(HEADERS)
