"""The HTTP API: metrics, health, messages, report, queue and actions."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, cast

from aiohttp import web

from relay.observe import report, verdict
from relay.store.base import StoreError
from relay.store.model import LaneCount, Selection
from relay.web import query, stream, suppressions, webhooks
from relay.web.backend import Backend, gauges
from relay.web.operation import Body, Query, operation
from relay.web.overview import Overview, lane_count, upstreams_json
from relay.web.requests import parameters, read_json
from relay.web.responses import Json, encode_json, json_body, json_response, small_json, with_pauses

if TYPE_CHECKING:
    from relay.web import documents

ANSWER_WITHIN_S = 20.0
MAX_BODY_BYTES = 1_000_000
MAX_ROWS = 1_000
SEARCH_WITHIN_S = 5.0
"""for a search that no index answers"""
SEARCHED_SINCE = "The search ran out of time: what was accepted before this time wasn't looked at."
"""of the header field that says so"""


class Api:
    """The handlers of the API, by their `routes`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._overview = Overview(backend)
        self.stream = stream.Stream(backend.events, self._overview.live_document)

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/api/messages", self.messages),
            web.get("/api/messages/{id}", self.message),
            web.get("/api/report", self.report),
            web.get("/api/queue", self.queue),
            web.get("/api/events", self.events),
            web.get(stream.PATH, self.stream.get),
            web.post("/api/queue/{action}", self.act),
            *self._overview.routes(),
            *suppressions.routes(self._backend),
            *webhooks.routes(self._backend.webhooks),
        ]

    @operation("getMetrics", "health", media=("text/plain", "application/openmetrics-text"))
    async def metrics(self, request: web.Request) -> web.Response:
        """Metrics in Prometheus' text format, or in OpenMetrics where the client asks for that."""
        counts: list[LaneCount] | None
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                counts = list(await self._backend.store.counts())
        except (StoreError, TimeoutError):
            counts = None  # a store in trouble must not hide the other metrics
        body, content_type = self._backend.metrics.render(
            gauges(self._backend, counts),
            request.headers.get("Accept", ""),
            await self._backend.health.worker_metrics(),
        )
        return web.Response(body=body, headers={"Content-Type": content_type})

    @operation("getHealth", "health")
    async def healthz(self, _: web.Request) -> Json[documents.Healthy]:
        """Whether the process works."""
        return small_json({"healthy": True})

    @operation("getReadiness", "health", statuses=(200, 503))
    async def readyz(self, _: web.Request) -> Json[documents.Readiness]:
        """Whether mail can be taken. 503 with `reasons` when it can't; a dead upstream alone never makes it 503."""
        health = self._backend.health
        reasons = list(health.reasons())
        document: documents.Readiness = {
            "ready": not reasons,
            "reasons": reasons,
            "queue": cast("documents.QueueFill", health.queue().as_json()),
            "intake": cast("documents.IntakeLoad", health.intake().as_json()),
            "lanes": {lane: {"upstreams": upstreams_json(upstreams)} for lane, upstreams in health.lanes().items()},
        }
        return small_json(document, 503 if reasons else 200)

    @operation("listMessages", "mail", headers={"X-Searched-Since": SEARCHED_SINCE})
    async def messages(
        self, request: Annotated[web.Request, Query(documents.MessageFilters)]
    ) -> Json[list[documents.ListedMessage]]:
        """Messages, newest first."""
        selection = await self._selection(request)
        if selection is None:
            return await json_response([])
        found = await self._backend.store.find(selection, SEARCH_WITHIN_S)
        response = await json_response(cast("list[documents.ListedMessage]", list(found.messages)))
        if found.searched_since is not None:
            response.headers["X-Searched-Since"] = query.rfc3339(found.searched_since)
        return response

    @operation("getMessage", "mail", errors=(404,))
    async def message(self, request: web.Request) -> Json[documents.Message]:
        """One message with its time line, and a verdict in words."""
        found = await self._backend.store.get(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text="no such message")
        return await json_response(cast("documents.Message", verdict.added(found)))

    @operation("getReport", "mail")
    async def report(
        self, request: Annotated[web.Request, Query(documents.ReportParameters)]
    ) -> Json[documents.Report]:
        """What became of finished mail, by lane, upstream and mailbox provider."""
        given = parameters(request)
        begin = query.parse_since(given.pop("since", "24h"), self._backend.clock())
        if given:
            raise query.BadQuery(f"unknown parameter {next(iter(given))!r}; known is since")
        objectives = self._backend.objectives()
        within_s = {lane: one.within_s for lane, one in objectives.items()}
        rows = await self._backend.store.deliveries(begin, within_s)
        reported = await self._backend.store.reported(begin)

        def body() -> bytes:
            built = report.build(with_pauses(rows), with_pauses(reported), objectives)
            return encode_json({"since": query.rfc3339(begin), **built.as_json()})

        return json_body(await asyncio.to_thread(body))

    @operation("getQueue", "queue")
    async def queue(self, request: Annotated[web.Request, Query(documents.MessageFilters)]) -> Json[documents.Queue]:
        """The queue's size and counts, and what waits in it."""
        now = self._backend.clock()
        selection = await self._selection(request)
        counts = await self._backend.store.counts()
        waiting = [] if selection is None else await self._backend.store.waiting(selection)
        return await json_response(
            {
                "fill": cast("documents.QueueFill", self._backend.health.queue().as_json()),
                "lanes": [lane_count(row, now) for row in counts],
                "messages": cast("list[documents.WaitingMessage]", list(waiting)),
            }
        )

    @operation("listEvents", "mail")
    async def events(
        self, request: Annotated[web.Request, Query(documents.EventFilters)]
    ) -> Json[list[documents.MailEvent]]:
        """What happened to mail, oldest first."""
        selection = query.event_selection(parameters(request), self._backend.clock())
        selection = selection._replace(limit=min(selection.limit, MAX_ROWS))
        found = await self._backend.events.search(selection)
        return await json_response(cast("list[documents.MailEvent]", list(found)))

    @operation("actOnQueue", "queue", errors=(404,))
    async def act(self, request: Annotated[web.Request, Body(documents.QueueAction)]) -> Json[documents.Acted]:
        """Retry, hold, release or drop messages. 404 also for a lane that doesn't exist."""
        action = request.match_info["action"]
        if action not in query.ACTIONS:
            raise web.HTTPNotFound(text=f"no such action; known are {', '.join(query.ACTIONS)}")
        body = await read_json(request, MAX_BODY_BYTES)
        selection = query.action_selection(body, action)
        changed = list(await self._backend.controller.act(action, selection))
        if selection.lane is not None and not changed:
            await self._check_lane(selection.lane)
        counts = await self._backend.store.counts() if action == "retry" else ()
        document: documents.Acted = {"changed": changed}
        if selection.ids:
            document["unknown"] = [
                one for one in query.unchanged_ids(selection, changed) if await self._backend.store.get(one) is None
            ]
        if (left := query.ambiguous_left(action, selection, counts)) is not None:
            document["left"] = left
        return await json_response(document)

    async def _check_lane(self, lane: str) -> None:
        """Raises HTTP 404 for a lane that is neither configured nor has mail."""
        known = self._backend.health.lanes()
        if lane not in known and all(row.lane != lane for row in await self._backend.store.counts()):
            raise web.HTTPNotFound(text=f"there is no lane {lane}; there are {', '.join(known)}")

    async def _selection(self, request: web.Request) -> Selection | None:
        """The request's filters. The number of rows is bounded, since long listings delay codes. None: nothing."""
        asked = query.listing(parameters(request), self._backend.clock())
        selection: Selection | None = asked.selection
        if asked.id_begins is not None:
            selection = asked.by_ids(await self._backend.store.ids_that_begin(asked.id_begins, MAX_ROWS))
        return None if selection is None else selection._replace(limit=min(selection.limit, MAX_ROWS))
