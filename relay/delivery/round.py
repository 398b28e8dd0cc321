"""One round of a message: every upstream worth asking, in order, until each recipient is told its end.

A refusal, a loss before the final dot or a 4yz goes to the next upstream at once; where the lane hedges and the first
one doesn't answer the envelope in time, the next is raced, and the gate lets one of them send the content.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence

from relay.clock import steady
from relay.config.model import Lane
from relay.delivery.attempt import attempt
from relay.delivery.message import Job, Pending
from relay.delivery.verdict import Delivered, Elsewhere, Ended, Unfit, Unknown, Withdrawn, judge
from relay.mail.dsn import wants_success
from relay.mail.redact import Refused, redact_reply
from relay.mail.reply import Reply
from relay.store.model import Attempt, OpenRecipient, RecipientUpdate, State
from relay.upstream.base import Progress, Report, Upstream
from relay.upstream.gate import OUTRUN
from relay.upstream.phases import RARE_PHASES, Phases
from relay.upstream.results import TIMED_OUT, OpenFailed, Result

Settle = Callable[[Job], Awaitable[None]]
Told = Callable[[Job, Report], None]


class Round:
    """`run` leaves in `job.updates` and `job.attempts` what is to be settled, and in `job.pending` who still waits."""

    def __init__(self, job: Job, lane: Lane, epoch: Callable[[float], float], settle: Settle, told: Told) -> None:
        """`epoch` turns time.monotonic into seconds since the epoch; `settle` writes an interim state; `told` is
        called once for every try (metrics, log)."""
        self._job = job
        self._lane = lane
        self._epoch = epoch
        self._settle = settle
        self._told = told
        self._first_at: float | None = None
        """when the first try of this round began"""

    async def run(self, pools: Sequence[Upstream], *, complete: bool = True) -> None:
        """`complete`: these are all the upstreams that the message may go to, none left out because it is down."""
        for one in self._job.pending.values():
            one.unfit_everywhere = complete and bool(pools)
        cap = min((pool.config.recipients for pool in pools), default=1)
        waiting = list(self._job.pending)
        for first in range(0, len(waiting), cap):
            await self._group(waiting[first : first + cap], list(pools))

    async def _group(self, positions: Sequence[int], pools: list[Upstream]) -> None:
        """As many recipients as one transaction may have."""
        job = self._job
        job.gate.unmark()
        while pools:
            due = [job.pending[position].open for position in positions if position in job.pending]
            if not due or job.withdrawn(steady()) is not None:
                return
            job.gate.reopen()
            job.carried = tuple(one.position for one in due)
            race = await self._race(due, pools)
            if self._first_at is None:
                self._first_at = min(tried.started_at for tried in race)
            # Those of a race are judged in another order than they began in.
            numbers = {tried.upstream: n for n, tried in enumerate(sorted(race, key=_began), 1)}
            for tried in race:
                self._record(tried, numbers[tried.upstream])
                if not _outrun(tried):
                    pools[:] = [pool for pool in pools if pool.name != tried.upstream]
            for one in due:
                job.tries[one.position] += len(race)
            job.carried = ()
            if job.pending and any(update.state == "sent" for update in job.updates):
                # Some were accepted and others go on: what was accepted must be known before anything else is sent.
                await self._settle(job)

    async def _race(self, due: Sequence[OpenRecipient], pools: Sequence[Upstream]) -> list[Report]:
        """Try the first; with `hedge`, the next beside it when no answer to the envelope came in time."""
        if self._lane.hedge_s is None or len(pools) == 1:
            return [await attempt(self._job, pools[0], due, self._lane, Progress())]
        race = _Race(self._job, self._lane, due)
        try:
            return await race.run(pools)
        finally:
            await race.stop()

    def _record(self, tried: Report, number: int) -> None:
        """`number`: its own among those under way together, from 1."""
        job = self._job
        error = tried.error
        refused = Refused(job.queued.content)
        for result in tried.results:
            try:
                reply = redact_reply(str(result.reply), b"" if result.reply.positive else refused)
            except Exception as fault:  # noqa: BLE001 - what became of the recipients must be known all the same
                reply, error = _bare(result.reply), error or fault
            job.attempts.append(
                Attempt(
                    result.position,
                    job.tries[result.position] + number,
                    tried.upstream,
                    self._epoch(tried.started_at),
                    tried.session,
                    result.outcome,
                    reply,
                    tried.timings_ms,
                )
            )
            # In a race, another may have told the recipient its end already.
            pending = job.pending.get(result.position)
            if pending is not None:
                self._note(tried, result, pending, reply)
        self._told(job, tried if error is tried.error else tried._replace(error=error))

    def _note(self, tried: Report, result: Result, pending: Pending, reply: str) -> None:
        """What an attempt means for the recipient."""
        job = self._job
        verdict = judge(result)
        if not isinstance(verdict, Unfit):
            pending.unfit_everywhere = False
        match verdict:
            case Delivered():
                if not tried.dsn and wants_success(pending.open.recipient):
                    job.relayed.add(result.position)
                job.timings_ms.update(self._way(tried))
                self._end(pending, "sent", tried.upstream, reply, sent_at=self._epoch(tried.ended_at))
            case Ended():
                self._end(pending, "bounced", tried.upstream, reply)
            case Unknown() if self._lane.on_ambiguous == "hold":
                self._end(pending, "ambiguous", tried.upstream, reply)
            case Elsewhere() | Unfit() | Unknown():
                pending.last, pending.upstream = reply, tried.upstream
                pending.is_unknown = isinstance(verdict, Unknown)
            case Withdrawn(why="expired"):
                self._end(pending, "expired", None, reply)
            case Withdrawn(why="superseded"):
                self._end(pending, "superseded", None, reply)
            case Withdrawn():
                pass

    def _way(self, tried: Report) -> dict[str, float]:
        """The message's time up to this try's end, in milliseconds: see `phases.MESSAGE_PHASES`."""
        job, first_at = self._job, self._first_at or tried.started_at
        came_s, earlier_s = job.offered_at - job.final_dot, tried.started_at - first_at
        way = {"accept": came_s * 1000.0, "wait": (first_at - job.offered_at) * 1000.0}
        if job.is_claimed:
            # What came before it was claimed is no part of its acceptance, nor of this round.
            way["accept"], earlier_s = 0.0, earlier_s + came_s
        if earlier_s > 0.0:
            way["earlier"] = earlier_s * 1000.0
        if len(job.queued.envelope.recipients) > 1:
            # Phases of a recipient that was sent to before are none of this one's.
            way = dict.fromkeys(("earlier", *RARE_PHASES), 0.0) | way
        sent_ms = {"send": sum(tried.timings_ms.values()), "total": (tried.ended_at - job.final_dot) * 1000.0}
        return way | tried.timings_ms | sent_ms

    def _end(
        self, pending: Pending, state: State, upstream: str | None, reply: str, sent_at: float | None = None
    ) -> None:
        position = pending.open.position
        self._job.updates.append(
            RecipientUpdate(position, state, upstream=upstream, reply=reply, sent_at=sent_at, step=pending.open.step)
        )
        del self._job.pending[position]


class _Race:
    """Attempts beside each other; the first through the gate wins, the others are called off."""

    def __init__(self, job: Job, lane: Lane, due: Sequence[OpenRecipient]) -> None:
        self._job = job
        self._lane = lane
        self._due = due
        self._running: dict[asyncio.Task[Report], tuple[Upstream, Progress, float]] = {}
        self._done: list[Report] = []

    async def run(self, pools: Sequence[Upstream]) -> list[Report]:
        waiting = list(pools)
        self._start(waiting.pop(0))
        while self._running:
            hedging = bool(waiting) and not self._content_under_way()
            finished, _ = await asyncio.wait(
                self._running,
                timeout=self._lane.hedge_s if hedging else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            content_sent = False
            for task in finished:
                content_sent |= self._running.pop(task)[1].content_sent
                self._done.append(task.result())
            if content_sent and not self._content_under_way():
                break
            if not finished and hedging and self._silent():
                self._start(waiting.pop(0))
        # What was sent counts before what another upstream refused.
        self._done.sort(key=lambda tried: all(result.outcome != "sent" for result in tried.results))
        return [*self._done, *self._called_off()]

    def _content_under_way(self) -> bool:
        """One of the running attempts holds the gate: it must never be called off."""
        return any(progress.content_sent for _, progress, _ in self._running.values())

    def _start(self, pool: Upstream) -> None:
        progress = Progress()
        task = asyncio.create_task(
            attempt(self._job, pool, self._due, self._lane, progress),
            name=f"attempt {self._job.queued.id} at {pool.name}",
        )
        self._running[task] = (pool, progress, time.monotonic())

    def _silent(self) -> bool:
        """Nobody has answered the envelope. Who stays silent for `hedge` isn't asked by the next message either,
        unless it was only that all its sessions are busy."""
        if any(progress.answered for _, progress, _ in self._running.values()):
            return False
        for pool, progress, _ in self._running.values():
            if progress.asked or not pool.is_connected:
                pool.condemn(OpenFailed("mail" if progress.asked else "connect", TIMED_OUT))
        return True

    def _called_off(self) -> list[Report]:
        """Those still under way lost the race."""
        return [
            Report(
                pool.name,
                started,
                "none",
                tuple(Result(one.position, "abandoned", OUTRUN, "mail") for one in self._due),
                _spent(progress, started),
            )
            for pool, progress, started in self._running.values()
        ]

    async def stop(self) -> None:
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)


def _spent(progress: Progress, started: float) -> dict[str, float]:
    """On a try that was called off."""
    phases = Phases(started)
    phases.until(time.monotonic(), "envelope" if progress.asked else "session")
    return phases.ms


def _began(tried: Report) -> float:
    return tried.started_at


def _outrun(tried: Report) -> bool:
    return any(result.reply == OUTRUN for result in tried.results)


def _bare(reply: Reply) -> str:
    """The reply without its words."""
    return f"{reply.code} {reply.enhanced or ''}".rstrip()
