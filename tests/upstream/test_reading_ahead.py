"""Whether messages may stand behind each other is learnt: from servers that read ahead, and from those that don't."""

from __future__ import annotations

import time
from typing import Any

import pytest

from relay.upstream.smtp.upstream import SmtpUpstream
from tests.support.dialogue import Dialogue
from tests.support.script import Delay, Moment
from tests.support.upstream import ReplyThenClose, Upstream
from tests.upstream.test_bursts import BDAT, MODES, ONE_SESSION, account, all_sent, burst
from tests.upstream.test_pool import config, eventually, pool, watched


def _throws_away_what_it_read_ahead(patch: pytest.MonkeyPatch) -> None:
    """Whatever stands behind a content when that is answered."""
    really = Dialogue._content

    async def content(dialogue: Dialogue, *args: Any) -> None:
        await really(dialogue, *args)
        wire = dialogue.wire
        wire._take(len(wire._buffer))

    patch.setattr(Dialogue, "_content", content)


def proven(one: SmtpUpstream) -> bool:
    return one.pool.depth.is_proven


@MODES
async def test_a_server_that_throws_away_what_it_read_ahead_gets_no_message_falsely(
    extensions: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.upstream.smtp.flight.BEGINS_WITHIN_S", 0.2)
    _throws_away_what_it_read_ahead(monkeypatch)
    sessions = {"warm": "auto", "max": 4, "depth": 4}
    async with (
        Upstream(extensions, latency_s=0.02) as upstream,
        pool(config(upstream, sessions=sessions)) as one,
    ):
        await eventually(lambda: one.counts()["idle"] == 2)
        for at in range(2):
            reports = await burst(one, range(at * 20, at * 20 + 20))
            all_sent(upstream, reports)
        assert watched(one) == ["one at a time"]


async def test_a_server_that_reads_ahead_gets_whole_messages_behind_each_other() -> None:
    async with Upstream(BDAT, latency_s=0.02) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        assert not proven(one)
        account(upstream, await burst(one, range(6)))
        assert proven(one)
        account(upstream, await burst(one, range(6, 12)))
        assert proven(one)


async def test_a_surplus_reply_ends_it() -> None:
    def surplus(moment: Moment) -> str | None:
        return "250 2.0.0 ok\n250 2.0.0 and again" if moment.step == "dot" and moment.n % 3 == 2 else None

    async with (
        Upstream(BDAT, script=surplus, latency_s=0.02) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        one.pool.depth.is_proven = True
        await eventually(lambda: one.counts()["idle"] == 1)
        for at in range(3):
            await burst(one, range(at * 10, at * 10 + 10))
        await eventually(lambda: "one at a time" in watched(one))


@MODES
@pytest.mark.parametrize(
    "says", ["554 5.5.1 SMTP synchronization error", "421 4.7.0 improper use of SMTP command pipelining"]
)
async def test_a_refusal_that_blames_pipelining_refuses_no_message(extensions: tuple[str, ...], says: str) -> None:
    def script(moment: Moment) -> Any:
        behind = moment.step == "dot" and one.pool.depth.now(time.monotonic()) > 1 and len(one.pool.loans) > 1
        return ReplyThenClose(says) if behind else None

    async with (
        Upstream(extensions, script=script, latency_s=0.05) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        await eventually(lambda: one.counts()["idle"] == 1)
        reports = await burst(one, range(6))
        all_sent(upstream, reports)
        assert watched(one) == ["one at a time"]


@MODES
async def test_no_message_waits_behind_a_content_that_is_answered_late(extensions: tuple[str, ...]) -> None:
    """Another session is opened in less time."""

    def script(moment: Moment) -> Any:
        return Delay(0.4) if moment.step == "dot" else None

    sessions = {"warm": 2, "max": 8, "depth": 4}
    async with Upstream(extensions, script=script) as upstream, pool(config(upstream, sessions=sessions)) as one:
        await eventually(lambda: one.counts()["idle"] == 2)
        account(upstream, await burst(one, range(1)))
        account(upstream, await burst(one, range(1, 9)))
        carried = [session.transfers for session in upstream.sessions]
        assert sorted(carried) == [1] * 7 + [2]


async def test_421_and_close_of_a_kept_session_costs_another_kept_one() -> None:
    def script(moment: Moment) -> Any:
        return ReplyThenClose("421 4.3.2 too many messages") if moment.step == "rcpt" and moment.n == 3 else None

    sessions = {"warm": 2, "max": 2, "depth": 1}
    async with Upstream(script=script) as upstream, pool(config(upstream, sessions=sessions)) as one:
        await eventually(lambda: one.counts()["idle"] == 2)
        for number in range(3):
            account(upstream, await burst(one, range(number, number + 1)))
        (report,) = (await burst(one, range(3, 4))).values()
        assert (report.session, report.results[0].outcome) == ("warm", "sent")
        assert 421 in report.codes
