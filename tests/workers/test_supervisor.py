"""The main process's side of a worker when the machine has nothing left to give."""

from __future__ import annotations

import asyncio
import gc
import os
from typing import Any, cast

import pytest

from relay.workers import supervisor
from relay.workers.supervisor import Worker, Workers


class Group:
    """As much of `Workers` as a worker that never starts needs."""

    def __init__(self) -> None:
        self.log = self
        self.troubles: list[str] = []

    def trouble(self, where: str, error: BaseException) -> None:
        self.troubles.append(str(error))


async def test_a_worker_that_cant_be_started_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    async def refused(*_: Any, **__: Any) -> Any:
        raise OSError("Cannot allocate memory")

    monkeypatch.setattr(asyncio, "create_subprocess_exec", refused)
    monkeypatch.setattr(supervisor, "RESTART_AFTER_S", (0.01,))
    files, group = len(os.listdir("/proc/self/fd")), Group()
    worker = Worker(1, cast(Any, None), cast(Workers, group))
    async with asyncio.timeout(10):
        while group.troubles.count("Cannot allocate memory") < 3:
            await asyncio.sleep(0.01)
    await worker.stop(0.1)
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= files
