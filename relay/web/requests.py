"""What a request brings: its parameters, and its body as JSON."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from relay.web.query import BadQuery
from relay.web.webhooks import read_body


def parameters(request: web.Request) -> dict[str, str]:
    """The query's parameters. Raises BadQuery if one is given twice."""
    given = dict(request.query)
    if len(given) != len(request.query):
        raise BadQuery("a parameter was given twice")
    return given


async def read_json(request: web.Request, max_bytes: int) -> Any:
    """The body. Raises BadQuery if it is no JSON; HTTP 413 and 408 as `read_body`."""
    try:
        return json.loads(await read_body(request, max_bytes))
    except (ValueError, RecursionError):
        raise BadQuery("the body is not JSON") from None
