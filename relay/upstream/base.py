"""What delivery knows of an upstream, whatever protocol it speaks: a load goes in, a report comes out."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence

from relay.config import model
from relay.mail.outcome import Via
from relay.upstream.attempt import Report, Terms
from relay.upstream.certificates import CertificateEnds
from relay.upstream.gate import Gate
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Finish, Load
from relay.upstream.standing import Standing, Watcher
from relay.upstream.target import Target
from relay.upstream.warm import Warm


class Users:
    """The lanes that send by an upstream, of this configuration and of earlier ones: the first starts it, the last
    closes it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._number = 0

    def join(self) -> None:
        """One more lane sends by it."""
        self._number += 1
        if self._number == 1:
            self._upstream.start()

    async def leave(self) -> None:
        """A lane that joined doesn't send by it any more."""
        self._number -= 1
        if self._number == 0:
            await self._upstream.close()


class Upstream(Standing):
    """One upstream as one lane uses it: what lanes ask of it, whatever its protocol. Times are time.monotonic."""

    via: Via = "smtp"
    repeats_for_s = 0.0
    """how long the upstream knows a request that it was sent before; 0: it knows none"""

    def __init__(self, lane: str, name: str, config: model.Upstream, *, express: bool, watcher: Watcher) -> None:
        super().__init__(lane, name, config, express=express, watcher=watcher)
        self.under_way = 0
        """messages begun, or about to be, and not over"""
        self.urged = False
        self.certificates = CertificateEnds()
        self.users = Users(self)
        self.finish = Finish.of(config)
        """how contents are finished for it"""

    @abstractmethod
    def start(self) -> None:
        """Open what is to stand ready, in the background."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections. Attempts under way are cut off: drain the lane first."""

    @abstractmethod
    async def send(self, load: Load, gate: Gate, terms: Terms) -> Report:
        """Hand the load over. Never raises, for what the upstream does or for a fault of ours: the report has it."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Connections by state: idle, busy, opening."""

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """At least one connection is open."""

    @abstractmethod
    def probe(self, now: float) -> None:
        """Begin a probe, where one is due."""

    @abstractmethod
    def warm(self) -> Warm:
        """How many connections are kept open, and why."""

    @abstractmethod
    def serves(self, target: Target, limits: UpstreamLimits, *, express: bool) -> bool:
        """Whether a lane of a newer configuration may go on with this upstream, its connections and what was learnt of
        it."""

    @abstractmethod
    def take_over(self, target: Target, *, open_within_s: float, watcher: Watcher) -> None:
        """A lane of a newer configuration goes on with it (`serves`). An open circuit is probed at once: the reload may
        be meant for it."""

    @abstractmethod
    async def opened(self, within_s: float) -> None:
        """Return when there is an open connection, or when none can be opened; at the latest after `within_s` seconds.
        It gets a place before all that is opened ahead of need."""

    @abstractmethod
    def close_idle(self) -> None:
        """Close the connection that was idle longest, if there is one."""

    async def ways(self, load: Load) -> Sequence[Upstream]:  # noqa: ARG002 - for those that have several
        """How this message may go there now, in order of preference. Each way has the upstream's name."""
        return (self,)

    def way_now(self, load: Load) -> Upstream | None:  # noqa: ARG002
        """The first of the `ways`. None: to find out would hold up the event loop."""
        return self

    def most_recipients(self, load: Load) -> int:  # noqa: ARG002 - for those where it depends on the message
        """Recipients that one attempt with this message may have."""
        return self.config.recipients

    def messages(self) -> int:
        """Messages begun, or about to be, and not over, by all its ways."""
        return self.under_way

    def is_urged(self) -> bool:
        """An operator asked for an attempt now, and a probe for that is under way."""
        return self.urged

    def has_place(self, now: float) -> bool:
        """Whether one more bulk message may begin."""
        return self.messages() < self.window.room(now)

    def window_now(self) -> int | None:
        """How many messages the upstream may get at once, 0 while it asked for a pause; None: a lane of codes has no
        window."""
        return None if self.express else self.window.room(time.monotonic())

    def urge(self) -> None:
        """Probe an open circuit now, whenever its probe is due."""
        now = time.monotonic()
        if self.circuit.state == "open":
            self.circuit.probe_at = min(self.circuit.probe_at, now)
            self.probe(now)
        self.urged = self.circuit.state == "half-open"
