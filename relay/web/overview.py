"""What the relay is doing: lanes live, upstreams, limits hit, and the configuration in force."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, cast

import yaml
from aiohttp import web

from relay import __version__
from relay.store.model import LaneCount
from relay.web import query
from relay.web.backend import Backend, LaneHealth
from relay.web.connections import Connection
from relay.web.operation import operation
from relay.web.responses import Json, json_response, small_json

if TYPE_CHECKING:
    from relay.web import documents

LIVE_WINDOW_S = 300.0
_SENDING = ("up", "untried")
"""states of an upstream that mail is sent to"""


class Overview:
    """The handlers, by their `routes`."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/api/live", self.live),
            web.get("/api/upstreams", self.upstreams),
            web.get("/api/limits", self.limits),
            web.get("/api/config", self.configuration),
            web.get("/api/access", self.access),
        ]

    @operation("getLive", "relay")
    async def live(self, _: web.Request) -> Json[documents.Live]:
        """What the console shows: lanes in the last minutes, their queues and upstreams."""
        return await json_response(await self.live_document())

    async def live_document(self) -> documents.Live:
        """What the console and the demo show: from memory, except for the queue's counts."""
        backend = self._backend
        now, in_force = backend.clock(), backend.in_force
        uptime_s = max(0.0, now - in_force.started_at)
        window_s = min(LIVE_WINDOW_S, uptime_s)  # what was sent before the start isn't known here
        counts = await backend.store.counts()
        express = in_force.express()
        lanes: dict[str, documents.LiveLane] = {
            lane: {
                "express": lane in express,
                "can_send": can_send(health),
                **cast("documents.Pace", backend.recent.pace(lane, now - window_s).as_json()),
                **_queue([row for row in counts if row.lane == lane], now),
                "upstreams": upstreams_json(health, with_replies=True),
            }
            for lane, health in backend.health.lanes().items()
        }
        return {
            "now": query.rfc3339(now),
            "version": __version__,
            "started_at": query.rfc3339(in_force.started_at),
            "uptime_ms": uptime_s * 1000,
            "window_ms": window_s * 1000,
            "reasons": list(backend.health.reasons()),
            "lanes": lanes,
        }

    @operation("listUpstreams", "relay")
    async def upstreams(self, _: web.Request) -> Json[list[documents.Upstream]]:
        """Each upstream, with its state in each lane and the replies since the start."""
        replies: dict[str, dict[str, int]] = defaultdict(dict)
        for labels, count in await self._totals("relay_upstream_replies"):
            replies[labels["upstream"]][labels["code"]] = count
        lanes: dict[str, dict[str, documents.UpstreamInLane]] = defaultdict(dict)
        up: dict[str, bool] = {}
        for lane, health in self._backend.health.lanes().items():
            for name, shown in upstreams_json(health, with_replies=True).items():
                lanes[name][lane] = shown
                up[name] = up.get(name, True) and health[name].state in _SENDING
        document: list[documents.Upstream] = [
            {
                "name": name,
                "up": up.get(name, True),
                **cast("documents.ConfiguredUpstream", facts._asdict()),
                "lanes": lanes[name],
                "replies": replies[name],
            }
            for name, facts in self._backend.in_force.upstreams().items()
        ]
        return await json_response(document)

    @operation("listLimitHits", "relay")
    async def limits(self, _: web.Request) -> Json[list[documents.LimitHits]]:
        """How often each limit was hit since the start."""
        found = await self._totals("relay_limited")
        return await json_response([cast("documents.LimitHits", {**labels, "count": count}) for labels, count in found])

    @operation("getConfiguration", "relay")
    async def configuration(self, _: web.Request) -> Json[documents.Configuration]:
        """The configuration in force, without secrets, and how the last reload ended."""
        in_force = self._backend.in_force
        reload = in_force.last_reload
        text = yaml.safe_dump(in_force.outline(), sort_keys=False, allow_unicode=True, width=100)
        last: documents.LastReload | None = None
        if reload is not None:
            last = {"at": query.rfc3339(reload.at), "ok": reload.ok, "reason": reload.reason}
        document: documents.Configuration = {
            "path": in_force.path,
            "loaded_at": query.rfc3339(in_force.loaded_at),
            "last_reload": last,
            "yaml": text,
        }
        return await json_response(document)

    @operation("getAccess", "relay")
    async def access(self, request: web.Request) -> Json[documents.Access]:
        """What this client may do."""
        connection = request.protocol
        assert isinstance(connection, Connection), "made by the server"
        return small_json({"access": "full" if connection.may_change else "read"})

    async def _totals(self, family: str) -> Sequence[tuple[Mapping[str, str], int]]:
        """A counter's values by their labels, over all processes."""
        others = await self._backend.health.worker_metrics()
        totals: Counter[tuple[tuple[str, str], ...]] = Counter()
        for each in (*self._backend.metrics.numbers(), *others):
            if each.name == family:
                totals.update({labels: int(value) for _, labels, value in each.samples})
        return [(dict(labels), count) for labels, count in totals.items()]


def can_send(lane: LaneHealth) -> bool:
    """Some upstream of the lane takes mail."""
    return any(health.state in _SENDING for health in lane.values())


def upstreams_json(lane: LaneHealth, *, with_replies: bool = False) -> dict[str, documents.UpstreamInLane]:
    """`with_replies`: include the upstreams' last replies, which are for the operator only."""
    return {name: health.as_json(with_reply=with_replies) for name, health in lane.items()}


def lane_count(row: LaneCount, now: float) -> documents.QueueCount:
    """A row of the queue's counts."""
    return {"lane": row.lane, "state": row.state, "recipients": row.recipients, "oldest_ms": _age_ms(row, now)}


def _queue(rows: Sequence[LaneCount], now: float) -> documents.LaneQueue:
    ages_ms = [age for age in (_age_ms(row, now) for row in rows) if age is not None]
    return {"queue": {row.state: row.recipients for row in rows}, "oldest_ms": max(ages_ms, default=None)}


def _age_ms(row: LaneCount, now: float) -> float | None:
    return None if row.oldest_at is None else max(0.0, now - row.oldest_at) * 1000
