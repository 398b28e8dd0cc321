"""`redirect`: one copy of a message goes to one address; everything but the wire has the true recipients."""

from __future__ import annotations

import email
import email.policy
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Config
from relay.mail.envelope import Recipient
from relay.mail.original_to import original_to, with_field
from relay.policy.suppression import BadAddress
from tests.delivery.harness import CONTENT, config, delivering, outcomes
from tests.delivery.test_suppressing import suppressed
from tests.support.upstream import Close, Hang, Upstream

STAGING = "staging@example.com"
ASKED = Recipient("first@example.net", frozenset({"SUCCESS"}), "rfc822;first@example.net")


def redirected(upstreams: Any, **lane: Any) -> Config:
    return config(upstreams, **lane).model_copy(update={"redirect": STAGING})


def true_recipients(content: bytes) -> list[str]:
    field = email.message_from_bytes(content, policy=email.policy.default)["X-Original-To"]
    return [one.strip() for one in str(field).split(",")]


def rcpts(upstream: Upstream) -> list[str]:
    return [line for session in upstream.sessions for _, line in session.commands if line.startswith("RCPT")]


@pytest.mark.parametrize("claimed", [True, False])
async def test_one_copy_for_more_recipients_than_a_transaction_may_have(tmp_path: Path, claimed: bool) -> None:
    people = [f"person{number}@example.net" for number in range(250)]
    async with Upstream() as one, delivering(tmp_path, redirected({"one": one}), on_disk=True) as bench:
        view = await bench.ended(await bench.send(*people, claimed=claimed))
        (got,) = one.messages
        assert got.recipients == (STAGING,)
        assert true_recipients(got.content) == people
        assert got.content.endswith(b"\r\n" + CONTENT)
        assert [each["address"] for each in view["recipients"]] == people
        assert {each["state"] for each in view["recipients"]} == {"sent"}
        assert {len(each["attempts"]) for each in view["recipients"]} == {1}
        assert [note["text"] for note in view["notes"]] == [
            "one copy went to the redirect address instead of the recipients"
        ]


async def test_no_wish_of_one_recipient_reaches_the_upstream_and_the_relay_reports_success(tmp_path: Path) -> None:
    async with Upstream() as one, delivering(tmp_path, redirected({"one": one})) as bench:
        await bench.ended(await bench.send(ASKED, Recipient("quiet@example.net", frozenset({"NEVER"}))))
        first, report = await one.wait_for(2)
        of_report = f"RCPT TO:<{STAGING}> NOTIFY=NEVER"
        assert rcpts(one) == [f"RCPT TO:<{STAGING}>", of_report]
        assert first.recipients == report.recipients == (STAGING,)
        assert true_recipients(report.content) == ["app@example.com"]
        assert b"Action: relayed" in report.content
        assert b"first@example.net" in report.content
        assert b"quiet@example.net" not in report.content
        quiet = [Recipient(f"{name}@example.net", frozenset({"NEVER"})) for name in "ab"]
        await bench.ended(await bench.send(*quiet))
        await one.wait_for(3)
        assert rcpts(one)[2:] == [of_report]


async def test_a_refused_redirect_address_bounces_all_and_suppresses_none(tmp_path: Path) -> None:
    bad: list[BadAddress] = []
    async with (
        Upstream(script={"rcpt": "550 5.1.1 no such user"}) as one,
        delivering(tmp_path, redirected({"one": one}), on_disk=True, bad_addresses=bad) as bench,
    ):
        view = await bench.ended(await bench.send("a@example.net", "b@example.net", sender=""))
        assert [each["state"] for each in view["recipients"]] == ["bounced", "bounced"]
        assert [note["text"] for note in view["notes"]] == ["the reply is about the redirect address"]
        await bench.ended(await bench.send("c@example.net", sender=""))
        assert bad == []


async def test_failover_and_hedging_send_one_copy(tmp_path: Path) -> None:
    async with (
        Upstream(script={"dot": ["451 4.3.0 later"]}) as one,
        Upstream() as two,
        delivering(tmp_path, redirected({"one": one, "two": two}), on_disk=True) as bench,
    ):
        view = await bench.ended(await bench.send("a@example.net", "b@example.net"))
        for position in (0, 1):
            assert outcomes(view, position) == [("one", "deferred"), ("two", "sent")]
        assert len(two.messages) == 1
    async with (
        Upstream(script={"mail": Hang()}) as slow,
        Upstream() as two,
        delivering(tmp_path, redirected({"slow": slow, "two": two}, hedge=0.05)) as bench,
    ):
        view = await bench.ended(await bench.send("a@example.net", "b@example.net"))
        for position in (0, 1):
            assert outcomes(view, position) == [("slow", "abandoned"), ("two", "sent")]
        assert [each.recipients for each in two.messages] == [(STAGING,)]


async def test_an_unknown_outcome_is_unknown_for_each(tmp_path: Path) -> None:
    async with (
        Upstream(script={"dot": Close()}) as one,
        delivering(tmp_path, redirected({"one": one}, on_ambiguous="hold"), on_disk=True) as bench,
    ):
        view = await bench.ended(await bench.send("a@example.net", "b@example.net"), "ambiguous")
        assert [each["state"] for each in view["recipients"]] == ["ambiguous", "ambiguous"]


async def test_a_suppressed_recipient_gets_none_and_is_not_named(tmp_path: Path) -> None:
    async with (
        Upstream() as one,
        delivering(tmp_path, redirected({"one": one}), on_disk=True, suppressions=suppressed("b@example.net")) as bench,
    ):
        await bench.ended(await bench.send("b@example.net", sender=""), "suppressed")
        view = await bench.ended(await bench.send("a@example.net", "b@example.net", sender=""), "sent", "suppressed")
        assert [each["state"] for each in view["recipients"]] == ["sent", "suppressed"]
        assert [true_recipients(each.content) for each in one.messages] == [["a@example.net"]]


async def test_an_upstream_without_smtputf8_takes_it_for_internationalized_recipients(tmp_path: Path) -> None:
    async with (
        Upstream(extensions=["8BITMIME"]) as one,
        delivering(tmp_path, redirected({"one": one})) as bench,
    ):
        await bench.ended(await bench.send("jörg@exämple.net", "b@example.net", smtputf8=True))
        assert one.messages[0].content.isascii()
        assert true_recipients(one.messages[0].content) == ["jörg@exämple.net", "b@example.net"]


def test_the_field_is_one_field_whatever_stands_in_an_address() -> None:
    field = original_to(['"a\r\nBcc: x@evil.example"@example.net', "b@example.net", "ü" * 120 + "@example.net"])
    assert field.isascii()
    assert all(line[:1] == b" " for line in field.removesuffix(b"\r\n").split(b"\r\n")[1:])
    assert max(map(len, field.split(b"\r\n"))) < 998


def test_a_folded_first_line_stays_above_the_field() -> None:
    field = b"X-Original-To: a@example.net\r\n"
    content = b" folded\r\n\tonce more\r\nFrom: a@example.com\r\n\r\nhi\r\n"
    assert b"".join(with_field((content,), field)) == (
        b" folded\r\n\tonce more\r\nX-Original-To: a@example.net\r\nFrom: a@example.com\r\n\r\nhi\r\n"
    )
    assert with_field((b"DKIM-Signature: x\r\n", content), field)[0] == field
