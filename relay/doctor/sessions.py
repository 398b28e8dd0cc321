"""The sessions that an express lane keeps open at an upstream: by configuration, and in the relay that runs."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, Mapping
from typing import NamedTuple

from relay.config.model import Config, Sessions
from relay.delivery.fastest import Pace
from relay.store.base import StoreError
from relay.store.sqlite.files import holder
from relay.upstream.warm import AHEAD, Warm
from relay.web.client import NoResponse, NotListening, request

WITHIN_S = 2.0


class AtRelay(NamedTuple):
    """An upstream, as one lane of the running relay sees it."""

    state: str
    """see `GET /readyz`"""
    open: int
    """sessions that are open"""
    warm: Warm | None
    """what it keeps open; None: a bulk lane"""
    paces: Mapping[tuple[str, str], Pace]
    """by mailbox provider and end, in a lane that prefers the fastest"""


Running = Mapping[tuple[str, str], AtRelay]
"""By lane and upstream."""


class Configured(NamedTuple):
    """How many sessions the configuration keeps open, and why."""

    least: int
    most: int
    reason: str

    def __str__(self) -> str:
        number = f"{self.least}" if self.least == self.most else f"{self.least} to {self.most}"
        return f"{number} warm session{'' if number == '1' else 's'} ({self.reason})"


def configured(sessions: Sessions) -> Configured:
    """Of one express lane at one upstream."""
    if sessions.warm == 0:
        return Configured(0, 0, "warm: 0, one is opened when there is mail")
    if sessions.warm != "auto":
        return Configured(sessions.warm, sessions.warm, f"warm: {sessions.warm}")
    if sessions.max <= 1 + AHEAD:
        return Configured(sessions.max, sessions.max, f"warm: auto, and sessions.max is {sessions.max}")
    reason = f"warm: auto, 1 and {AHEAD} ahead; more as bursts need them, up to sessions.max"
    return Configured(1 + AHEAD, sessions.max, reason)


def running(config: Config) -> Running:
    """Ask the relay that runs on the configuration's store. Empty where none runs, or none answers at `http.address`.
    Blocks for a few seconds at most."""
    try:
        if holder(config.store) is None:
            return {}
        response = request(config.http.address, "GET", "/readyz", within_s=WITHIN_S)
    except (StoreError, NotListening, NoResponse, ValueError):
        return {}
    return dict(_stated(response.document))


def _stated(readyz: Mapping[str, object]) -> Iterator[tuple[tuple[str, str], AtRelay]]:
    for lane, health in _items(readyz.get("lanes")):
        for name, upstream in _items(dict(_items(health)).get("upstreams")):
            stated = dict(_items(upstream))
            counts = dict(_items(stated.get("sessions")))
            opened = sum(count for kind in ("idle", "busy") if isinstance(count := counts.get(kind), int))
            yield (
                (lane, name),
                AtRelay(str(stated.get("state")), opened, _warm(stated.get("warm")), dict(_paces(stated.get("p95")))),
            )


def _warm(stated: object) -> Warm | None:
    match stated:
        case {"sessions": int(number), "reason": str(reason)}:
            return Warm(number, reason)
    return None


def _paces(stated: object) -> Iterator[tuple[tuple[str, str], Pace]]:
    for one in stated if isinstance(stated, list) else ():
        match one:
            case {"provider": str(provider), "to": str(end), "p95_ms": int() | float() as ms, "samples": int(samples)}:
                yield (provider, end), Pace(ms / 1000, samples)


def _items(value: object) -> ItemsView[str, object]:
    return (value if isinstance(value, dict) else {}).items()
