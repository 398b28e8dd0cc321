"""More codes than sessions, over real sockets: each is accepted once, or its report says that this isn't known."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.mail.recode import Form
from relay.upstream.attempt import Progress, Report, Terms
from relay.upstream.gate import Gate
from relay.upstream.load import Finish, Parts
from relay.upstream.sessions.pool import NO_SESSION
from relay.upstream.smtp.upstream import SmtpUpstream
from tests.support.script import Moment
from tests.support.upstream import Close, Hang, ReplyThenClose, Reset, Upstream
from tests.upstream.test_pool import config, eventually, pool, watched

DATA = ("PIPELINING", "8BITMIME")
BDAT = (*DATA, "CHUNKING")
MODES = pytest.mark.parametrize("extensions", [DATA, BDAT], ids=["DATA", "BDAT"])
ONE_SESSION = {"warm": 1, "max": 1, "depth": 4}


@dataclass
class Code:
    """A load: one code for one recipient."""

    number: int
    accepted_at: float = field(default_factory=time.monotonic)
    gate: Gate = field(default_factory=lambda: Gate(steady() + 60))
    progress: Progress = field(default_factory=Progress)

    def __post_init__(self) -> None:
        to = Recipient(f"u{self.number}@example.net")
        self.message_id = f"id{self.number}"
        self.envelope = Envelope("a@example.com", (to,))
        self.recipients: Sequence[tuple[int, Recipient]] = [(0, to)]
        self.memo: dict[object, object] = {}
        self.redirected_to: str | None = None
        self.repeat_key: str | None = None
        self.is_part = False
        self.original = b"Subject: code %d\r\n\r\n.%d\r\n" % (self.number, self.number)

    async def content(self, form: Form) -> bytes:
        assert form == "as it is"
        return self.original

    async def signed(self, form: Form, finish: Finish) -> Parts:
        assert form == "as it is"
        assert finish == Finish()
        return lambda: [self.original]

    async def finished(self, finish: Finish) -> bytes:
        return self.original

    def finished_now(self, finish: Finish) -> bytes | None:
        return self.original


async def burst(one: SmtpUpstream, numbers: Sequence[int]) -> dict[int, Report]:
    """All at once; the report of each."""
    codes = [Code(number) for number in numbers]
    for code in codes:
        code.gate.open()
    sending = (one.send(code, code.gate, Terms(5.0, 2.0, code.progress)) for code in codes)
    reports = await asyncio.gather(*sending)
    return {code.number: report for code, report in zip(codes, reports, strict=True)}


def outcomes(reports: dict[int, Report]) -> dict[int, str]:
    assert all(len(report.results) == 1 and report.error is None for report in reports.values())
    return {number: report.results[0].outcome for number, report in reports.items()}


def accepted(upstream: Upstream) -> Counter[int]:
    """How often each code was accepted; its envelope and its content are the same message's."""
    found: Counter[int] = Counter()
    for message in upstream.messages:
        number = int(message.content.split()[2])
        assert [rcpt.partition(" ")[0] for rcpt in message.rcpts] == [f"TO:<u{number}@example.net>"]
        assert message.content == Code(number).original
        found[number] += 1
    return found


def account(upstream: Upstream, reports: dict[int, Report]) -> None:
    taken = accepted(upstream)
    assert all(times == 1 for times in taken.values()), "none is sent twice"
    for number, outcome in outcomes(reports).items():
        assert reports[number].results[0].reply != NO_SESSION, "none waits in vain"
        if outcome == "sent":
            assert taken[number]
        elif taken[number]:
            assert outcome == "ambiguous"


def all_sent(upstream: Upstream, reports: dict[int, Report]) -> None:
    assert set(outcomes(reports).values()) == {"sent"}
    account(upstream, reports)


@MODES
async def test_a_burst_goes_over_one_session(extensions: Sequence[str]) -> None:
    async with Upstream(extensions) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        reports = await burst(one, range(12))
        all_sent(upstream, reports)
        assert len(upstream.sessions) == 1
        assert watched(one) == []


