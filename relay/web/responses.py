"""HTTP responses: the headers of all, errors, and JSON that is encoded on a thread without delaying codes."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from aiohttp import web

from relay.web.sender import ErrorCode

ROWS_PER_PAUSE = 16
PAUSE_S = 0.0001
"""A thread that runs Python releases the interpreter's lock only every 5 ms, and the event loop waits for it. With a
pause after each half millisecond of work a code waits no longer than that."""
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
    "Server": "otp-relay",
}
"""of every response"""
T = TypeVar("T")


class Json(web.Response, Generic[T]):
    """A response whose document has the type T."""


def error_response(status: int, text: str) -> web.Response:
    """An error in the API's form."""
    return web.json_response({"error": text}, status=status)


_CODES: Mapping[int, ErrorCode] = {
    400: "unreadable",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    413: "too_large",
    415: "unsupported_type",
    503: "unavailable",
}
SEND_AGAIN_S = 5


def send_error(status: int, text: str, code: ErrorCode | None = None) -> web.Response:
    """An error of `/api/send`: 503 in the place of 500, since the relay's own trouble passes. `code`: default: that of
    the status."""
    status = 503 if status >= 500 else status
    response = web.json_response({"error": {"code": code or _CODES[status], "message": text}}, status=status)
    if status == 503:
        response.headers["Retry-After"] = str(SEND_AGAIN_S)
    return response


async def json_response(document: T) -> Json[T]:
    """The document as JSON, encoded on a thread."""
    return json_body(await asyncio.to_thread(encode_json, document))


def small_json(document: T, status: int = 200) -> Json[T]:
    """A document of a few values as JSON, encoded at once."""
    return Json(text=json.dumps(document), content_type="application/json", status=status)


def json_body(body: bytes) -> Json[T]:
    """A response with JSON that is encoded already."""
    return Json(body=body, content_type="application/json", charset="utf-8")


def encode_json(document: object) -> bytes:
    """JSON, with pauses between the rows of its lists. Blocks; not for the event loop's thread."""
    return _encoded(document).encode()


def with_pauses(rows: Iterable[T]) -> Iterator[T]:
    """The same rows, with a pause after every few. Not for the event loop's thread."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number % ROWS_PER_PAUSE == 0:
            time.sleep(PAUSE_S)


def _encoded(document: object) -> str:
    match document:
        case dict() as mapping:
            return "{" + ", ".join(f"{json.dumps(key)}: {_encoded(value)}" for key, value in mapping.items()) + "}"
        case list() | tuple() as rows:
            return "[" + ", ".join(with_pauses(json.dumps(row) for row in rows)) + "]"
        case _:
            return json.dumps(document)
