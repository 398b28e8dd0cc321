"""The way out of the tracing process: OpenTelemetry's SDK, as the OTEL_* variables configure it."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator

from relay import __version__
from relay.logfmt import logfmt

_LOG = logging.getLogger("relay.tracing")
REPEATED_AFTER_S = 60.0
"""a failure is logged once in this time"""
DEFAULT_QUEUE = 2_048
"""of the SDK's, in spans"""


class GivenIds(IdGenerator):
    """The ids of the next span that is made."""

    def __init__(self) -> None:
        self.trace_id = self.span_id = 0

    def generate_span_id(self) -> int:
        return self.span_id

    def generate_trace_id(self) -> int:
        return self.trace_id


class Counted(SpanExporter):
    """An exporter whose spans are counted, and whose failures are logged once a minute."""

    def __init__(self, exporter: SpanExporter, now: Callable[[], float] = time.monotonic) -> None:
        self._exporter = exporter
        self._now = now
        self._lock = threading.Lock()
        self._exported = self._failed = 0
        self._logged_at = -REPEATED_AFTER_S
        self._unlogged = 0
        self._is_failing = False
        self.done = 0
        """spans that it is through with"""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception as error:  # noqa: BLE001 - the SDK would print it with a traceback
            _LOG.debug(logfmt("trace_export", error=type(error).__name__))
            result = SpanExportResult.FAILURE
        succeeded = result is SpanExportResult.SUCCESS
        with self._lock:
            self.done += len(spans)
            if succeeded:
                self._exported += len(spans)
            else:
                self._failed += len(spans)
        self._log_result(len(spans), succeeded=succeeded)
        return result

    def take(self) -> tuple[int, int]:
        """Spans exported and failed since the last call."""
        with self._lock:
            taken = self._exported, self._failed
            self._exported = self._failed = 0
        return taken

    def shutdown(self) -> None:
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def _log_result(self, spans: int, *, succeeded: bool) -> None:
        if succeeded:
            if self._is_failing:
                _LOG.info(logfmt("trace_export_works"))
            self._is_failing, self._logged_at = False, -REPEATED_AFTER_S
            return
        self._is_failing = True
        self._unlogged += spans
        if self._now() - self._logged_at >= REPEATED_AFTER_S:
            _LOG.warning(logfmt("trace_export_failed", spans=self._unlogged))
            self._logged_at, self._unlogged = self._now(), 0


def quiet() -> None:
    """The SDK logs each failure, with the collector's URL and what it answered: `Counted` does instead."""
    sdk = logging.getLogger("opentelemetry")
    sdk.propagate = False
    sdk.addHandler(logging.NullHandler())


def resource() -> Resource:
    """The service, its version and what OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES say, which goes before."""
    own = Resource.create({"service.name": "otp-relay", "service.version": __version__})
    return own.merge(OTELResourceDetector().detect())


class Way:
    """The tracer, and how full the way to the collector is."""

    def __init__(self, exporter: SpanExporter | None = None) -> None:
        """`exporter` None: OTLP over HTTP, as the variables say."""
        self.ids = GivenIds()
        self.counted = Counted(exporter or OTLPSpanExporter())
        self._provider = TracerProvider(resource=resource(), id_generator=self.ids, shutdown_on_exit=False)
        self._provider.add_span_processor(BatchSpanProcessor(self.counted))
        self.tracer = self._provider.get_tracer("otp-relay", __version__)
        self.sampler = self._provider.sampler
        self.made = 0
        """spans given to it"""
        self._most_under_way = max(1, _queue_size() // 2)

    @property
    def is_full(self) -> bool:
        """More would be dropped by the SDK's queue, uncounted."""
        return self.made - self.counted.done >= self._most_under_way

    def finish(self, within_s: float) -> None:
        """Export what there is, for so long at most."""
        finishing = threading.Thread(target=self._provider.shutdown, name="last export", daemon=True)
        finishing.start()
        finishing.join(within_s)


def _queue_size() -> int:
    try:
        return int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE", ""))
    except ValueError:
        return DEFAULT_QUEUE
