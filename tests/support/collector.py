"""A collector of traces for tests: OTLP over HTTP, read by OpenTelemetry's own protobuf types.

async with Collector() as collector:
    async with RelayProcess(config, collector.environment) as relay:
        ...
    spans = await collector.trace(trace_id, "relay.message")
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span as Sent

WITHIN_S = 15.0


class Event(NamedTuple):
    name: str
    at_s: float
    attributes: Mapping[str, Any]


class Span(NamedTuple):
    """As it came; ids are hexadecimal, times seconds since the epoch."""

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    start_s: float
    end_s: float
    attributes: Mapping[str, Any]
    events: tuple[Event, ...]
    links: tuple[tuple[str, str], ...]
    """trace and span"""
    is_error: bool


class Collector:
    """`hangs`: it takes requests and never answers. `status`: of its answers."""

    def __init__(self, *, hangs: bool = False, status: int = 200) -> None:
        self.hangs = hangs
        self.status = status
        self.bodies: list[bytes] = []
        self.headers: list[Mapping[str, str]] = []
        self.spans: list[Span] = []
        self.resources: list[Mapping[str, Any]] = []
        self.url = ""
        self._changed = asyncio.Event()
        self._end = asyncio.Event()

    @property
    def environment(self) -> dict[str, str]:
        """For a relay that exports to it at once."""
        return {"OTEL_EXPORTER_OTLP_ENDPOINT": self.url, "OTEL_BSP_SCHEDULE_DELAY": "50"}

    async def __aenter__(self) -> Self:
        served = web.Application(client_max_size=1 << 26)
        served.add_routes([web.post("/v1/traces", self._take)])
        self._runner = web.AppRunner(served, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        await self._runner.cleanup()

    async def until(self, holds: Callable[[], bool]) -> None:
        try:
            async with asyncio.timeout(WITHIN_S):
                while not holds():
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            raise AssertionError(
                f"not within {WITHIN_S} s: {[(one.trace_id, one.name) for one in self.spans]}"
            ) from None

    async def trace(self, trace_id: str, *names: str) -> list[Span]:
        """The spans of a trace, by their start, once it has spans of these names."""
        await self.until(lambda: {*names} <= {one.name for one in self.spans if one.trace_id == trace_id})
        return sorted((one for one in self.spans if one.trace_id == trace_id), key=lambda one: one.start_s)

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.headers.get("Content-Encoding") == "gzip" and body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        self.bodies.append(body)
        self.headers.append(dict(request.headers))
        self._changed.set()
        if self.hangs:
            await self._end.wait()
        if self.status == 200:
            self.spans += self._read(body)
        self._changed.set()
        answer = ExportTraceServiceResponse().SerializeToString()
        return web.Response(status=self.status, body=answer, content_type="application/x-protobuf")

    def _read(self, body: bytes) -> Iterator[Span]:
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            self.resources.append(_values(resource.resource.attributes))
            for scope in resource.scope_spans:
                yield from map(_span, scope.spans)


def _span(sent: Sent) -> Span:
    return Span(
        sent.trace_id.hex(),
        sent.span_id.hex(),
        sent.parent_span_id.hex(),
        sent.name,
        Sent.SpanKind.Name(sent.kind).removeprefix("SPAN_KIND_"),
        sent.start_time_unix_nano / 1e9,
        sent.end_time_unix_nano / 1e9,
        _values(sent.attributes),
        tuple(Event(one.name, one.time_unix_nano / 1e9, _values(one.attributes)) for one in sent.events),
        tuple((one.trace_id.hex(), one.span_id.hex()) for one in sent.links),
        sent.status.code == 2,
    )


def _values(attributes: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
