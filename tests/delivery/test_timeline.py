"""Where a message's time went: the phases of an attempt add up to its duration, and those of a message to its total."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from relay.upstream.phases import PHASES
from tests.delivery.harness import MESSAGE_PHASES, config, delivering, job_of, until, warm
from tests.support.tls import Certificates
from tests.support.upstream import Close, Hang, Upstream

WITHIN_MS = 1.0
WAYS = [("PIPELINING",), ("PIPELINING", "CHUNKING"), ()]


def upstream(one: Upstream, **keys: Any) -> dict[str, Any]:
    return {"host": one.host, "port": one.port, "tls": "none", **keys}


def seconds(at: str) -> float:
    return datetime.fromisoformat(at).timestamp()


def adds_up(view: Mapping[str, Any]) -> Mapping[str, float]:
    """Checks a sent message; returns its timings."""
    timings: Mapping[str, float] = view["timings_ms"]
    sent = [one for each in view["recipients"] for one in each["attempts"] if one["outcome"] == "sent"]
    last = max(sent, key=lambda one: str(one["started_at"]))
    assert set(PHASES) <= set(last["timings_ms"])
    spent_ms = sum(last["timings_ms"].values())
    assert spent_ms == pytest.approx(timings["send"], abs=WITHIN_MS)
    ended_at = max(seconds(each["sent_at"]) for each in view["recipients"])
    assert (ended_at - seconds(last["started_at"])) * 1000 == pytest.approx(spent_ms, abs=2 * WITHIN_MS)
    assert sum(timings.get(phase, 0.0) for phase in MESSAGE_PHASES) == pytest.approx(timings["total"], abs=WITHIN_MS)
    assert all(spent >= 0.0 for spent in timings.values())
    return timings


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_waiting_for_the_only_session_is_a_phase_of_its_own(tmp_path: Path, way: tuple[str, ...]) -> None:
    async with Upstream(way, latency_s=0.03) as one:
        only = upstream(one, sessions={"warm": 1, "max": 1, "depth": 1})
        settings = config({"one": only}, attempt=10.0, concurrency=4)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            ids = [await bench.send(f"u{n}@example.net") for n in range(4)]
            timings = [adds_up(await bench.ended(each)) for each in ids]
    waited = sorted(each["session"] for each in timings)
    assert waited[0] < 30 < waited[1] < waited[2] < waited[3]
    assert all(each["connect"] == each["tls"] == each["auth"] == 0.0 for each in timings)


async def test_a_new_session_costs_what_was_waited_of_its_opening(tmp_path: Path, certificates: Certificates) -> None:
    async with Upstream(tls="starttls", certificate=certificates.good, auth={"u": "p"}, latency_s=0.02) as one:
        keys = {"tls": "starttls", "ca_file": certificates.ca_file, "username": "u", "password": "p"}
        settings = config({"one": upstream(one, **keys, sessions={"warm": 0})}, attempt=10.0)
        async with delivering(tmp_path, settings) as bench:
            timings = adds_up(await bench.ended(await bench.send("u@example.net")))
    assert min(timings["connect"], timings["tls"], timings["auth"]) >= 15
    assert timings["session"] < timings["total"] / 2


async def test_of_an_opening_that_was_under_way_before_the_message_came_only_the_rest_counts(tmp_path: Path) -> None:
    async with Upstream(auth={"u": "p"}, latency_s=0.15) as one:
        settings = config({"one": upstream(one, username="u", password="p")}, attempt=10.0, final=10.0)
        async with delivering(tmp_path, settings) as bench:
            await one.wait_until(lambda: any("EHLO" in session.verbs for session in one.sessions))
            timings = adds_up(await bench.ended(await bench.send("u@example.net")))
    assert timings["connect"] + timings["auth"] < 3 * 150 - 100


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
async def test_what_the_content_waited_for_its_commit_is_the_gates(tmp_path: Path, way: tuple[str, ...]) -> None:
    async with Upstream(way) as one, delivering(tmp_path, config({"one": one}, attempt=10.0)) as bench:
        await until(lambda: warm(bench))
        new, job = job_of(bench, "01JD0000000000000000000001")
        bench.delivery.lane("otp").offer(job)
        await asyncio.sleep(0.2)
        await bench.store.put(new, claimed=True)
        job.on_put(stored=True)
        timings = adds_up(await bench.ended(new.id))
    assert timings["gate"] >= 150
    assert timings["envelope"] + timings["data"] < 150


async def test_the_upstreams_that_were_asked_before_and_the_ladders_steps_are_what_came_earlier(
    tmp_path: Path,
) -> None:
    async with (
        Upstream(script={"rcpt": "450 4.2.0 later"}, latency_s=0.05) as refusing,
        Upstream(script={"rcpt": ["450 4.2.0 later"]}) as good,
    ):
        settings = config({"refusing": refusing, "good": good}, retry=(0.3,), attempt=10.0)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            timings = adds_up(await bench.ended(await bench.send("u@example.net")))
            assert timings["earlier"] >= 300
            assert timings["send"] < timings["earlier"]
            timings = adds_up(await bench.ended(await bench.send("v@example.net")))
            assert timings["earlier"] >= 45


async def test_a_kept_session_that_was_dead_is_part_of_the_try(tmp_path: Path) -> None:
    async with Upstream(script={"mail": [None, Close()]}) as one, delivering(tmp_path, config({"one": one})) as bench:
        await bench.ended(await bench.send("u@example.net"))
        view = await bench.ended(await bench.send("u@example.net"))
        adds_up(view)
        assert len(view["recipients"][0]["attempts"]) == 1


async def test_the_upstreams_rate_is_a_phase_where_there_is_one(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": upstream(one, rate="4/s")})) as bench:
        await until(lambda: warm(bench))
        ids = [await bench.send(f"u{n}@example.net") for n in range(6)]
        timings = [adds_up(await bench.ended(each)) for each in ids]
    assert max(each["rate"] for each in timings) >= 200


async def test_hedging_counts_the_way_that_won(tmp_path: Path) -> None:
    async with Upstream(script={"mail": Hang()}) as silent, Upstream() as good:
        settings = config({"silent": silent, "good": good}, hedge=0.2, attempt=10.0)
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            timings = adds_up(await bench.ended(await bench.send("u@example.net")))
    assert timings["earlier"] >= 190


@pytest.mark.parametrize("claimed", [True, False])
@pytest.mark.parametrize("lane", ["otp", "bulk"])
async def test_recipients_that_part_each_have_a_line_that_adds_up(tmp_path: Path, lane: str, claimed: bool) -> None:
    script: Any = {"rcpt": {"b@example.net": ["450 4.2.0 later"]}}
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one}, retry=(0.2,))) as bench:
        id_ = await bench.send("a@example.net", "b@example.net", lane=lane, claimed=claimed)
        timings = adds_up(await bench.ended(id_))
        assert timings["earlier"] >= 40


async def test_an_attempt_that_failed_adds_up_as_well(tmp_path: Path) -> None:
    scripts: list[Any] = [{"mail": Hang()}, {"rcpt": "450 4.2.0 no"}, {"data": "450 4.2.0 no"}, {"dot": "450 4.2.0 no"}]
    for script in scripts:
        async with Upstream(script=script) as one:
            settings = config({"one": one}, retry=(20.0,), attempt=0.3)
            with_store = tmp_path / next(iter(script))
            with_store.mkdir()
            async with delivering(with_store, settings) as bench:
                await until(lambda bench=bench: warm(bench))  # type: ignore[misc]
                before = bench.clock.now()
                view = await bench.ended(await bench.send("u@example.net"), "deferred")
                attempt = view["recipients"][0]["attempts"][0]
                most_ms = (bench.clock.now() - before) * 1000
                assert 0.0 < sum(attempt["timings_ms"].values()) <= most_ms
                if "mail" in script:
                    assert attempt["timings_ms"]["envelope"] >= 290


async def test_a_session_that_was_not_to_be_had_is_what_was_waited_for(tmp_path: Path) -> None:
    async with Upstream(script={"mail": [Hang()]}) as one:
        settings = config({"one": upstream(one, sessions={"warm": 1, "max": 1})}, attempt=0.4, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            await until(lambda: warm(bench))
            first: Any = bench.delivery.lane("otp").upstreams[0]
            assert first.pool.take_idle() is not None  # this test's task has it from now on
            view = await bench.ended(await bench.send("u@example.net"), "deferred")
    (attempt,) = view["recipients"][0]["attempts"]
    assert attempt["session"] == "none"
    assert attempt["timings_ms"]["session"] >= 350
    assert attempt["timings_ms"]["connect"] == 0.0
