"""Servers that lose step with messages behind each other: no message is `sent` without a reply that says so, none
hangs, and nothing is written to a session whose replies can't be paired any more."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.upstream.accounting import account, account_out_of_step
from tests.upstream.receiver import NESTED, Change, Receiver, changed
from tests.upstream.sequence import BDAT, DATA, Network, Played, messages, play, results, run
from tests.upstream.test_faults import talk

MODES = pytest.mark.parametrize("extensions", [DATA, BDAT], ids=["DATA", "BDAT"])
WAYS = pytest.mark.parametrize(
    ("extensions", "depth"),
    [(DATA, 1), (DATA, 2), (DATA, 8), (BDAT, 1), (BDAT, 2), (BDAT, 3), (BDAT, 8)],
    ids=lambda value: "BDAT" if value == BDAT else "DATA" if value == DATA else str(value),
)
HELD = pytest.mark.parametrize("holds", [False, True], ids=["at once", "late"])


def outcomes(played: Played, number: int) -> set[str]:
    message = played.messages[number]
    return {each.outcome for each in results(message).values()} if message.task else set()


@WAYS
@HELD
@pytest.mark.parametrize(
    "change",
    [
        Change(before=b"250 surplus\r\n"),
        Change(before=b"550 surplus\r\n"),
        Change(after=b"250 surplus\r\n"),
        Change(after=b"25"),
        Change(after=b"421 closing\r\n", closes=True),
        Change(is_missing=True),
        Change(before=b"what?\r\n"),
        Change(before=b"150 wait\r\n"),
        Change(after=b"\xff\x00\r\n"),
    ],
    ids=lambda change: f"{(change.before + change.after).strip()!r}" if change.before + change.after else "missing",
)
def test_no_message_is_sent_without_a_reply_that_says_so(
    extensions: Sequence[str], depth: int, holds: bool, change: Change
) -> None:
    async def upset() -> None:
        whole = await play(extensions, messages(depth + 1), network=Network(holds_replies=holds), depth=depth)
        for at in range(len(whole.receiver.replies)):
            receiver = Receiver(changed(at, change))
            played = await play(extensions, messages(depth + 1), receiver, Network(holds_replies=holds), depth=depth)
            account_out_of_step(played)

    run(upset())


@WAYS
def test_a_server_that_throws_away_what_it_read_ahead_gets_each_once(extensions: Sequence[str], depth: int) -> None:
    """The messages that it answered are known, the next is over soon."""

    async def discards() -> None:
        for which in range(depth):
            receiver = Receiver(discards=lambda message, which=which: message == which)  # type: ignore[misc]
            played = await play(extensions, messages(depth), receiver, Network(holds_replies=True), depth=depth)
            account(played)
            for number in range(which + 1):
                assert outcomes(played, number) == {"sent"}
            for number in range(which + 1, depth):
                assert outcomes(played, number) <= {"ambiguous" if extensions == BDAT else "abandoned"} | {"sent"}

    run(discards())


@MODES
@HELD
@pytest.mark.parametrize("depth", [2, 4, 8])
def test_503_to_a_mail_behind_a_content_is_said_to_be_out_of_step(
    extensions: Sequence[str], holds: bool, depth: int
) -> None:
    def nested(_: int, to: str) -> Change:
        return Change(NESTED if to == "mail 1" else 0)

    played = run(play(extensions, messages(3), Receiver(nested), Network(holds_replies=True), depth=depth))
    account(played)
    second = played.messages[1].task
    assert second is not None
    assert second.result().out_of_step
    assert second.result().behind
    assert outcomes(played, 0) == outcomes(played, 2) == {"sent"}


@HELD
def test_a_server_that_takes_data_for_no_one_gets_an_empty_content(holds: bool) -> None:
    """RFC 2920 3.1: it answers 354 though no recipient was accepted."""

    def refuses(_: int, to: str) -> Change:
        return Change(550 if to.startswith("rcpt 1") else 0)

    receiver = Receiver(refuses, takes_data_for_no_one=True)
    played = run(play(DATA, messages(4), receiver, Network(holds_replies=holds), depth=4))
    account(played)
    assert [outcomes(played, number) for number in range(4)] == [{"sent"}, {"refused"}, {"sent"}, {"sent"}]
    assert b"" in receiver.contents


async def test_an_upstream_that_is_silent_behind_421_has_not_timed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("relay.upstream.smtp.flight.CLOSES_WITHIN_S", 0.05)
    one = talk("PIPELINING", "CHUNKING")
    await one.says(b"250 mail\r\n250 a\r\n421 4.3.2 closing\r\n")
    report = await one.report
    assert not report.timed_out
    assert {result.outcome for result in report.results} == {"deferred"}
    assert not one.session.usable
