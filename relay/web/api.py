"""The JSON answers and the metrics: each reads what it needs from the parts and says it."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from relay.observe import report
from relay.store.base import StoreError
from relay.store.model import LaneCount, Selection
from relay.web import query, webhooks
from relay.web.answers import answer, encoded, rested
from relay.web.parts import LaneHealth, Parts, snapshot

ANSWER_WITHIN_S = 20.0
MAX_BODY_BYTES = 1_000_000
LIVE_WINDOW_S = 300.0
MOST_ROWS = 1_000


class Api:
    """The handlers; `routes` names them."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/metrics", self.metrics),
            web.get("/healthz", self.healthz),
            web.get("/readyz", self.readyz),
            web.get("/api/messages", self.messages),
            web.get("/api/messages/{id}", self.message),
            web.get("/api/report", self.report),
            web.get("/api/queue", self.queue),
            web.get("/api/live", self.live),
            web.post("/api/queue/{action}", self.act),
            *webhooks.routes(self._parts.webhooks),
        ]

    async def metrics(self, request: web.Request) -> web.Response:
        counts: list[LaneCount] | None
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                counts = list(await self._parts.store.counts())
        except (StoreError, TimeoutError):
            counts = None  # a store in trouble must not hide the other metrics
        body, content_type = self._parts.metrics.render(
            snapshot(self._parts, counts), request.headers.get("Accept", ""), await self._parts.health.others()
        )
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def healthz(self, _: web.Request) -> web.Response:
        return web.json_response({"healthy": True})

    async def readyz(self, _: web.Request) -> web.Response:
        reasons = list(self._parts.health.reasons())
        lanes = {lane: _upstreams(health) for lane, health in self._parts.health.lanes().items()}
        document = {
            "ready": not reasons,
            "reasons": reasons,
            "queue": self._parts.health.queue().as_json(),
            "intake": self._parts.health.intake().as_json(),
            "lanes": lanes,
        }
        return web.json_response(document, status=503 if reasons else 200)

    async def messages(self, request: web.Request) -> web.Response:
        return await answer(list(await self._parts.store.search(self._listing(request))))

    async def message(self, request: web.Request) -> web.Response:
        found = await self._parts.store.get(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text="no such message")
        return await answer(found)

    async def report(self, request: web.Request) -> web.Response:
        given = _parameters(request)
        begin = query.since(given.pop("since", "24h"), self._parts.clock())
        if given:
            raise query.BadQuery(f"unknown parameter {next(iter(given))!r}; known is since")
        rows = await self._parts.store.deliveries(begin)

        def body() -> bytes:
            return encoded({"since": query.rfc3339(begin), **report.build(rested(rows)).as_json()})

        return web.Response(body=await asyncio.to_thread(body), content_type="application/json", charset="utf-8")

    async def queue(self, request: web.Request) -> web.Response:
        now = self._parts.clock()
        selection = self._listing(request)
        counts = await self._parts.store.counts()
        waiting = await self._parts.store.waiting(selection)
        return await answer(
            {
                "fill": self._parts.health.queue().as_json(),
                "lanes": [_count(row, now) for row in counts],
                "messages": list(waiting),
            }
        )

    async def live(self, _: web.Request) -> web.Response:
        """What the console shows, from memory but for the queue's counts."""
        now = self._parts.clock()
        counts = await self._parts.store.counts()
        lanes = {
            lane: {
                **self._parts.recent.pace(lane, now - LIVE_WINDOW_S).as_json(),
                "queue": {row.state: row.recipients for row in counts if row.lane == lane},
                **_upstreams(health, words=True),
            }
            for lane, health in self._parts.health.lanes().items()
        }
        reasons = list(self._parts.health.reasons())
        return await answer(
            {"now": query.rfc3339(now), "window_ms": LIVE_WINDOW_S * 1000, "reasons": reasons, "lanes": lanes}
        )

    async def act(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        if action not in query.ACTIONS:
            raise web.HTTPNotFound(text=f"no such action; known are {', '.join(query.ACTIONS)}")
        try:
            body = json.loads(await webhooks.body_of(request, MAX_BODY_BYTES))
        except (ValueError, RecursionError):
            raise query.BadQuery("the body is not JSON") from None
        selection = query.target(body, action)
        changed = list(await self._parts.controller.act(action, selection))
        document: dict[str, object] = {"changed": changed}
        if selection.ids:
            document["unknown"] = [
                one for one in query.unchanged(selection, changed) if await self._parts.store.get(one) is None
            ]
        if query.leaves_ambiguous(action, selection):
            document["left"] = query.left(await self._parts.store.counts(), selection)
        return await answer(document)

    def _listing(self, request: web.Request) -> Selection:
        """As the request asks, but no more rows than are good for the codes beside it."""
        selection = query.listing(_parameters(request), self._parts.clock())
        return selection._replace(limit=min(selection.limit, MOST_ROWS))


def _parameters(request: web.Request) -> dict[str, str]:
    given = dict(request.query)
    if len(given) != len(request.query):
        raise query.BadQuery("a parameter was given twice")
    return given


def _upstreams(lane: LaneHealth, *, words: bool = False) -> dict[str, object]:
    """`words`: with what the upstreams said, which is for the operator only."""
    return {"upstreams": {name: health.as_json(words=words) for name, health in lane.items()}}


def _count(row: LaneCount, now: float) -> dict[str, object]:
    oldest_ms = None if row.oldest_at is None else max(0.0, now - row.oldest_at) * 1000
    return {"lane": row.lane, "state": row.state, "recipients": row.recipients, "oldest_ms": oldest_ms}
