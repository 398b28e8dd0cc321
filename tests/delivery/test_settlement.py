"""What a settlement makes of a job's outcome."""

from __future__ import annotations

from pathlib import Path

from relay.delivery.settlement import settlement
from relay.store.model import Attempt
from tests.delivery.harness import config, delivering, job_of
from tests.support.upstream import Upstream


async def test_attempts_of_a_race_are_settled_in_order_of_their_numbers(tmp_path: Path) -> None:
    """The second is judged first where it delivered to others. The store numbers the next one after the last."""
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        _, job = job_of(bench, "01JD0000000000000000000001")
        for n, upstream in ((2, "two"), (1, "one")):
            job.attempts.append(Attempt(0, n, upstream, float(n), "warm", "deferred", "451 4.2.1 later", {}))
        assert [attempt.n for attempt in settlement(job, None).attempts] == [1, 2]
        assert job.attempts == []
