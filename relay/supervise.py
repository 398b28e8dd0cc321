"""Restarts background tasks: a task that ends unexpectedly is reported, and started again after a pause."""

from __future__ import annotations

import asyncio
import contextlib
import time
import traceback
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

PAUSES_S = (0.1, 0.5, 1.0, 2.0, 5.0)
"""before each restart; the last one repeats"""
STEADY_S = 60.0
"""after a run of this length, the next pause is the first again"""

Work = Callable[[], Awaitable[None]]
Ended = Callable[[str, BaseException | None], None]
Failed = Callable[[str, BaseException | None], None]


class Supervisor:
    """Starts supervised tasks: `run_forever` for work that never ends, `run_until_done` for work that ends. Cancelling
    the task ends it for good.

    A task's name is its kind, and after a blank its subject (`feed otp`). Metrics count by kind.
    """

    def __init__(
        self,
        ended: Ended,
        pauses_s: Sequence[float] = PAUSES_S,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`ended` is called with the task's name and its exception; None: endless work returned."""
        self._ended = ended
        self._pauses_s = pauses_s
        self._clock = clock
        self._sleep = sleep

    def run_forever(self, name: str, work: Work) -> asyncio.Task[None]:
        """A task for work without an end. It is restarted when it fails or returns."""
        return asyncio.create_task(self._run(name, work, endless=True), name=name)

    def run_until_done(self, name: str, work: Work) -> asyncio.Task[None]:
        """A task for work that is done once it returns. It is restarted when it fails."""
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
                # Awaiting another task that was cancelled raises this, too. Only our own cancellation ends the work.
                if _is_cancelled():
                    raise
                error = cancelled
            except Exception as raised:  # noqa: BLE001 - the work must go on after any failure
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
    """Call `failed` for each callback that fails, and for each task that fails and that nothing awaits.

    It gets the place (file, line, function) and the exception. asyncio's own report would print arguments, which may be
    mail.
    """

    def handle(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        failed(_place(error), error)

    loop.set_exception_handler(handle)


def _place(error: BaseException | None) -> str:
    frames = traceback.extract_tb(error.__traceback__) if error is not None else []
    if not frames:
        return "asyncio"
    last = frames[-1]
    return f"{'/'.join(last.filename.split('/')[-2:])}:{last.lineno}:{last.name}"
