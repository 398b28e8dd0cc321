"""The relay behind the HTTP service: interfaces to its health, its store and its lanes."""

from __future__ import annotations

import math
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from relay.delivery.fastest import End, Pace
from relay.observe.gauges import Snapshot
from relay.observe.metrics import Family, Metrics
from relay.observe.pressure import IntakeLoad, QueueFill
from relay.observe.recent import Recent
from relay.observe.report import Wanted
from relay.store.base import Log
from relay.store.events import EventSelection
from relay.store.model import OPEN_STATES, Action, LaneCount, Selection
from relay.store.suppressions import Suppression, SuppressionQuery, WantedSuppression
from relay.upstream.warm import Warm
from relay.web.sender import Sender

if TYPE_CHECKING:
    from relay.web import documents

UpstreamState = Literal["up", "untried", "down", "half-open"]


@dataclass(frozen=True, slots=True)
class UpstreamHealth:
    """State of one upstream, seen from one lane."""

    state: UpstreamState
    sessions: Mapping[str, int] = field(default_factory=dict)
    """open sessions by what they do: `idle`, `busy`, ..."""
    reason: str | None = None
    """why it isn't up: phase, code and enhanced code of a reply, or a text of the relay's own"""
    window: int | None = None
    """how many messages it may get at once now; None: no limit of that kind"""
    reply_text: str | None = None
    """the upstream's reply, redacted; for the operator only"""
    warm: Warm | None = None
    """how many sessions are to stay open, and why; None: a bulk lane, or the upstream wasn't used yet"""
    paces: Mapping[tuple[str, End], Pace] = field(default_factory=dict)
    """in a lane that prefers the fastest: what is known, by mailbox provider and end"""
    certificate_ends_at: float | None = None
    """seconds since the epoch; None: not known, or there is none"""

    def as_json(self, *, with_reply: bool = False) -> documents.UpstreamInLane:
        """`with_reply`: include the upstream's reply."""
        shown: documents.UpstreamInLane = {"state": self.state, "sessions": dict(self.sessions)}
        if self.warm is not None:
            shown["warm"] = {"sessions": self.warm.sessions, "reason": self.warm.reason}
        if self.paces:
            shown["p95"] = [
                {"provider": provider, "to": end, "p95_ms": pace.p95_s * 1000, "samples": pace.samples}
                for (provider, end), pace in sorted(self.paces.items())
            ]
        if self.window is not None:
            shown["window"] = self.window
        if self.reason is not None:
            shown["reason"] = self.reason
        if with_reply and self.reply_text is not None:
            shown["words"] = self.reply_text
        return shown


LaneHealth = Mapping[str, UpstreamHealth]
"""An entry for each of a lane's upstreams, in its order."""


class Answer(NamedTuple):
    """What a webhook answers."""

    status: int
    text: str = ""
    """of an error: one sentence"""


class Webhook(Protocol):
    """One upstream's webhook."""

    async def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        """Process a posted event. `headers`: names in lower case; the body is of any type. Status 200 once it is
        stored, 401 without the right proof, 400 if it can't be read, 503 if it can't be stored now."""

    def too_large(self) -> None:
        """A body was refused for its size."""


class Health(Protocol):
    """State of the relay, from memory and without waiting."""

    def reasons(self) -> Sequence[str]:
        """Why the relay can't accept mail now (store unwritable, queue full, draining); empty: it can."""

    def lanes(self) -> Mapping[str, LaneHealth]:
        """The upstreams of every configured lane."""

    def queue(self) -> QueueFill:
        """Size of the queue, and its limits."""

    def intake(self) -> IntakeLoad:
        """Load of the SMTP intake."""

    def certificates(self) -> Mapping[str, float]:
        """When the certificates of the relay's own listeners end, by address, in seconds since the epoch."""

    async def worker_metrics(self) -> Sequence[Family]:
        """Counters of the relay's other processes."""


class UpstreamFacts(NamedTuple):
    """What the configuration says of an upstream."""

    preset: str | None
    via: str
    host: str | None
    port: int | None
    webhook: bool


