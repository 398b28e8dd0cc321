"""The time that a code takes on its way to an upstream: by what the upstream offers and how far away it is. Pure.

A kept session costs the round trips of one transaction. A new one is opened before that, which the doctor has just
done and measured. What the upstream itself needs for the content can't be measured without a mail.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.config.model import Config
from relay.doctor.finding import About, Finding
from relay.doctor.wording import counted, span, took
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.transaction import EnvelopeMode


class Pace(NamedTuple):
    """What was measured at one upstream."""

    round_trips: int
    """of a code over a kept session"""
    round_trip_ms: float
    opening_ms: float
    """of a new session: connection, TLS and login"""

    @property
    def kept_ms(self) -> float:
        return self.round_trips * self.round_trip_ms

    @property
    def new_ms(self) -> float:
        return self.opening_ms + self.kept_ms


def round_trips(mode: EnvelopeMode) -> int:
    """Of a transaction with one recipient, from its first byte to the reply to its final dot."""
    if mode.chunked:
        return 1
    return 2 if mode.pipelined else 4


def of_smtp(mode: EnvelopeMode, round_trip_ms: float, opening: Opening) -> Pace:
    """`round_trip_ms`: of a command and its reply."""
    return Pace(round_trips(mode), round_trip_ms, opening.connect + opening.tls + opening.auth)


def of_api(opening: Opening, *, secured: bool) -> Pace:
    """By HTTP a code is one request. Connecting and TLS each take at least one round trip: the quicker is near it."""
    round_trip_ms = min(opening.connect, opening.tls) if secured else opening.connect
    return Pace(1, round_trip_ms, opening.connect + opening.tls)


def finding(about: About, config: Config, pace: Pace, lanes: Sequence[str], *, api: bool, kept: bool) -> Finding:
    """What a code costs there. `lanes`: the express lanes that use the upstream. `kept`: they keep sessions open there,
    so that a code seldom needs a new one."""
    about = about.named("upstream-otp-time")
    kind = "connection" if api else "session"
    trips = f"{counted(pace.round_trips, 'round trip')} of {took(pace.round_trip_ms)}"
    text = (
        f"{'API: ' if api else ''}a code takes about {took(pace.kept_ms)} over a kept {kind} ({trips}), "
        f"{took(pace.new_ms)} over a new one; the upstream's own work comes on top"
    )
    usual_ms = pace.kept_ms if kept else pace.new_ms
    late = [
        f"{lane} ({span(objective.within_s)})"
        for lane in lanes
        if (objective := config.lanes[lane].objective) is not None and usual_ms > objective.within_s * 1000
    ]
    if not late:
        return about.ok(text)
    hint = "put a nearer upstream first in the lane, or raise objective.within"
    return about.warn(f"{text}; that is over the objective of lane {', '.join(late)}", hint)
