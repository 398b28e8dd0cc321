"""Hedging: attempts at several upstreams beside each other, or at one over two sessions. The gate lets one of them send
the content."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from relay.config.model import Lane
from relay.delivery.attempt import attempt
from relay.delivery.message import Job
from relay.store.model import OpenRecipient
from relay.upstream.attempt import Progress, Report
from relay.upstream.base import Upstream
from relay.upstream.gate import LOST_RACE
from relay.upstream.phases import Phases
from relay.upstream.results import TIMED_OUT, OpenFailed, Result


async def race(
    job: Job, lane: Lane, due: Sequence[OpenRecipient], upstreams: Sequence[Upstream], hedge_s: float
) -> list[Report]:
    """Ask the first upstream, and the next one each time that none has answered the envelope for `hedge_s` seconds. One
    upstream alone is asked a second time, over another session: the connection may have been lost without a sign.
    Returns a report of each attempt, one that delivered the message before the others."""
    running = _Race(job, lane, due)
    try:
        return await running.run(upstreams, hedge_s)
    finally:
        await running.stop()


class _Race:
    def __init__(self, job: Job, lane: Lane, due: Sequence[OpenRecipient]) -> None:
        self._job = job
        self._lane = lane
        self._due = due
        self._running: dict[asyncio.Task[Report], tuple[Upstream, Progress, float]] = {}
        self._done: list[Report] = []

    async def run(self, upstreams: Sequence[Upstream], hedge_s: float) -> list[Report]:
        alone = len(upstreams) == 1
        waiting = list(upstreams) * (2 if alone else 1)
        self._start(waiting.pop(0))
        while self._running:
            hedging = bool(waiting) and not self._content_under_way()
            finished, _ = await asyncio.wait(
                self._running, timeout=hedge_s if hedging else None, return_when=asyncio.FIRST_COMPLETED
            )
            decided = False
            for task in finished:
                progress = self._running.pop(task)[1]
                # What one session of an upstream answers, the other would too.
                decided |= progress.content_sent or (alone and progress.answered)
                self._done.append(task.result())
            if decided and not self._content_under_way():
                break
            # Meanwhile the content may have left: with BDAT or over HTTP nothing is answered before.
            if not finished and hedging and self._envelope_unanswered() and not self._content_under_way():
                if not alone:
                    self._trip_unresponsive()
                elif not self._asked():
                    continue  # it lacks a session, and is given the first one that is free
                self._start(waiting.pop(0), own_session=alone)
        # An acceptance counts before another upstream's refusal.
        self._done.sort(key=lambda report: all(result.outcome != "sent" for result in report.results))
        return [*self._done, *self._lost()]

    async def stop(self) -> None:
        """Cancel what is still running."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    def _start(self, upstream: Upstream, *, own_session: bool = False) -> None:
        progress = Progress()
        if own_session:
            for _, other, _ in self._running.values():
                other.rival, progress.rival = progress, other
        task = asyncio.create_task(
            attempt(self._job, upstream, self._due, self._lane, progress, own_session=own_session),
            name=f"attempt {self._job.queued.id} at {upstream.name}",
        )
        self._running[task] = (upstream, progress, time.monotonic())

    def _content_under_way(self) -> bool:
        """Does a running attempt hold the gate? It must never be cancelled."""
        return any(progress.content_sent for _, progress, _ in self._running.values())

    def _envelope_unanswered(self) -> bool:
        return not any(progress.answered for _, progress, _ in self._running.values())

    def _asked(self) -> bool:
        return any(progress.asked for _, progress, _ in self._running.values())

    def _trip_unresponsive(self) -> None:
        """Open the circuit of each upstream that left the envelope unanswered for `hedge`; one that only lacked a free
        session, or has the message before it to answer, is spared."""
        for upstream, progress, _ in self._running.values():
            if (progress.asked and not progress.behind) or not upstream.is_connected:
                upstream.condemn(OpenFailed("mail" if progress.asked else "connect", TIMED_OUT))

    def _lost(self) -> list[Report]:
        """Reports of the attempts that are still running: they lost the race."""
        return [
            Report(
                upstream.name,
                started,
                "none",
                tuple(Result(one.position, "abandoned", LOST_RACE, "mail") for one in self._due),
                _spent(progress, started),
            )
            for upstream, progress, started in self._running.values()
        ]


def _spent(progress: Progress, started: float) -> dict[str, float]:
    phases = Phases(started)
    phases.until(time.monotonic(), "envelope" if progress.asked else "session")
    return phases.ms
