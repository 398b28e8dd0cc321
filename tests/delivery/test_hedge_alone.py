"""Hedging with one upstream: a connection that is lost without a sign costs a code `hedge`, and not `attempt`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.delivery.harness import Bench, RecordedEvents, config, delivering, outcomes, until, warm
from tests.support.upstream import Delay, Hang, Upstream


class Downs(RecordedEvents):
    """Records the circuits that opened."""

    def __init__(self) -> None:
        super().__init__()
        self.downs: list[str] = []

    def down(self, lane: str, upstream: str, reason: str) -> None:
        self.downs.append(f"{lane}/{upstream}: {reason}")


async def sent(bench: Bench) -> Any:
    """A message, once it is sent; its session was open before."""
    await until(lambda: warm(bench))
    return await bench.ended(await bench.send("u@example.net"))


async def test_a_silent_session_is_raced_by_another_of_the_same_upstream(tmp_path: Path) -> None:
    events = Downs()
    async with Upstream(script={"mail": [Hang()]}) as one:
        settings = config({"one": one}, hedge=0.15, attempt=10.0)
        async with delivering(tmp_path, settings, events=events) as bench:
            view = await sent(bench)
            assert outcomes(view) == [("one", "abandoned"), ("one", "sent")]
            await bench.ended(await bench.send("v@example.net"))
    assert [message.recipients for message in one.transfers] == [("u@example.net",), ("v@example.net",)]
    assert events.downs == []


async def test_a_message_whose_content_has_left_is_never_raced(tmp_path: Path) -> None:
    async with Upstream(script={"dot": [Delay(0.5)]}) as one:
        settings = config({"one": one}, hedge=0.05, attempt=10.0, final=10.0)
        async with delivering(tmp_path, settings) as bench:
            assert outcomes(await sent(bench)) == [("one", "sent")]
    assert one.seen["mail"] == 1


async def test_the_silent_session_ends_while_the_other_sends_and_no_circuit_opens(tmp_path: Path) -> None:
    events = Downs()
    script: Any = {"mail": [Hang()], "dot": [Delay(0.8)]}
    async with Upstream(script=script) as one:
        settings = config({"one": one}, hedge=0.1, attempt=0.4, final=10.0)
        async with delivering(tmp_path, settings, events=events) as bench:
            view = await sent(bench)
            assert sorted(outcomes(view)) == [("one", "abandoned"), ("one", "sent")]
    assert len(one.transfers) == 1
    assert events.downs == []


async def test_the_circuit_opens_when_neither_session_answers(tmp_path: Path) -> None:
    events = Downs()
    async with Upstream(script={"mail": [Hang(), Hang()]}) as one:
        settings = config({"one": one}, hedge=0.1, attempt=0.4)
        async with delivering(tmp_path, settings, events=events) as bench:
            view = await sent(bench)
            assert outcomes(view) == [("one", "abandoned"), ("one", "abandoned"), ("one", "sent")]
    assert events.downs == ["otp/one: session: no answer in time"]


async def test_what_the_second_session_answers_is_not_kept_waiting_by_the_silent_one(tmp_path: Path) -> None:
    async with Upstream(script={"mail": [Hang(), "450 4.2.1 later"]}) as one:
        settings = config({"one": one}, hedge=0.1, attempt=30.0)
        async with delivering(tmp_path, settings) as bench:
            view = await sent(bench)
            assert outcomes(view) == [("one", "abandoned"), ("one", "deferred"), ("one", "sent")]
