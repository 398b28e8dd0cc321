"""Background tasks that end unexpectedly."""

from __future__ import annotations

import asyncio
import logging

import pytest

from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.supervise import Supervisor, listen_to

Ends = list[tuple[str, type[BaseException] | None]]
PAUSES_S = (0.0,)


def supervisor(ends: Ends) -> Supervisor:
    return Supervisor(lambda name, error: ends.append((name, None if error is None else type(error))), PAUSES_S)


async def test_work_that_raises_is_reported_and_restarted() -> None:
    ends: Ends = []
    runs = 0
    well = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        if runs == 1:
            raise TypeError("the letter's text")
        if runs == 2:
            return
        well.set()
        await asyncio.Event().wait()

    task = supervisor(ends).run_forever("feed otp", work)
    async with asyncio.timeout(10):
        await well.wait()
    assert ends == [("feed otp", TypeError), ("feed otp", None)]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()
    assert runs == 3


async def test_a_cancellation_from_within_is_a_failure_like_others() -> None:
    """Work that awaits a cancelled task must not end as if it had been cancelled itself."""
    ends: Ends = []
    well = asyncio.Event()

    async def work() -> None:
        if not ends:
            given_up = asyncio.get_running_loop().create_future()
            given_up.cancel()
            await given_up
        well.set()
        await asyncio.Event().wait()

    task = supervisor(ends).run_forever("status", work)
    async with asyncio.timeout(10):
        await well.wait()
    assert ends == [("status", asyncio.CancelledError)]
    task.cancel()


async def test_work_with_an_end_is_restarted_until_it_returns() -> None:
    ends: Ends = []

    async def work() -> None:
        if len(ends) < 2:
            raise OSError

    async with asyncio.timeout(10):
        await supervisor(ends).run_until_done("hasten otp", work)
    assert ends == [("hasten otp", OSError)] * 2


async def test_pauses_grow_and_begin_anew_after_a_steady_run() -> None:
    slept: list[float] = []
    runs_s = [0.0, 0.0, 0.0, 61.0, 0.0]
    now = 0.0

    async def work() -> None:
        nonlocal now
        if runs_s:
            now += runs_s.pop(0)
            raise ValueError

    async def sleep(delay_s: float) -> None:
        slept.append(delay_s)

    one = Supervisor(lambda name, error: None, (0.1, 1.0, 5.0), clock=lambda: now, sleep=sleep)
    await one.run_until_done("housekeeping", work)
    assert slept == [0.1, 1.0, 5.0, 0.1, 1.0]


async def test_a_restart_is_one_line_without_the_errors_text_and_a_count(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    log = MailLog(metrics, Recent())
    with caplog.at_level(logging.INFO, "relay.mail"):
        log.task_ended("feed otp", TypeError("Your code is 123456"))
        log.task_ended("feed alerts", None)
    assert caplog.messages == [
        'event=task_restarted task="feed otp" error=TypeError',
        'event=task_restarted task="feed alerts" error=returned',
    ]
    assert metrics.registry.get_sample_value("relay_tasks_restarted_total", {"task": "feed"}) == 2


async def test_an_error_that_asyncio_reports_is_one_line_without_payload(caplog: pytest.LogCaptureFixture) -> None:
    metrics = Metrics()
    loop = asyncio.get_running_loop()
    listen_to(loop, MailLog(metrics, Recent()).loop_failed)

    def broken(payload: str) -> None:
        raise KeyError(payload)

    loop.call_soon(broken, "Your code is 123456")
    with caplog.at_level(logging.INFO):
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    (line,) = caplog.messages
    assert line.startswith("event=loop_failed error=KeyError where=")
    assert "test_supervise.py" in line
    assert "broken" in line
    assert "123456" not in caplog.text
    assert metrics.registry.get_sample_value("relay_tasks_restarted_total", {"task": "loop"}) == 1
