"""Faults of the relay's own, while it writes down what became of mail: the outcome is kept whatever fails beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from relay.delivery import round as round_module
from relay.delivery import settlement, settler
from relay.delivery.bounce import Bouncer
from relay.mail.envelope import Recipient
from relay.mail.redact import redact_reply
from relay.store.model import Selection
from tests.delivery.harness import Bench, config, delivering, outcomes, until
from tests.support.upstream import Upstream

GONE = {"host": "127.0.0.1", "port": 9, "tls": "none"}


class Clumsy:
    """Stands in for a function of the relay's; it raises while `broken`."""

    def __init__(self, really: Any, *, broken: bool = True) -> None:
        self.really = really
        self.broken = broken

    def __call__(self, *args: Any, **options: Any) -> Any:
        if self.broken:
            raise RuntimeError("broken")
        return self.really(*args, **options)


def errors(bench: Bench) -> Sequence[str]:
    found = list(bench.events.errors)
    bench.events.errors.clear()
    return found


async def test_a_bounce_that_cannot_be_made_does_not_lose_the_outcome(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with (
        Upstream(script={"rcpt": "550 5.1.1 no such user"}) as one,
        delivering(tmp_path, config({"one": one})) as bench,
    ):
        monkeypatch.setattr(Bouncer, "__call__", Clumsy(Bouncer.__call__))
        view = await bench.ended(await bench.send("u@example.net"))
        assert view["recipients"][0]["state"] == "bounced"
        assert outcomes(view) == [("one", "refused")]
        assert errors(bench) == ["dsn: RuntimeError('broken')"]
        assert await bench.store.search(Selection(lane="bulk")) == []


async def test_an_accepted_message_whose_success_report_cannot_be_made_is_not_sent_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Recipient("u@example.net", frozenset({"SUCCESS"}))
    async with Upstream(("PIPELINING",)) as one:  # without DSN the report is the relay's
        async with delivering(tmp_path, config({"one": one}), on_disk=True) as bench:
            monkeypatch.setattr(Bouncer, "__call__", Clumsy(Bouncer.__call__))
            first = await bench.send(asked)
            assert (await bench.ended(first))["recipients"][0]["state"] == "sent"
            errors(bench)
        async with delivering(tmp_path, config({"one": one}), recover=True) as bench:
            await bench.ended(await bench.send("later@example.net"))
        assert [tuple(each.recipients) for each in one.messages] == [("u@example.net",), ("later@example.net",)]


@pytest.mark.parametrize("upstream", ["takes it", "is gone"])
async def test_the_last_resort_needs_nothing_of_what_failed(
    tmp_path: Path, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Upstream() as one:
        settings = config({"one": one if upstream == "takes it" else GONE}, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            monkeypatch.setattr(settler, "conclude", Clumsy(settlement.conclude))
            id_ = await bench.send("u@example.net")
            view = await bench.ended(id_, "sent", "deferred")
            assert view["recipients"][0]["state"] == ("sent" if upstream == "takes it" else "deferred")
            assert errors(bench) == ["delivery: RuntimeError('broken')"]


async def test_where_nothing_can_be_written_down_a_message_waits_for_its_next_step_and_then_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Upstream() as one:
        port = one.port
        settings = config({"one": one}, retry=(0.3,))
    async with delivering(tmp_path, settings) as bench:
        for name in ("conclude", "put_off"):
            monkeypatch.setattr(settler, name, Clumsy(getattr(settlement, name)))
        id_ = await bench.send("u@example.net")
        await until(lambda: len(bench.events.errors) >= 4)
        # It is given back with a delay: it doesn't come round and round.
        assert len(errors(bench)) < 20
        monkeypatch.undo()
        async with Upstream(port=port) as back:
            assert (await bench.ended(id_))["recipients"][0]["state"] == "sent"
            assert len(back.messages) == 1
        errors(bench)


async def test_a_reply_that_cannot_be_redacted_is_kept_as_its_code_and_what_was_sent_stays_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script: Any = {"rcpt": {"a@*": "550 5.1.1 no such user"}}
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one})) as bench:
        monkeypatch.setattr(round_module, "redact_reply", Clumsy(redact_reply))
        view = await bench.ended(await bench.send("a@example.net", "b@example.net", sender=""))
        assert [each["state"] for each in view["recipients"]] == ["bounced", "sent"]
        assert [each["reply"] for each in view["recipients"]] == ["550 5.1.1", "250 2.0.0"]
        assert len(one.messages) == 1
        assert errors(bench) == ["delivery: RuntimeError('broken')"]


async def test_a_code_that_expires_behind_an_open_circuit_says_what_opened_it(tmp_path: Path) -> None:
    async with delivering(tmp_path, config({"gone": GONE}, retry=(0.1,))) as bench:
        pool = bench.delivery.lane("otp").upstreams[0]
        await until(lambda: pool.circuit.state != "closed")
        id_ = await bench.send("u@example.net", sender="", life_s=0.6)
        view = await bench.ended(id_, "deferred")
        assert "no upstream is available (gone: " in view["recipients"][0]["reply"]
        view = await bench.ended(id_)
        assert view["recipients"][0]["state"] == "expired"
        assert "connection refused" in view["recipients"][0]["reply"]
        assert any("connection refused" in note["text"] for note in view["notes"])


async def test_a_claim_that_fails_as_it_never_should_stops_no_lane(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, config({"one": one})) as bench:
        really = bench.store.claim

        async def claim(*args: Any, **options: Any) -> Any:
            bench.store.claim = really  # type: ignore[method-assign]
            raise RuntimeError("broken")

        bench.store.claim = claim  # type: ignore[method-assign]
        assert (await bench.ended(await bench.send("u@example.net", claimed=False)))["recipients"][0]["state"] == "sent"
        assert len(errors(bench)) == 1


@pytest.mark.parametrize("express", [True, False])
async def test_an_operators_retry_is_tried_at_once_although_the_circuit_is_open(tmp_path: Path, express: bool) -> None:
    """The next probe is seconds away, and the ladder's next step further."""
    async with Upstream() as one:
        port = one.port
        settings = config({"one": one}, retry=(20.0,), express=express)
    async with delivering(tmp_path, settings) as bench:
        pool = bench.delivery.lane("otp").upstreams[0]
        id_ = await bench.send("u@example.net")
        await bench.ended(id_, "deferred")
        pool.circuit.probe_at += 30.0
        async with Upstream(port=port) as back:
            await bench.delivery.act("retry", Selection(ids=(id_,)))
            async with asyncio.timeout(5):
                await bench.ended(id_)
            assert len(back.messages) == 1


async def test_a_retry_that_meets_a_dead_upstream_is_due_again_when_it_comes_back(tmp_path: Path) -> None:
    """In a bulk lane, whose other mail keeps to the ladder."""
    async with Upstream() as one:
        port = one.port
        settings = config({"one": one}, retry=(20.0,), express=False)
    async with delivering(tmp_path, settings) as bench:
        urged, other = await bench.send("u@example.net"), await bench.send("o@example.net")
        for id_ in (urged, other):
            await bench.ended(id_, "deferred")
        await bench.delivery.act("retry", Selection(ids=(urged,)))
        await bench.ended(urged, "deferred")
        async with Upstream(port=port) as back:
            async with asyncio.timeout(12):
                await bench.ended(urged)
            await bench.ended(await bench.send("later@example.net"))
            assert [tuple(each.recipients) for each in back.messages] == [("u@example.net",), ("later@example.net",)]
        assert (await bench.view(other))["recipients"][0]["state"] == "deferred"
