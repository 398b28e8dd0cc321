"""`via: auto`: an ESP's API for mail that it carries unchanged, its SMTP server for the rest and while the API is
down."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

from relay.upstream.attempt import Report, Terms
from relay.upstream.base import Upstream
from relay.upstream.circuit import Circuit
from relay.upstream.gate import Gate
from relay.upstream.http.upstream import HttpUpstream
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Load
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.upstream import SmtpUpstream
from relay.upstream.standing import Watcher
from relay.upstream.target import Target
from relay.upstream.warm import Warm

Way = Literal["api", "smtp"]


class AutoUpstream(Upstream):
    """Both ways to one ESP, under one name. `ways` says which of them a message may go; attempts are made at these."""

    def __init__(
        self,
        lane: str,
        target: Target,
        limits: UpstreamLimits,
        *,
        express: bool,
        open_within_s: float,
        watcher: Watcher,
    ) -> None:
        self.api = HttpUpstream(
            lane, target, limits, express=express, open_within_s=open_within_s, watcher=_Watch(self, "api", watcher)
        )
        self.smtp = SmtpUpstream(
            lane, target, limits, express=express, open_within_s=open_within_s, watcher=_Watch(self, "smtp", watcher)
        )
        super().__init__(lane, target.name, target.config, express=express, watcher=watcher)
        self.api.certificates = self.smtp.certificates = self.certificates
        # The account is one: what is learnt by one way holds for the other.
        self.api.window = self.smtp.window = self.window
        self.settled = self.api.settled

    @property
    def circuit(self) -> Circuit:
        """Closed while one of the two is."""
        return self.smtp.circuit if self.api.circuit.state != "closed" else self.api.circuit

    def is_urged(self) -> bool:
        return self.api.urged or self.smtp.urged

    def messages(self) -> int:
        return self.under_way + self.api.under_way + self.smtp.under_way

    async def ways(self, load: Load) -> Sequence[Upstream]:
        able: list[Upstream] = [self.api, self.smtp] if await self.api.why_not(load) is None else [self.smtp]
        up = [way for way in able if way.circuit.state == "closed"]
        # A code isn't to wait for its only way while another upstream may have it.
        return up or ([self.smtp] if self.is_urged() else [])

    @property
    def ways_down(self) -> str | None:
        down = {"API": self.api.circuit, "SMTP": self.smtp.circuit}
        reasons = [f"{way}: {one.reason}" for way, one in down.items() if one.state != "closed"]
        return "; ".join(reasons) or None

    def way_now(self, load: Load) -> Upstream | None:
        why_not = self.api.why_not_now(load)
        if why_not is False:
            return None
        return self.api if why_not is None and self.api.circuit.state == "closed" else self.smtp

    async def send(self, load: Load, gate: Gate, terms: Terms) -> Report:
        """By the first of its ways."""
        way = next(iter(await self.ways(load)), self.smtp)
        return await way.send(load, gate, terms)

    def serves(self, target: Target, limits: UpstreamLimits, *, express: bool) -> bool:
        return self.smtp.serves(target, limits, express=express)

    def take_over(self, target: Target, *, open_within_s: float, watcher: Watcher) -> None:
        self._watcher = watcher
        self.api.take_over(target, open_within_s=open_within_s, watcher=_Watch(self, "api", watcher))
        self.smtp.take_over(target, open_within_s=open_within_s, watcher=_Watch(self, "smtp", watcher))

    async def opened(self, within_s: float) -> None:
        await asyncio.gather(self.api.opened(within_s), self.smtp.opened(within_s))

    def close_idle(self) -> None:
        (self.api if self.api.counts()["idle"] > self.smtp.counts()["idle"] else self.smtp).close_idle()

    def start(self) -> None:
        self.api.start()
        self.smtp.start()

    async def close(self) -> None:
        await asyncio.gather(self.api.close(), self.smtp.close())

    def counts(self) -> dict[str, int]:
        api, smtp = self.api.counts(), self.smtp.counts()
        return {state: number + smtp[state] for state, number in api.items()}

    @property
    def is_connected(self) -> bool:
        return self.api.is_connected or self.smtp.is_connected

    def probe(self, now: float) -> None:
        self.api.probe(now)
        self.smtp.probe(now)

    def urge(self) -> None:
        self.api.urge()
        self.smtp.urge()

    def warm(self) -> Warm:
        api, smtp = self.api.warm(), self.smtp.warm()
        return Warm(api.sessions + smtp.sessions, f"API: {api.reason}; SMTP: {smtp.reason}")

    def fail_waiting(self, failure: OpenFailed) -> None:
        self.api.fail_waiting(failure)
        self.smtp.fail_waiting(failure)


class _Watch:
    """Watches one of the two ways, for the watcher of the whole."""

    def __init__(self, whole: AutoUpstream, way: Way, watcher: Watcher) -> None:
        self._whole = whole
        self._way: Way = way
        self._watcher = watcher

    def down(self, lane: str, upstream: str, reason: str) -> None:
        if self._other.circuit.state == "closed":
            self._watcher.way_down(lane, upstream, self._way, reason)
        else:
            self._watcher.down(lane, upstream, f"{self._way}: {reason}")

    def up(self, lane: str, upstream: str) -> None:
        if self._other.circuit.state == "closed":
            self._watcher.way_up(lane, upstream, self._way)
        else:
            self._watcher.up(lane, upstream)

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        self._watcher.on_demand(lane, upstream, after_s)

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        self._watcher.one_at_a_time(lane, upstream, reason)

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        """A way has none of its own."""

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        """See `way_down`."""

    @property
    def _other(self) -> Upstream:
        return self._whole.smtp if self._way == "api" else self._whole.api
