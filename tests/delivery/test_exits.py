"""However a try ends, its session is idle again or gone: none stays busy without an attempt that uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from relay.delivery.attempt import attempt
from relay.delivery.message import Job
from relay.mail.envelope import Recipient
from relay.upstream.attempt import Progress
from relay.upstream.smtp.upstream import SmtpUpstream
from relay.upstream.smtp.wire import Wire
from tests.delivery.harness import Bench, config, delivering, job_of, until, warm
from tests.support.upstream import Close, Delay, Hang, Upstream

WAYS = [("PIPELINING", "DSN", "8BITMIME"), ("PIPELINING", "CHUNKING", "DSN"), ("DSN",)]


def only(bench: Bench) -> SmtpUpstream:
    upstream = bench.delivery.lane("otp").upstreams[0]
    assert isinstance(upstream, SmtpUpstream)
    return upstream


def of_one_session(one: Upstream) -> dict[str, Any]:
    return {"host": one.host, "port": one.port, "tls": "none", "sessions": {"warm": 1, "max": 1}}


async def tidy(bench: Bench) -> None:
    """No session is busy beyond what attempts are under way; then a code gets through over the only place."""
    pool = only(bench)
    await until(lambda: pool.counts()["busy"] <= pool.under_way)
    view = await bench.ended(await bench.send("after@example.net"), "sent")
    assert view["recipients"][0]["state"] == "sent"


async def tried(bench: Bench, number: int) -> None:
    """One attempt for a message of its own, nothing of which is settled."""
    _, job = job_of(bench, f"01JD{number:022d}")
    job.gate.open()
    lane = bench.delivery.lane("otp")
    await attempt(job, only(bench), job.queued.due, lane.config, Progress())


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_an_envelope_id_and_an_original_recipient_in_brackets_travel_as_they_are(
    tmp_path: Path, way: tuple[str, ...]
) -> None:
    recipient = Recipient("u@example.net", orcpt="rfc822;<u>@example.net")
    async with Upstream(way) as one, delivering(tmp_path, config({"one": of_one_session(one)})) as bench:
        await until(lambda: warm(bench))
        view = await bench.ended(await bench.send(recipient, envid="<20261128.1@app>"))
        assert view["recipients"][0]["state"] == "sent"
        assert "ENVID=<20261128.1@app>" in one.messages[0].mail_from
        assert "ORCPT=rfc822;<u>@example.net" in one.messages[0].rcpts[0]
        await tidy(bench)


@pytest.mark.parametrize("address", ["u@[x:y>z]", "u>v@example.net", "u\r\nDATA@example.net", "u\ud800@example.net"])
async def test_an_address_that_cant_be_written_ends_alone_with_5_1_3(tmp_path: Path, address: str) -> None:
    """None comes by the intake. One that a store has all the same is refused on the upstreams' behalf."""
    async with (
        Upstream() as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": of_one_session(one), "two": two})) as bench,
    ):
        await until(lambda: warm(bench))
        _, job = job_of(bench, "01JD0000000000000000000001", "good@example.net", address)
        job.gate.open()
        lane = bench.delivery.lane("otp").config
        for _ in range(3):
            results = (await attempt(job, only(bench), job.queued.due, lane, Progress())).results
            assert [(each.position, each.outcome, each.reply.code) for each in results] == [
                (0, "sent", 250),
                (1, "refused", 553),
            ]
            assert results[1].reply.enhanced == "5.1.3"
            job.gate.reopen()
        await tidy(bench)


@pytest.mark.parametrize("addresses", [("u@[x:y>z]",), ("u@[x:y>z]", "v@example.net")], ids=len)
async def test_it_bounces_when_every_upstream_is_spared_it(tmp_path: Path, addresses: tuple[str, ...]) -> None:
    async with (
        Upstream() as one,
        Upstream() as two,
        delivering(tmp_path, config({"one": one, "two": two})) as bench,
    ):
        await until(lambda: warm(bench))
        view = await bench.ended(await bench.send(*addresses))
        assert view["recipients"][0]["state"] == "bounced"
        assert view["recipients"][0]["reply"].startswith("553 5.1.3 ")
        assert [each["state"] for each in view["recipients"][1:]] == ["sent"] * (len(addresses) - 1)
        assert len(view["recipients"][0]["attempts"]) == 2


