"""Suppressed recipients end before a try, and their sender hears of it. A refused RCPT tells of a bad address."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.mail.envelope import Recipient
from relay.policy.suppression import BadAddress, Change, Entry, Suppressions, SuppressionSet, hash_of, key_of
from tests.delivery.harness import config, delivering, until
from tests.support.upstream import Upstream

KEY = b"k" * 32


def suppressed(*addresses: str) -> Suppressions:
    made = Suppressions()
    made.begin(KEY, SuppressionSet())
    suppress(made, *addresses)
    return made


def suppress(suppressions: Suppressions, *addresses: str) -> None:
    entries = [Entry(key_of(hash_of(one, KEY), "manual"), 1_700_000_000, None, "left us") for one in addresses]
    suppressions.apply(Change(added=entries))


@pytest.mark.parametrize(("lane", "claimed"), [("otp", True), ("otp", False), ("bulk", True), ("bulk", False)])
async def test_a_suppressed_recipient_is_not_mailed_and_its_sender_hears_of_it(
    tmp_path: Path, lane: str, claimed: bool
) -> None:
    async with (
        Upstream() as one,
        delivering(tmp_path, config({"one": one}), on_disk=True, suppressions=suppressed("bob@example.net")) as bench,
    ):
        sent = await bench.send("Bob@example.net", "good@example.net", lane=lane, claimed=claimed)
        view = await bench.ended(sent, "suppressed", "sent")
        first, second = view["recipients"]
        assert (first["state"], first["reply"]) == ("suppressed", "550 5.7.1 suppressed: left us")
        assert (first["attempts"], second["state"]) == ([], "sent")
        await one.wait_for(2)
        assert sorted(tuple(each.recipients) for each in one.messages) == [("app@example.com",), ("good@example.net",)]
        (report,) = [each for each in one.messages if each.recipients == ("app@example.com",)]
        assert b"\r\nStatus: 5.7.1\r\n" in report.content
        assert b"suppressed: left us" in report.content


@pytest.mark.parametrize(
    ("sender", "notify"),
    [("", None), ("app@example.com", frozenset({"NEVER"})), ("app@example.com", frozenset({"SUCCESS"}))],
)
async def test_nothing_is_sent_about_it_where_no_failure_is_reported(tmp_path: Path, sender: str, notify: Any) -> None:
    async with (
        Upstream() as one,
        delivering(tmp_path, config({"one": one}), on_disk=True, suppressions=suppressed("bob@example.net")) as bench,
    ):
        await bench.ended(await bench.send(Recipient("bob@example.net", notify), sender=sender), "suppressed")
        await bench.ended(await bench.send("last@example.net", lane="bulk"))
        assert [tuple(each.recipients) for each in one.messages] == [("last@example.net",)]


async def test_waiting_mail_ends_at_its_next_try(tmp_path: Path) -> None:
    suppressions = suppressed()
    async with (
        Upstream(script={"rcpt": "450 4.2.1 later"}) as one,
        delivering(tmp_path, config({"one": one}), on_disk=True, suppressions=suppressions) as bench,
    ):
        sent = await bench.send("bob@example.net")
        await bench.ended(sent, "deferred")
        suppress(suppressions, "bob@example.net")
        view = await bench.ended(sent, "suppressed")
        assert view["recipients"][0]["attempts"] != []


REPLIES: dict[str, tuple[Any, str | None]] = {
    "an unknown user": ({"rcpt": "550 5.1.1 no such user"}, "5.1.1"),
    "no such domain": ({"rcpt": "550 5.1.2 no such domain"}, "5.1.2"),
    "a bad sender": ({"rcpt": "550 5.1.8 bad sender domain"}, None),
    "policy": ({"rcpt": "550 5.7.1 refused"}, None),
    "a full mailbox": ({"rcpt": "552 5.2.2 full"}, None),
    "no enhanced code": ({"rcpt": "550 no such user 5.1.1"}, None),
    "at the final dot": ({"dot": "550 5.1.1 no such user"}, None),
    "to MAIL": ({"mail": "550 5.1.1 no"}, None),
}


@pytest.mark.parametrize("case", REPLIES)
async def test_only_a_refused_rcpt_tells_of_a_bad_address(tmp_path: Path, case: str) -> None:
    script, code = REPLIES[case]
    found: list[BadAddress] = []
    async with Upstream(script=script) as one, Upstream() as other:
        settings = config({"one": one, "other": other})
        async with delivering(tmp_path, settings, bad_addresses=found) as bench:
            await bench.ended(await bench.send("bob@example.net"))
            await until(lambda: bool(found) or code is None)
    assert [(bad.lane, bad.address, bad.code, bad.upstream) for bad in found] == (
        [] if code is None else [("otp", "bob@example.net", code, "one")]
    )