@MODES
@pytest.mark.parametrize("at", range(4))
@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
@pytest.mark.parametrize(
    "what",
    [
        Close(),
        Close(taken=True),
        Reset(),
        ReplyThenClose("421 4.3.2 closing"),
        "421 4.3.2 busy",
        "451 4.3.0 x",
        "554 x",
    ],
    ids=str,
)
async def test_each_message_of_a_burst_has_its_end(extensions: Sequence[str], step: str, at: int, what: Any) -> None:
    """Whatever happens to one of them, and where."""
    if step == "data" and extensions == BDAT:
        step = "rset"
    script: Any = {step: [*[None] * at, what]}
    async with (
        Upstream(extensions, script=script) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        reports = await burst(one, range(6))
        account(upstream, reports)
        if extensions == DATA and not isinstance(what, str) and at:
            # Only a session that was kept is replaced for nothing.
            unsent = [number for number, outcome in outcomes(reports).items() if outcome != "sent"]
            assert len(unsent) <= (step == "dot"), "a lost session costs no message whose content hadn't left"
        again = await burst(one, range(6, 10))
        account(upstream, again)


@pytest.mark.parametrize("what", [Close(), Reset(), ReplyThenClose("421 4.3.2 closing")], ids=str)
@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
async def test_a_kept_session_that_is_lost_costs_one_fresh_session(step: str, what: Any) -> None:
    script: Any = {step: [None, what]}
    async with (
        Upstream(DATA, script=script) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        assert outcomes(await burst(one, [0])) == {0: "sent"}
        reports = await burst(one, [1])
        assert outcomes(reports) == {1: "sent"}
        account(upstream, reports)
        assert len(upstream.sessions) == 2
        assert one.circuit.state == "closed"
        assert watched(one) == []


def says_503_behind(moment: Moment) -> str | None:
    """To the second MAIL of the first session, as a server that isn't ready yet behind a content."""
    return "503 5.5.1 wait for the reply" if (moment.session, moment.n_in_session) == (0, 1) else None


@pytest.mark.parametrize(
    ("extensions", "script"),
    [
        (DATA, {"mail": says_503_behind}),
        (BDAT, {"mail": says_503_behind}),
        (DATA, {"dot": [ReplyThenClose("250 2.0.0 ok")]}),
        (DATA, {"mail": [None, Close()]}),
    ],
    ids=["503", "503 with BDAT", "closes early", "closes at MAIL"],
)
async def test_an_upstream_that_cant_take_them_behind_each_other_gets_them_one_at_a_time(
    extensions: Sequence[str], script: Any
) -> None:
    async with (
        Upstream(extensions, script=script) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        await eventually(lambda: one.counts()["idle"] == 1)
        reports = await burst(one, range(6))
        all_sent(upstream, reports)
        assert watched(one) == ["one at a time"]
        more = await burst(one, range(6, 12))
        all_sent(upstream, more)
        assert watched(one) == ["one at a time"]
        assert one.pool.depth.now(time.monotonic()) == 1
        assert one.circuit.state == "closed"


async def test_a_server_that_throws_away_what_it_read_ahead_costs_no_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.upstream.smtp.flight.BEGINS_WITHIN_S", 0.1)

    def hangs(moment: Moment) -> Hang | None:
        return Hang() if (moment.session, moment.n_in_session) == (0, 1) else None

    async with (
        Upstream(DATA, script={"mail": hangs}) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        reports = await burst(one, range(6))
        all_sent(upstream, reports)
        assert watched(one) == ["one at a time"]


@MODES
@pytest.mark.parametrize("seed", range(12))
async def test_bursts_over_several_sessions_to_an_upstream_that_fails_at_random(
    extensions: Sequence[str], seed: int
) -> None:
    chance = random.Random(seed)
    faults: list[Any] = [Close(), Close(taken=True), Reset(), ReplyThenClose("421 4.3.2 closing"), "451 4.3.0 later"]

    def fails(moment: Moment) -> Any:
        in_mail = moment.step in ("mail", "rcpt", "data", "dot") and moment.default[0] in "23"
        return chance.choice(faults) if in_mail and chance.random() < 0.06 else None

    sessions = {"warm": "auto", "max": 3, "depth": 4, "messages": 7}
    async with (
        Upstream(extensions, script=fails) as upstream,
        pool(config(upstream, sessions=sessions)) as one,
    ):
        one.pool.depth.is_proven = seed % 2 == 0
        for at in range(4):
            account(upstream, await burst(one, range(at * 12, at * 12 + 12)))
        upstream.set_script({})
        await eventually(lambda: one.circuit.state == "closed" and one.counts()["idle"] == one.warm().sessions)
        reports = await burst(one, range(100, 112))
        all_sent(upstream, reports)
        await eventually(lambda: one.counts()["busy"] == 0)


@MODES
@pytest.mark.parametrize("what", [ReplyThenClose("421 4.3.2 closing"), "421 4.3.2 busy"], ids=str)
async def test_421_to_a_content_costs_only_its_own_message(extensions: Sequence[str], what: Any) -> None:
    """Those behind it go over a fresh session at once. It is no sign that they may not stand there."""
    script: Any = {"dot": [what]}
    async with (
        Upstream(extensions, script=script) as upstream,
        pool(config(upstream, sessions=ONE_SESSION)) as one,
    ):
        await eventually(lambda: one.counts()["idle"] == 1)
        reports = await burst(one, range(4))
        account(upstream, reports)
        assert list(outcomes(reports).values()) == ["deferred", "sent", "sent", "sent"]
        assert watched(one) == []


async def test_an_upstream_that_is_silent_after_421_opens_no_circuit() -> None:
    script: Any = {"dot": ["421 4.3.2 closing", Hang()]}
    async with Upstream(BDAT, script=script) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        one.pool.depth.is_proven = True
        reports = await burst(one, range(3))
        account(upstream, reports)
        assert list(outcomes(reports).values()) == ["deferred", "sent", "sent"]
        assert watched(one) == []


async def test_421_to_rset_leaves_no_outcome_unknown() -> None:
    """It was said before the upstream could read the message behind the RSET."""
    script: Any = {"rset": [ReplyThenClose("421 4.3.2 closing")]}
    async with Upstream(BDAT, script=script) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        reports = await burst(one, range(3))
        account(upstream, reports)
        assert set(outcomes(reports).values()) == {"sent"}
        assert watched(one) == []


async def test_an_upstream_that_refuses_rset_gets_one_message_at_a_time() -> None:
    def script(moment: Moment) -> Any:
        return "502 5.5.1 not implemented" if moment.step == "rset" else None

    async with Upstream(BDAT, script=script) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        account(upstream, await burst(one, range(3)))
        reports = await burst(one, range(3, 6))
        account(upstream, reports)
        assert set(outcomes(reports).values()) == {"sent"}
        assert watched(one) == ["one at a time"]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
async def test_503_to_any_command_behind_a_content_refuses_no_message(step: str) -> None:
    """As a server answers that takes messages behind each other for a fault of the client."""
    script: Any = {step: [None, "503 5.5.0 improper use of command pipelining"]}
    async with Upstream(DATA, script=script) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        reports = await burst(one, range(4))
        account(upstream, reports)
        assert set(outcomes(reports).values()) == {"sent"}
        assert watched(one) == ["one at a time"]


async def test_503_that_follows_from_a_refusal_is_no_such_sign() -> None:
    script: Any = {"mail": [None, "550 5.7.1 no"]}
    async with Upstream(DATA, script=script) as upstream, pool(config(upstream, sessions=ONE_SESSION)) as one:
        await eventually(lambda: one.counts()["idle"] == 1)
        reports = await burst(one, range(4))
        account(upstream, reports)
        assert Counter(outcomes(reports).values()) == {"sent": 3, "refused": 1}
        assert 503 in next(report.codes for report in reports.values() if report.results[0].outcome == "refused")
        assert watched(one) == []
