"""What the HTTP service shows and acts on; `app` hands the parts in."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, Protocol

from relay.observe.metrics import Family, Metrics, Snapshot
from relay.observe.pressure import IntakeLoad, QueueFill
from relay.observe.recent import Recent
from relay.store.merged import Reading
from relay.store.model import OPEN_STATES, Action, LaneCount, Selection

if TYPE_CHECKING:
    from relay.web.webhooks import Webhook

UpstreamState = Literal["up", "untried", "down", "half-open"]


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """One upstream as one lane sees it."""

    state: UpstreamState
    sessions: Mapping[str, int] = field(default_factory=dict)
    """open sessions by what they do: `idle`, `busy`, ..."""
    reason: str | None = None
    """why it is not up: the phase, the code and the enhanced code, or words of the relay's own"""
    window: int | None = None
    """how many messages it may get at once now; None: it has no window"""
    words: str | None = None
    """what the upstream said to it, redacted: for the operator's eyes only"""

    def as_json(self, *, words: bool = False) -> dict[str, object]:
        """`words`: with what the upstream said."""
        shown: dict[str, object] = {"state": self.state, "sessions": dict(self.sessions)}
        if self.window is not None:
            shown["window"] = self.window
        if self.reason is not None:
            shown["reason"] = self.reason
        if words and self.words is not None:
            shown["words"] = self.words
        return shown


LaneHealth = Mapping[str, UpstreamHealth]
"""An entry for each of a lane's upstreams, in its order."""


class Health(Protocol):
    """How the relay is. Answered from memory, at once."""

    def reasons(self) -> Sequence[str]:
        """Why no mail can be taken now (store unwritable, queue full, draining); empty: it can."""

    def lanes(self) -> Mapping[str, LaneHealth]:
        """Every configured lane."""

    def queue(self) -> QueueFill:
        """What waits, beside its limits."""

    def intake(self) -> IntakeLoad:
        """What the intake is at."""

    async def others(self) -> Sequence[Family]:
        """What the relay's other processes counted."""


class Controller(Protocol):
    """Who carries out an operator's word: the store and the lanes that hold messages in memory."""

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """As `Store.act`; what became due is taken up at once. Returns the ids of the messages that changed."""


@dataclass(frozen=True, slots=True)
class Parts:
    store: Reading
    metrics: Metrics
    recent: Recent
    health: Health
    controller: Controller
    clock: Callable[[], float] = time.time
    webhooks: Mapping[str, Webhook] = field(default_factory=dict)
    """by their upstreams' names"""


def snapshot(parts: Parts, queue: Sequence[LaneCount] | None) -> Snapshot:
    """The gauges now. An upstream that several lanes use is up when all of them hold it so."""
    lanes = parts.health.lanes()
    up: dict[str, bool] = {}
    sessions: dict[tuple[str, str], int] = {}
    windows: dict[tuple[str, str], int] = {}
    for lane, upstreams in lanes.items():
        for name, health in upstreams.items():
            up[name] = up.get(name, True) and health.state in ("up", "untried")
            for state, count in health.sessions.items():
                sessions[name, state] = sessions.get((name, state), 0) + count
            if health.window is not None:
                windows[lane, name] = health.window
    return Snapshot(
        now=parts.clock(),
        queue=queue,
        lanes=tuple(lanes),
        states=sorted(OPEN_STATES),
        upstream_up=up,
        upstream_sessions=sessions,
        upstream_windows=windows,
        fill=parts.health.queue(),
        intake=parts.health.intake(),
    )
