"""Background tasks that go on: what ends without having been told to is reported, and begun again after a pause."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""before a task is begun again; the last repeats"""
STEADY_S = 60.0
"""a task that ran for so long begins its pauses anew"""

Work = Callable[[], Awaitable[None]]
Ended = Callable[[str, BaseException | None], None]
Failed = Callable[[str, BaseException | None], None]


class Supervisor:
    """`start` what never ends, `finish` what has an end. Both are tasks, and a cancellation ends them for good.

    A name is the kind of the task, and after a blank which one it is (`feed otp`): metrics count kinds.
    """

    def __init__(
        self,
        ended: Ended,
        pauses_s: Sequence[float] = PAUSES_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`ended` hears the task's name and what it raised; None: it returned although it never should."""
        self._ended = ended
        self._pauses_s = pauses_s
        self._clock = clock
        self._sleep = sleep

    def start(self, name: str, work: Work) -> asyncio.Task[None]:
        """Work without an end: one that returns is begun again, too."""
        return asyncio.create_task(self._run(name, work, endless=True), name=name)

    def finish(self, name: str, work: Work) -> asyncio.Task[None]:
        """Work that is done once it returns."""
        return asyncio.create_task(self._run(name, work, endless=False), name=name)

    async def _run(self, name: str, work: Work, *, endless: bool) -> None:
        failures = 0
        while True:
            began = self._clock()
            error: BaseException | None = None
            try:
                await work()
                if not endless:
                    return
            except asyncio.CancelledError as cancelled:
                # Also raised by work that waits for what another task gave up: this one was not cancelled.
                if _is_cancelled():
                    raise
                error = cancelled
            except Exception as raised:  # noqa: BLE001 - whatever it is, the work must go on
                error = raised
            if self._clock() - began > STEADY_S:
                failures = 0
            with contextlib.suppress(Exception):
                self._ended(name, error)
            await self._sleep(self._pauses_s[min(failures, len(self._pauses_s) - 1)])
            failures += 1


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


def listen_to(loop: asyncio.AbstractEventLoop, failed: Failed) -> None:
    """`failed` hears of each callback and each task that failed and that nothing awaits: where (file, line and
    function), and the error. What asyncio would print quotes arguments, which may be mail."""

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        failed(_where(error), error)

    loop.set_exception_handler(handle)


def _where(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    if not frames:
        return "asyncio"
    last = frames[-1]
    return f"{'/'.join(last.filename.split('/')[-2:])}:{last.lineno}:{last.name}"
