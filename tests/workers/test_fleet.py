"""The worker handle when no process can be started."""

from __future__ import annotations

import asyncio
import gc
import os
from types import SimpleNamespace
from typing import Any, cast

import pytest

from relay.workers import handle, life, process
from relay.workers.handle import Fleet, WorkerHandle


class Alone:
    """As much of `Fleet` as a worker that never starts needs."""

    def __init__(self) -> None:
        self.log = self
        self.troubles: list[str] = []

    def trouble(self, where: str, error: BaseException) -> None:
        self.troubles.append(str(error))

    def task_ended(self, task: str, error: BaseException | None) -> None:
        self.troubles.append(f"{task}: {error!r}")


def test_a_worker_that_lost_its_link_has_time_to_end_by_itself() -> None:
    assert process.ORPHANED_DRAIN_S < life.ENDS_WITHIN_S / 2


async def test_a_worker_that_cant_be_started_is_started_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any, **__: Any) -> Any:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    monkeypatch.setattr(handle, "RESTART_AFTER_S", (0.01,))
    files, pool = len(os.listdir("/proc/self/fd")), Alone()
    config = SimpleNamespace(loaded=SimpleNamespace(config=SimpleNamespace(dkim=())))
    worker = WorkerHandle(1, cast(Any, config), cast(Fleet, pool))
    async with asyncio.timeout(10):
        while pool.troubles.count("Cannot allocate memory") < 3:
            await asyncio.sleep(0.01)
    await worker.stop(0.1)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files
