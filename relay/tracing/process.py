"""The tracing process: reads records, makes spans, tells the main process what became of them."""

from __future__ import annotations

import contextlib
import json
import logging
import select
import socket
import sys
import time

from relay.logfmt import logfmt
from relay.observe import log_output
from relay.observe.log_output import LogOptions
from relay.tracing import messages
from relay.tracing.export import Way, quiet
from relay.tracing.spans import Spans

PACKET_BYTES = 1 << 20
REPORT_EVERY_S = 1.0
FULL_FOR_S = 0.05
"""how long it waits before it looks again whether spans have left"""
DRAIN_SHARE = 0.25
"""of the time that a stop gives, for the records that are still in the socket"""
ORPHANED_S = 1.0
"""how long it goes on after the main process was lost"""
_LOG = logging.getLogger("relay.tracing")


class TracingProcess:
    """`serve` until the main process says stop, or is gone."""

    def __init__(self, link: socket.socket, records: socket.socket, way: Way, began_at: float) -> None:
        """`began_at`: see `Spans`."""
        self._link = link
        self._records = records
        self._way = way
        self._spans = Spans(way, began_at)
        self._dropped = 0
        self._unreadable = False

    def serve(self) -> None:
        for each in (self._link, self._records):
            each.setblocking(False)
        within_s = self._run()
        ends_at = time.monotonic() + within_s
        while time.monotonic() < ends_at - within_s * (1.0 - DRAIN_SHARE) and self._read_packet():
            pass
        self._spans.finish()
        self._way.finish(max(0.0, ends_at - time.monotonic()))
        self._report()

    def _run(self) -> float:
        """Returns how long the end may take, in seconds."""
        report_at = time.monotonic() + REPORT_EVERY_S
        while True:
            is_full = self._way.is_full
            waited = [self._link] if is_full else [self._link, self._records]
            ready, _, _ = select.select(waited, [], [], FULL_FOR_S if is_full else REPORT_EVERY_S)
            if self._link in ready:
                try:
                    packet = self._link.recv(messages.MOST_BYTES)
                except OSError:
                    packet = b""
                if not packet:
                    return ORPHANED_S
                if (within_s := messages.read_stop(packet)) is not None:
                    return within_s
            if self._records in ready:
                self._read_packet()
            now = time.monotonic()
            if now >= report_at:
                report_at = now + REPORT_EVERY_S
                self._spans.forget(now)
                self._report()

    def _read_packet(self) -> bool:
        """False: there is none."""
        try:
            packet = self._records.recv(PACKET_BYTES)
        except OSError:
            return False
        if not packet:
            return False
        try:
            dropped, records = json.loads(packet)
            self._dropped += max(0, int(dropped))
            for record in records:
                self._spans.add(record, time.monotonic())
        except (ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
            self._dropped += 1
            if not self._unreadable:
                self._unreadable = True
                _LOG.warning(logfmt("trace_unreadable", error=type(error).__name__))
        return True

    def _report(self) -> None:
        exported, failed = self._way.counted.take()
        counts = {"exported": exported, "failed": failed, "dropped": self._dropped}
        if any(counts.values()):
            self._dropped = 0
            with contextlib.suppress(OSError):
                self._link.send(messages.counts_packet(counts))


def run(link: socket.socket, records: socket.socket, log: LogOptions, began_at: float) -> None:
    """Serve. `began_at`: see `Spans`."""
    log_output.configure(sys.stderr, log)
    quiet()
    try:
        TracingProcess(link, records, Way(), began_at).serve()
    finally:
        log_output.close()
