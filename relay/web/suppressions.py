"""`/api/suppressions`: list, add and remove addresses that must not be mailed; `/api/erase`: forget an address."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, cast
from urllib.parse import urlencode

from aiohttp import web

from relay.store.suppressions import SuppressionQuery
from relay.web import suppression_query as query
from relay.web.backend import Backend, Eraser, SuppressionControl
from relay.web.operation import Body, Query, operation
from relay.web.query import BadQuery
from relay.web.requests import parameters, read_json
from relay.web.responses import Json, json_response

if TYPE_CHECKING:
    from relay.web import documents

PATH, ERASE_PATH = "/api/suppressions", "/api/erase"
MAX_BODY_BYTES = 1_000_000


def routes(backend: Backend) -> list[web.RouteDef]:
    """Those whose part of the relay is there."""
    found: list[web.RouteDef] = []
    if backend.suppressions is not None:
        api = _Suppressions(backend, backend.suppressions)
        found += [web.get(PATH, api.listing), web.post(PATH, api.add), web.delete(PATH, api.remove)]
    if backend.eraser is not None:
        found.append(web.post(ERASE_PATH, _Erasing(backend.eraser).erase))
    return found


class _Suppressions:
    def __init__(self, backend: Backend, control: SuppressionControl) -> None:
        self._clock = backend.clock
        self._control = control

    @operation("listSuppressions", "suppressions", headers={"Link": "Where there are more: the next page."})
    async def listing(
        self, request: Annotated[web.Request, Query(documents.SuppressionFilters)]
    ) -> Json[list[documents.Suppression]]:
        """Addresses that must not be mailed, newest first."""
        given = parameters(request)
        asked = query.listing_query(given, self._control.hash_of)
        rows = await self._control.listing(asked._replace(limit=asked.limit + 1))
        page = [cast("documents.Suppression", row.as_json()) for row in rows[: asked.limit]]
        response = await json_response(page)
        if len(rows) > asked.limit:
            response.headers["Link"] = _next_page(given, asked, rows[asked.limit - 1].at, rows[asked.limit - 1].key)
        return response

    @operation("suppress", "suppressions")
    async def add(
        self, request: Annotated[web.Request, Body(documents.WantedSuppression | documents.WantedSuppressions)]
    ) -> Json[documents.Changed]:
        """Suppress one address or several."""
        wanted = query.wanted(await read_json(request, MAX_BODY_BYTES), self._clock())
        return await json_response({"changed": list(await self._control.add_by_hand(wanted))})

    @operation("unsuppress", "suppressions", errors=(404,))
    async def remove(
        self, request: Annotated[web.Request, Query(documents.AddressParameter)]
    ) -> Json[documents.Changed]:
        """Let an address be mailed again. 404 where it isn't suppressed."""
        given = parameters(request)
        address = query.address_or_hash(given.pop("address", None))
        if given:
            raise BadQuery(f"unknown parameter {next(iter(given))!r}; known is address")
        changed = list(await self._control.remove([address]))
        if not changed:
            raise web.HTTPNotFound(text="this address is not suppressed")
        return await json_response({"changed": changed})


class _Erasing:
    def __init__(self, eraser: Eraser) -> None:
        self._eraser = eraser

    @operation("erase", "mail")
    async def erase(self, request: Annotated[web.Request, Body(documents.Erase)]) -> Json[documents.Erased]:
        """Forget an address in finished mail, events and suppressions."""
        body: Any = await read_json(request, MAX_BODY_BYTES)
        if not isinstance(body, dict) or body.keys() != {"address"}:
            raise BadQuery('expected {"address": "..."}')
        return await json_response({"erased": dict(await self._eraser.erase(query.address(body["address"])))})


def _next_page(given: Mapping[str, str], asked: SuppressionQuery, at: float, key: int) -> str:
    there = urlencode({**given, "limit": str(asked.limit), "after": query.cursor(at, key)})
    return f'<{PATH}?{there}>; rel="next"'
