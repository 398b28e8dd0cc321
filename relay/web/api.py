"""The JSON answers and the metrics: each reads what it needs from the parts and says it."""

from __future__ import annotations

import asyncio
import json

from aiohttp import web

from relay.observe import report
from relay.store.base import LaneCount, StoreError
from relay.web import query
from relay.web.parts import Parts, snapshot

ANSWER_WITHIN_S = 20.0
LIVE_WINDOW_S = 300.0


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
            web.post("/webhooks/{upstream}", self.webhook),
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
        lanes = {
            lane: {"upstreams": {name: health.as_json() for name, health in upstreams.items()}}
            for lane, upstreams in self._parts.health.lanes().items()
        }
        answer = {
            "ready": not reasons,
            "reasons": reasons,
            "queue": self._parts.health.queue().as_json(),
            "intake": self._parts.health.intake().as_json(),
            "lanes": lanes,
        }
        return web.json_response(answer, status=503 if reasons else 200)

    async def messages(self, request: web.Request) -> web.Response:
        selection = query.listing(_parameters(request), self._parts.clock())
        return web.json_response(list(await self._parts.store.search(selection)))

    async def message(self, request: web.Request) -> web.Response:
        found = await self._parts.store.get(request.match_info["id"])
        if found is None:
            raise web.HTTPNotFound(text="no such message")
        return web.json_response(found)

    async def report(self, request: web.Request) -> web.Response:
        given = _parameters(request)
        begin = query.since(given.pop("since", "24h"), self._parts.clock())
        if given:
            raise query.BadQuery(f"unknown parameter {next(iter(given))!r}; known is since")
        rows = await self._parts.store.deliveries(begin)
        built = await asyncio.to_thread(report.build, rows)  # a day's rows would hold the loop
        return web.json_response({"since": query.rfc3339(begin), **built.as_json()})

    async def queue(self, request: web.Request) -> web.Response:
        now = self._parts.clock()
        selection = query.listing(_parameters(request), now)
        counts = await self._parts.store.counts()
        waiting = await self._parts.store.waiting(selection)
        answer = {
            "fill": self._parts.health.queue().as_json(),
            "lanes": [_count(row, now) for row in counts],
            "messages": list(waiting),
        }
        return web.json_response(answer)

    async def live(self, _: web.Request) -> web.Response:
        """What the console shows, from memory but for the queue's counts."""
        now = self._parts.clock()
        counts = await self._parts.store.counts()
        lanes = {
            lane: {
                **self._parts.recent.pace(lane, now - LIVE_WINDOW_S).as_json(),
                "queue": {row.state: row.recipients for row in counts if row.lane == lane},
                "upstreams": {name: health.as_json() for name, health in upstreams.items()},
            }
            for lane, upstreams in self._parts.health.lanes().items()
        }
        reasons = list(self._parts.health.reasons())
        return web.json_response(
            {"now": query.rfc3339(now), "window_ms": LIVE_WINDOW_S * 1000, "reasons": reasons, "lanes": lanes}
        )

    async def act(self, request: web.Request) -> web.Response:
        action = request.match_info["action"]
        if action not in query.ACTIONS:
            raise web.HTTPNotFound(text=f"no such action; known are {', '.join(query.ACTIONS)}")
        try:
            body = json.loads(await request.text())
        except (ValueError, RecursionError):
            raise query.BadQuery("the body is not JSON") from None
        changed = await self._parts.controller.act(action, query.target(body))
        return web.json_response({"changed": list(changed)})

    async def webhook(self, _: web.Request) -> web.Response:
        return web.json_response({"error": "delivery events are not taken yet"}, status=501)


def _parameters(request: web.Request) -> dict[str, str]:
    given = dict(request.query)
    if len(given) != len(request.query):
        raise query.BadQuery("a parameter was given twice")
    return given


def _count(row: LaneCount, now: float) -> dict[str, object]:
    oldest_ms = None if row.oldest_at is None else max(0.0, now - row.oldest_at) * 1000
    return {"lane": row.lane, "state": row.state, "recipients": row.recipients, "oldest_ms": oldest_ms}
