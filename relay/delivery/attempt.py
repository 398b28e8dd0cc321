"""One try at one upstream, for a job."""

from __future__ import annotations

from collections.abc import Sequence

from relay.config.model import Lane
from relay.delivery.load import JobLoad
from relay.delivery.message import Job
from relay.store.model import OpenRecipient
from relay.upstream.base import Progress, Report, Terms, Upstream


async def attempt(job: Job, upstream: Upstream, due: Sequence[OpenRecipient], lane: Lane, progress: Progress) -> Report:
    """Hand `due` recipients over to the upstream. Never raises for what happens there."""
    return await upstream.send(JobLoad(job, due), job.gate, Terms(lane.attempt_s, lane.final_s, progress))