class Reload(NamedTuple):
    """How the last reload ended."""

    at: float
    ok: bool
    """the whole file is in force"""
    reason: str | None = None


class InForce(Protocol):
    """The configuration in force."""

    @property
    def started_at(self) -> float:
        """When the relay was started, in seconds since the epoch."""

    @property
    def loaded_at(self) -> float:
        """When it came into force."""

    @property
    def last_reload(self) -> Reload | None:
        """None: there was none."""

    @property
    def path(self) -> str:
        """Of its file."""

    def outline(self) -> Mapping[str, object]:
        """Its keys and values, without secrets."""

    def express(self) -> frozenset[str]:
        """The express lanes."""

    def upstreams(self) -> Mapping[str, UpstreamFacts]: ...


class Events(Protocol):
    """The events of all store files. Each call raises StoreError."""

    async def search(self, selection: EventSelection) -> Sequence[Mapping[str, object]]:
        """The events selected, oldest first."""

    async def follow(self) -> Callable[[], Awaitable[Sequence[Mapping[str, object]]]]:
        """A function that gives what has happened since its last call, or since now."""


class Controller(Protocol):
    """Carries out operators' actions in the store and in the lanes that hold messages in memory."""

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        """As `Queue.act`; messages that became due are sent at once. Returns the ids of the changed messages."""


class SuppressionControl(Protocol):
    """The addresses that must not be mailed. Each call raises StoreError."""

    async def listing(self, query: SuppressionQuery) -> Sequence[Suppression]:
        """Newest first."""

    async def add_by_hand(self, wanted: Sequence[WantedSuppression]) -> Sequence[str]:
        """The addresses of which something changed."""

    async def remove(self, addresses: Sequence[str]) -> Sequence[str]:
        """The addresses that were suppressed."""

    def hash_of(self, address: str) -> int:
        """As `SuppressionQuery.hashed` has it."""


class Eraser(Protocol):
    """Forgets addresses."""

    async def erase(self, address: str) -> Mapping[str, int]:
        """Forget an address in finished mail and elsewhere. Returns, by kind, how many had it. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Backend:
    """What the HTTP service reads and acts on."""

    store: Log
    metrics: Metrics
    recent: Recent
    health: Health
    controller: Controller
    events: Events
    in_force: InForce
    clock: Callable[[], float] = time.time
    webhooks: Callable[[], Mapping[str, Webhook]] = dict
    """those there are now, by upstream name"""
    objectives: Callable[[], Mapping[str, Wanted]] = dict
    """of the lanes that have one"""
    suppressions: SuppressionControl | None = None
    eraser: Eraser | None = None
    sender: Sender | None = None


def gauges(backend: Backend, queue: Sequence[LaneCount] | None) -> Snapshot:
    """The values of the gauges now. An upstream of several lanes is up when it is up for each of them."""
    lanes = backend.health.lanes()
    up: dict[str, bool] = {}
    sessions: dict[tuple[str, str], int] = {}
    windows: dict[tuple[str, str], int] = {}
    warm: dict[tuple[str, str], int] = {}
    certificates = {("listener", name): ends_at for name, ends_at in backend.health.certificates().items()}
    for lane, upstreams in lanes.items():
        for name, health in upstreams.items():
            up[name] = up.get(name, True) and health.state in ("up", "untried")
            for state, count in health.sessions.items():
                sessions[name, state] = sessions.get((name, state), 0) + count
            if health.window is not None:
                windows[lane, name] = health.window
            if health.warm is not None:
                warm[lane, name] = health.warm.sessions
            if health.certificate_ends_at is not None:
                key = "upstream", name
                certificates[key] = min(health.certificate_ends_at, certificates.get(key, math.inf))
    return Snapshot(
        now=backend.clock(),
        queue=queue,
        lanes=tuple(lanes),
        states=sorted(OPEN_STATES),
        upstream_up=up,
        upstream_sessions=sessions,
        upstream_windows=windows,
        upstream_warm=warm,
        certificates=certificates,
        fill=backend.health.queue(),
        intake=backend.health.intake(),
    )
