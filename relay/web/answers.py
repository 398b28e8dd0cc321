"""Answers that may be long, made on a thread which leaves the interpreter to the loop."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from aiohttp import web

ROWS_AT_ONCE = 16
REST_S = 0.0001
"""A thread that runs Python gives the interpreter's lock up every 5 ms at most, and so late the loop gets it. With a
rest after each half millisecond of work a code waits no longer than that."""
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
"""of every answer"""
T = TypeVar("T")


def refusal(status: int, text: str) -> web.Response:
    """An error as the API has it."""
    return web.json_response({"error": text}, status=status)


async def answer(document: object) -> web.Response:
    """The document as JSON. What is long in it is a list, by itself or as a value of the document."""
    body = await asyncio.to_thread(encoded, document)
    return web.Response(body=body, content_type="application/json", charset="utf-8")


def encoded(document: object) -> bytes:
    """Blocks for as long as it takes; other threads run meanwhile."""
    return "".join(rested(_pieces(document))).encode()


def rested(rows: Iterable[T]) -> Iterator[T]:
    """The same rows, with a rest now and then. Not for the loop's thread."""
    for number, row in enumerate(rows, start=1):
        yield row
        if number % ROWS_AT_ONCE == 0:
            time.sleep(REST_S)


def _pieces(document: object) -> Iterator[str]:
    match document:
        case dict() as mapping:
            yield from _mapping(mapping)
        case list() | tuple() as rows:
            yield from _joined("[", (json.dumps(row) for row in rows), "]")
        case _:
            yield json.dumps(document)


def _mapping(mapping: Mapping[str, object]) -> Iterator[str]:
    before = "{"
    for key, value in mapping.items():
        yield f"{before}{json.dumps(key)}: "
        if isinstance(value, list | tuple):
            yield from _joined("[", (json.dumps(row) for row in value), "]")
        else:
            yield json.dumps(value)
        before = ", "
    yield "}" if mapping else "{}"


def _joined(begin: str, pieces: Iterable[str], end: str) -> Iterator[str]:
    yield begin
    for number, piece in enumerate(pieces):
        yield f", {piece}" if number else piece
    yield end
