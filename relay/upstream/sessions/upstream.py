"""An upstream over a pool of kept connections, whatever their protocol."""

from __future__ import annotations

import time
from abc import abstractmethod
from contextlib import suppress
from typing import Generic, Literal

from relay.clock import steady
from relay.mail.outcome import Outcome
from relay.upstream.attempt import Report, Terms
from relay.upstream.base import Upstream
from relay.upstream.gate import Gate
from relay.upstream.limits import UpstreamLimits
from relay.upstream.load import Load
from relay.upstream.phases import Phases
from relay.upstream.results import TROUBLE, OpenFailed, Result
from relay.upstream.sessions.kept import Opening, S
from relay.upstream.sessions.maintenance import Maintenance
from relay.upstream.sessions.pool import NO_SESSION, Pool
from relay.upstream.sessions.waiters import Wants
from relay.upstream.standing import Watcher
from relay.upstream.target import Target
from relay.upstream.warm import Warm


class PooledUpstream(Upstream, Generic[S]):
    """`send` waits for the rate, lets the protocol carry the message, and turns faults of ours into a report."""

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
        super().__init__(lane, target.name, target.config, express=express, watcher=watcher)
        self._target = target
        self._limits = limits
        self.pool: Pool[S] = Pool(self, limits.quota, self._open, open_within_s=open_within_s)
        self.maintenance: Maintenance[S] = Maintenance(self, self.pool)

    @abstractmethod
    async def _open(self, within_s: float) -> S:
        """A new connection. Raises OpenFailed."""

    @abstractmethod
    async def _carry(self, load: Load, gate: Gate, terms: Terms, deadline: float, phases: Phases) -> Report:
        """Hand the load over. `deadline` (time.monotonic): of all that precedes the end of the content."""

    @abstractmethod
    def _followed_by(self, target: Target) -> Target:
        """The target of a newer configuration, with what was learnt of the addresses."""

    def serves(self, target: Target, limits: UpstreamLimits, *, express: bool) -> bool:
        return self.express == express and self._limits.quota is limits.quota and self._target.is_same(target)

    def take_over(self, target: Target, *, open_within_s: float, watcher: Watcher) -> None:
        self._watcher = watcher
        self._target = self._followed_by(target)
        self.pool.openings.use(self._open, open_within_s)
        self.urge()

    async def opened(self, within_s: float) -> None:
        if self.config.sessions.warm == 0:
            return
        with suppress(OpenFailed):
            self.pool.release(await self.pool.acquire(within_s=within_s))

    def close_idle(self) -> None:
        self.pool.close_idle()

    def start(self) -> None:
        self.pool.start()
        self.maintenance.start()
        if self.config.sessions.warm == 0 or not self.express:
            self.settled.set()

    async def close(self) -> None:
        self.maintenance.stop()
        await self.pool.close()

    def counts(self) -> dict[str, int]:
        idle = len(self.pool.idle)
        return {"idle": idle, "busy": len(self.pool.sessions) - idle, "opening": len(self.pool.openings)}

    @property
    def is_connected(self) -> bool:
        return bool(self.pool.sessions)

    def probe(self, now: float) -> None:
        self.pool.probe(now)

    def warm(self) -> Warm:
        return self.maintenance.warm()

    def fail_waiting(self, failure: OpenFailed) -> None:
        self.pool.waiting.fail(failure)

    async def send(self, load: Load, gate: Gate, terms: Terms) -> Report:
        """See `Upstream.send`."""
        self.under_way += 1
        phases = Phases(started_at := time.monotonic())
        try:
            return await self._send(load, gate, terms, started_at, phases)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not undo what another attempt achieved
            outcome: Outcome = "ambiguous" if terms.progress.content_sent else "abandoned"
            phase: Literal["dot", "mail"] = "dot" if terms.progress.content_sent else "mail"
            results = tuple(Result(position, outcome, TROUBLE, phase) for position, _ in load.recipients)
            phases.until(time.monotonic(), "session")
            return Report(self.name, started_at, "none", results, phases.ms, error=error, via=self.via)
        finally:
            self.under_way -= 1

    async def _send(self, load: Load, gate: Gate, terms: Terms, started_at: float, phases: Phases) -> Report:
        paced_at = started_at
        if self._limits.rate is not None:
            await self._limits.rate.pace(express=self.express)
            phases.until(paced_at := time.monotonic(), "rate")
        now = steady()
        deadline = paced_at + min(terms.attempt_s, gate.deadline - now)
        withdrawn = gate.refusal(now)
        if withdrawn is not None:  # while it waited for the rate
            return self._not_asked(load, OpenFailed("mail", withdrawn), started_at, phases)
        try:
            return (await self._carry(load, gate, terms, deadline, phases))._replace(started_at=started_at)
        except OpenFailed as failure:
            return self._not_asked(load, failure, started_at, phases)

    async def _session(self, deadline: float, wants: Wants) -> tuple[S, bool]:
        """A kept session or a new one, and whether it is new. Raises OpenFailed."""
        if self.express:
            self.maintenance.note_demand(self.under_way)
        session = self.pool.take(wants)
        if session is not None:
            return session, False
        session = await self.pool.acquire(within_s=max(0.0, deadline - time.monotonic()), wants=wants)
        return session, session.transactions == 0

    def _not_asked(self, load: Load, failure: OpenFailed, started_at: float, phases: Phases) -> Report:
        """No session could be had, or the message was withdrawn before."""
        outcome: Outcome = "abandoned"
        if failure.from_upstream:
            outcome = "refused" if failure.reply.permanent else "deferred"
        results = tuple(Result(position, outcome, failure.reply, failure.phase) for position, _ in load.recipients)
        opening = failure.phase != "mail" and failure.reply != NO_SESSION
        phases.until(time.monotonic(), "connect" if opening else "session")
        codes = (failure.reply.code,) if failure.from_upstream else ()
        return Report(self.name, started_at, "none", results, phases.ms, codes, via=self.via)


def record_opening(phases: Phases, at: float, opening: Opening) -> None:
    """A session was waited for until `at`. Its opening may have begun before the wait, and ended before its hand-over:
    only the part that was waited for counts, and the rest is a wait for a session."""
    for phase, ended in opening.ends():
        if phases.at < ended <= at:
            phases.until(min(opening.began_at, at), "session")
            phases.until(ended, phase)
    phases.until(at, "session")
