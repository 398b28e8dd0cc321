"""Tracing as the main process has it: whether the environment asks for it, and the process that makes the spans.

Records of all processes go through one pair of sockets, which is made before anything is forked. Its reading end stays
open here, so that a tracing process that is started again goes on with what waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple, Self

from relay.logfmt import LongText, logfmt
from relay.observe import log_output
from relay.observe.maillog import MailLog
from relay.observe.trace_ids import Sampling
from relay.observe.tracing import Tracing
from relay.service import child
from relay.supervise import Supervisor
from relay.tracing import messages

ENTRY = "relay.tracing.entry"
EXTRA = "otp-relay[otel]"
STOP_WITHIN_S = 3.0
"""for the last spans to leave, at most"""
LEAST_S = 0.5
"""for that, where a drain has used up `shutdown`"""
BUFFER_BYTES = 1 << 20
_NEEDED = ("sdk/trace", "exporter/otlp/proto/http/trace_exporter")
"""below `opentelemetry`"""
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
_PROTOCOL = "http/protobuf"
_PASSED_ON = frozenset({"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"})
"""variables that the way to a collector heeds, beside OTEL_*; in lower case, too"""
_SAMPLERS = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG")
_LOG = logging.getLogger("relay")


class TracingEnded(Exception):
    """The tracing process ended."""


class Answer(NamedTuple):
    """What the environment says about tracing."""

    is_on: bool
    warning: str | None = None
    """it asks for tracing, and there is none: why"""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Self:
        """Imports nothing of OpenTelemetry."""
        if not _is_asked_for(environ):
            return cls(is_on=False)
        exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
        if exporter != "otlp":
            return cls(is_on=False, warning=f"OTEL_TRACES_EXPORTER may be otlp or none, not {exporter!r}")
        protocol = _first(environ, _PROTOCOLS) or _PROTOCOL
        if protocol != _PROTOCOL:
            return cls(is_on=False, warning=f"OTEL_EXPORTER_OTLP_PROTOCOL may be {_PROTOCOL}, not {protocol!r}")
        if not _is_installed():
            return cls(is_on=False, warning=f"OTEL_* asks for traces, which take the extra: pip install '{EXTRA}'")
        return cls(is_on=True)


def _is_asked_for(environ: Mapping[str, str]) -> bool:
    exporter = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true" or exporter == "none":
        return False
    return bool(exporter or _first(environ, _ENDPOINTS))


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((value for name in names if (value := environ.get(name, "").strip())), "")


def _is_installed() -> bool:
    found = find_spec("opentelemetry")  # a namespace: what it has isn't imported to find it
    places = [] if found is None else found.submodule_search_locations or []
    return all(any(Path(place, one).is_dir() for place in places) for one in _NEEDED)


class Sockets(NamedTuple):
    """The pair that records go through."""

    write: socket.socket
    read: socket.socket

    @classmethod
    def if_on(cls, environ: Mapping[str, str]) -> Self | None:
        """None: tracing is off."""
        if not Answer.of(environ).is_on:
            return None
        write, read = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        return cls(write, read)

    def tracing(self, environ: Mapping[str, str]) -> Tracing:
        """This process's way in."""
        return Tracing(self.write.dup(), Sampling.of(environ))


def sampler_variables() -> dict[str, str]:
    """For a process that notes records, and gets an environment of its own."""
    return {name: os.environ[name] for name in _SAMPLERS if name in os.environ}


class TracingService:
    """`start` and `stop` the process, where tracing is on."""

    def __init__(self, sockets: Sockets | None, log: MailLog, supervisor: Supervisor) -> None:
        self._sockets = sockets
        self._log = log
        self._supervisor = supervisor
        self._task: asyncio.Task[None] | None = None
        self._link: socket.socket | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._stopping = False
        self._began_at = time.time()

    def start(self) -> None:
        """Returns at once. Says in the log why there is no tracing where it was asked for."""
        if (warning := Answer.of(os.environ).warning) is not None:
            _LOG.warning(logfmt("no_traces", reason=LongText(warning)))
        if self._sockets is not None:
            self._log.tracing = self._sockets.tracing(os.environ)
            for result in messages.RESULTS:  # an alert waits for an increase, and begins at 0
                _ = self._log.metrics.trace_spans[(result,)]
            self._task = self._supervisor.run_forever("tracing", self._live)

    async def stop(self, within_s: float) -> None:
        """Let the last spans leave, in that time or STOP_WITHIN_S."""
        tracing, self._log.tracing = self._log.tracing, None
        if tracing is not None:
            tracing.close()
        if self._task is None or self._sockets is None:
            return
        self._stopping, within_s = True, max(LEAST_S, min(STOP_WITHIN_S, within_s))
        if self._link is not None and self._process is not None:
            with contextlib.suppress(OSError):
                self._link.send(messages.stop_packet(within_s))
                await child.ended_within(self._process, within_s + LEAST_S)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        self._task = None
        for each in self._sockets:
            each.close()

    async def _live(self) -> None:
        """One life of the process. Raises TracingEnded."""
        assert self._sockets is not None
        loop = asyncio.get_running_loop()
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        link.setblocking(False)
        log = log_output.options().word
        began_at, self._began_at = self._began_at, time.time()
        with link:
            read = self._sockets.read
            self._process = process = await child.start(
                *(ENTRY, theirs, log, str(began_at)), sockets=[read], variables=_variables()
            )
            try:
                self._link = link
                loop.add_reader(link.fileno(), self._read, link)
                await process.wait()
                self._began_at = time.time()
                if self._stopping:
                    await asyncio.Event().wait()  # until `stop` cancels this
                raise TracingEnded
            finally:
                self._link = None
                loop.remove_reader(link.fileno())
                link.close()
                await child.end(process, LEAST_S)

    def _read(self, link: socket.socket) -> None:
        try:
            while packet := link.recv(messages.MOST_BYTES):
                for result, count in messages.read_counts(packet).items():
                    self._log.metrics.trace_spans[(result,)].inc(count)
        except BlockingIOError:
            return
        except OSError as error:
            self._log.trouble("tracing", error)
        # Nothing more will come. The end of the process is noticed where it is awaited.
        asyncio.get_running_loop().remove_reader(link.fileno())


def _variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_") or name.upper() in _PASSED_ON}
