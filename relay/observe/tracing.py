"""What happens to messages, as records for the tracing process, which makes spans of them (`relay.tracing`).

A record is a `Head` and items. It has ids, names of the configuration, codes, counts, sizes and times; never an
address, a subject, a reply's text or content. Nothing waits for it: it goes into a bounded list, from there in packets
to a socket that all processes of the relay share, and is counted as dropped where there is no room.
"""

from __future__ import annotations

import asyncio
import json
import select
import socket
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from relay.mail import traceparent
from relay.observe.trace_ids import Sampling, trace_of

MOST_WAITING = 5_000
"""records"""
PACKET_RECORDS = 8
"""what is written as JSON at once, in less than a tenth of a millisecond"""
SEND_AFTER_S = 0.05
AGAIN_AFTER_S = 0.1
"""a full socket"""
LAST_WITHIN_S = 0.3
"""at the end, for the socket to take the rest"""

Attributes = Mapping[str, str | int | float | bool | None]
"""None: left out"""
Item = list[Any]


class Head(NamedTuple):
    """The message that a record is about."""

    id: str
    trace: str | None
    """the app's traceparent"""
    accepted_at: float
    """the final dot, in seconds since the epoch by the machine's time of day; 0: neither this nor `trace` is known"""
    recipients: int
    """of the message; 0: not known"""


def wall(monotonic: float) -> float:
    """The machine's time of day at a recent moment of time.monotonic: by that the spans of other programs are timed."""
    return time.time() + (monotonic - time.monotonic())


def root(start: float, attributes: Attributes, linked: Sequence[str | None] = ()) -> Item:
    """The message's own span begins. `linked`: id and traceparent of a message that it comes from."""
    return ["root", start, _given(attributes), list(linked)]


def span(name: str, start: float, end: float) -> Item:
    """A step on the message's way. Times are seconds since the epoch, as in all items."""
    return ["span", name, start, end]


def attempt(
    upstream: str, start: float, phases_ms: Mapping[str, float], attributes: Attributes, *, failed: bool
) -> Item:
    """An attempt at an upstream, whose phases follow each other."""
    return ["attempt", upstream, start, list(phases_ms.items()), _given(attributes), failed]


def event(name: str, at: float, attributes: Attributes, *, ended: int = 0) -> Item:
    """Something happened to the message. `ended`: so many of its recipients ended by it."""
    return ["event", name, at, _given(attributes), ended]


class Tracing:
    """One process's end. It belongs to the event loop."""

    def __init__(self, link: socket.socket, sampling: Sampling) -> None:
        """`link`: the end of a SEQPACKET pair that records are written to; it is the object's own."""
        link.setblocking(False)
        self._link = link
        self._sampling = sampling
        self._waiting: deque[tuple[Head, Sequence[Item]]] = deque()
        self._dropped = 0
        self._is_sending = False

    def records(self, message_id: str, trace: str | None) -> bool:
        """Whether the message's trace is recorded: else nothing of it need be noted."""
        return self._sampling.records(message_id, trace)

    def note(self, head: Head, items: Sequence[Item]) -> None:
        """Returns at once."""
        if len(self._waiting) >= MOST_WAITING:
            self._dropped += 1
            return
        self._waiting.append((head, items))
        if not self._is_sending:
            self._is_sending = True
            asyncio.get_running_loop().call_later(SEND_AFTER_S, self._send)

    def close(self) -> None:
        """Write what waits, for a short time."""
        ends_at = time.monotonic() + LAST_WITHIN_S
        while self._waiting and (left_s := ends_at - time.monotonic()) > 0:
            if not self._write_packet():
                select.select([], [self._link], [], left_s)
        self._waiting.clear()
        self._link.close()

    def _send(self) -> None:
        if self._link.fileno() < 0:
            return
        after_s = 0.0 if self._write_packet() else AGAIN_AFTER_S
        self._is_sending = bool(self._waiting)
        if self._is_sending:
            asyncio.get_running_loop().call_later(after_s, self._send)

    def _write_packet(self) -> bool:
        """False: the socket is full."""
        records = [self._waiting.popleft() for _ in range(min(PACKET_RECORDS, len(self._waiting)))]
        try:
            self._link.send(json.dumps([self._dropped, records], separators=(",", ":")).encode())
        except BlockingIOError:
            self._waiting.extendleft(reversed(records))
            return False
        except OSError:  # too large for the socket, or nothing will ever read it
            self._dropped += len(records)
        else:
            self._dropped = 0
        return True


def exemplar_of(tracing: Tracing | None, message_id: str, trace: str | None) -> dict[str, str] | None:
    """What points from an observation of a histogram to the message's trace; None: it isn't recorded. Without tracing
    of the relay's own, the app's trace is."""
    if tracing is not None:
        is_recorded = tracing.records(message_id, trace)
    else:
        is_recorded = trace is not None and traceparent.is_sampled(trace)
    return {"trace_id": trace_of(message_id, trace)} if is_recorded else None


def _given(attributes: Attributes) -> dict[str, str | int | float | bool]:
    return {name: value for name, value in attributes.items() if value is not None}