async def test_a_sender_that_cant_be_written_ends_with_5_1_3_too(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        view = await bench.ended(await bench.send("u@example.net", sender="a@[x:y>z]"))
        assert view["recipients"][0]["reply"].startswith("553 5.1.3 ")


Break = Callable[[Bench, pytest.MonkeyPatch], None]


def _in_the_form(_: Bench, patch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise RuntimeError("no form")

    patch.setattr("relay.upstream.smtp.upstream.fitted", raises)


def _in_the_envelope(_: Bench, patch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise KeyError("commands")

    patch.setattr("relay.upstream.smtp.session.commands", raises)


def _in_the_first_write(_: Bench, patch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise TypeError("not bytes")

    patch.setattr(Wire, "write", raises)


def _in_the_content(_: Bench, patch: pytest.MonkeyPatch) -> None:
    def raises(*_: object) -> None:
        raise OSError("no key")

    patch.setattr(Job, "signed", raises)


def _on_the_way_back(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    def raises(*_: object, **__: object) -> None:
        raise RuntimeError("put")

    patch.setattr(only(bench).pool, "release", raises)


def _before_it_waits(bench: Bench, patch: pytest.MonkeyPatch) -> None:
    """With nothing idle, `get` opens one; what that needs of the main process may fail."""

    def raises(*_: object) -> None:
        raise ConnectionError("the link is gone")

    patch.setattr(only(bench).pool, "take_idle", lambda: None)
    patch.setattr(only(bench).pool, "on_capacity", raises)


@pytest.mark.parametrize(
    "broken",
    [_in_the_form, _in_the_envelope, _in_the_first_write, _in_the_content, _on_the_way_back, _before_it_waits],
    ids=lambda each: each.__name__,
)
async def test_a_fault_of_ours_anywhere_in_a_try_costs_its_session_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: Break
) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": of_one_session(one)})) as bench:
        for number in range(3):
            await until(lambda: warm(bench))
            with monkeypatch.context() as patch:
                broken(bench, patch)
                await tried(bench, number)
            await until(lambda: only(bench).counts()["busy"] <= only(bench).under_way)
        await tidy(bench)


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
@pytest.mark.parametrize("sessions", [{"warm": 1, "max": 1}, {"warm": 0, "max": 1}], ids=["warm", "cold"])
async def test_a_try_that_is_called_off_at_any_turn_of_the_loop_leaves_no_session_busy(
    tmp_path: Path, way: tuple[str, ...], sessions: dict[str, int]
) -> None:
    async with Upstream(way) as one:
        settings = config({"one": {**of_one_session(one), "sessions": sessions}})
        async with delivering(tmp_path, settings) as bench:
            pool = only(bench)
            for turns in range(60):
                task = asyncio.create_task(tried(bench, turns))
                for _ in range(turns):
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
                await until(lambda: pool.counts()["busy"] <= pool.under_way == 0)
            await tidy(bench)


@pytest.mark.parametrize(
    "script",
    [
        {"mail": Hang()},
        {"rcpt": Close()},
        {"dot": Hang()},
        {"dot": Delay(0.6)},
        {"rcpt": "550 5.1.1 no"},
        {"data": "451 4.3.0 no"},
        {"rset": Hang(), "rcpt": "450 4.2.0 no"},
    ],
    ids=str,
)
async def test_whatever_the_upstream_does_its_session_is_idle_or_gone_afterwards(tmp_path: Path, script: Any) -> None:
    once = {step: [action] for step, action in script.items()}
    async with Upstream(("PIPELINING",), script=once) as one:
        settings = config({"one": of_one_session(one)}, attempt=0.5, final=0.5, retry=(0.05,))
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            await tried(bench, 1)
            await until(lambda: only(bench).counts()["busy"] <= only(bench).under_way)
            await tidy(bench)
