"""The contract's section 7 as an app sees it: what is announced, what a message goes through, where it goes."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime

import pytest
import pytest_asyncio

from tests.support.app import BULK, OTP, QUEUED, Talk, letter
from tests.support.relay import RelayProcess, get, time_line, write_config
from tests.support.upstream import Received, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()

RULES = [
    {"name": "explicit", "match": {"header": {"X-Relay-Lane": "otp"}}, "lane": "otp"},
    {"name": "auth-sender", "match": {"sender": ["*@auth.example.com", "login@*"]}, "lane": "otp"},
    {
        "name": "three-at-once",
        "match": {"client": "127.0.0.0/8", "recipient": "*@staff.example.com", "subject": "/verification code/i"},
        "lane": "otp",
        "upstreams": ["second"],
    },
    {"name": "asked-for", "match": {"priority": 4}, "lane": "otp"},
]


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    first: Upstream
    second: Upstream

    async def arrived(self, recipient: str) -> Received:
        """The one message for that recipient, at whichever upstream."""

        def found() -> list[Received]:
            both = (*self.first.messages, *self.second.messages)
            return [one for one in both if recipient in one.recipients]

        async with asyncio.timeout(10):
            while not found():
                await asyncio.sleep(0.01)
        (only,) = found()
        return only


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("service")
    listen = [
        {"address": "127.0.0.1:0"},
        {"address": f"unix:{directory}/smtp.sock"},
        {"address": f"unix:{directory}/otp.sock", "lane": "otp"},
        {"address": f"unix:{directory}/any.sock", "auth": "any"},
    ]
    limits = {"message_size": "1MB", "recipients": 5}
    async with Upstream() as first, Upstream() as second:
        config = write_config(
            directory, {"first": first, "second": second}, listen=listen, rules=RULES, limits=limits, workers=1
        )
        async with RelayProcess(config) as relay:
            yield World(relay, first, second)


def somebody(domain: str = "example.net") -> str:
    """An address that no other test uses."""
    return f"user{next(_numbers)}@{domain}"


def unix(world: World, name: str) -> str:
    return next(one for one in world.relay.smtp_addresses if one.endswith(name)).removeprefix("unix:")


async def test_ehlo_offers_what_the_contract_lists_and_nothing_that_is_not_configured(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        name, *offered = app.offered
    assert name.split()[0] == "relay.example.com"
    words = [line.split()[0] for line in offered]
    assert sorted(words) == [
        "8BITMIME", "DELIVERBY", "DSN", "ENHANCEDSTATUSCODES", "MT-PRIORITY", "PIPELINING", "SIZE", "SMTPUTF8",
    ]  # fmt: skip
    assert "SIZE 1000000" in offered


async def test_auth_is_offered_where_it_is_configured_and_any_takes_every_credential(world: World) -> None:
    async with Talk(unix(world, "any.sock")) as app:
        assert any(line.split() == ["AUTH", "PLAIN", "LOGIN"] for line in app.offered)
        assert (await app.ask("AUTH PLAIN AHdob2V2ZXIAd2hhdGV2ZXI=")).startswith("235 ")
        await app.submit(letter(), BULK, somebody())


async def test_the_reply_to_the_dot_names_the_message_that_the_log_shows(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        await app.envelope(BULK, to := somebody())
        app.send(letter() + b".\r\n")
        said = await app.reply()
    found = QUEUED.fullmatch(said)
    assert found, said
    shown = await time_line(world.relay, found[1], "sent")
    assert shown["recipients"][0]["address"] == to


async def test_250_means_that_the_message_can_be_read_back_at_once(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        message_id = await app.submit(letter(), BULK, somebody())
    assert (await get(world.relay, f"/api/messages/{message_id}")).status == 200


ROUTES = [
    ("X-Relay-Lane: otp\r\n", BULK, "example.net", "", "hi", ("otp", "explicit")),
    ("x-relay-lane: OTP\r\n", BULK, "example.net", "", "hi", ("otp", "explicit")),
    ("", OTP, "example.net", "", "hi", ("otp", "auth-sender")),
    ("", "login@shop.example", "example.net", "", "hi", ("otp", "auth-sender")),
    ("", BULK, "staff.example.com", "", "Your Verification Code", ("otp", "three-at-once")),
    ("", BULK, "example.net", "", "Your verification code", ("bulk", None)),
    ("", BULK, "example.net", "MT-PRIORITY=4", "hi", ("otp", "asked-for")),
    ("", BULK, "example.net", "MT-PRIORITY=9", "hi", ("otp", "asked-for")),
    ("", BULK, "example.net", "MT-PRIORITY=3", "hi", ("bulk", None)),
    ("", BULK, "example.net", "MT-PRIORITY=-9", "hi", ("bulk", None)),
    ("", BULK, "example.net", "", "hi", ("bulk", None)),
]


@pytest.mark.parametrize(("header", "sender", "domain", "parameters", "subject", "expected"), ROUTES)
async def test_the_first_rule_whose_every_key_holds_names_the_lane(
    world: World,
    header: str,
    sender: str,
    domain: str,
    parameters: str,
    subject: str,
    expected: tuple[str, str | None],
) -> None:
    content = letter(subject=subject, extra=header)
    async with Talk(world.relay.smtp) as app:
        message_id = await app.submit(content, sender, somebody(domain), mail=parameters)
    shown = await time_line(world.relay, message_id, "sent")
    assert (shown["lane"], shown["rule"]) == expected
    upstream = "second" if expected[1] == "three-at-once" else "first"
    assert shown["recipients"][0]["upstream"] == upstream


async def test_the_from_header_counts_as_a_sender_too(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        message_id = await app.submit(letter(sender="Us <a@auth.example.com>"), "bounces@example.com", somebody())
    assert (await time_line(world.relay, message_id, "sent"))["rule"] == "auth-sender"


async def test_a_listener_pins_its_lane(world: World) -> None:
    async with Talk(unix(world, "otp.sock")) as app:
        message_id = await app.submit(letter(), BULK, somebody())
    assert (await time_line(world.relay, message_id, "sent"))["lane"] == "otp"


async def test_a_unix_socket_takes_mail(world: World) -> None:
    async with Talk(unix(world, "smtp.sock")) as app:
        message_id = await app.submit(letter(), BULK, to := somebody())
    assert (await world.arrived(to)).sender == BULK
    assert (await time_line(world.relay, message_id, "sent"))["client"] == "unix"


STEERING = [
    "X-Relay-Lane: bulk\r\n",
    "x-relay-whatever: folded\r\n\tover lines\r\n",
    "Bcc: hidden@example.net\r\n",
    "BCC: one@example.net,\r\n two@example.net\r\n",
    "Bcc:\r\n",
]


@pytest.mark.parametrize("header", STEERING)
async def test_what_steers_and_what_is_blind_is_removed_and_only_that(world: World, header: str) -> None:
    around = "X-Relayed: stays\r\nX-Bcc: stays\r\n"
    async with Talk(world.relay.smtp) as app:
        await app.submit(letter(extra=around + header + around), BULK, to := somebody())
    content = (await world.arrived(to)).content
    assert without_trace(content) == letter(extra=around + around)


async def test_a_missing_date_and_message_id_are_added_once(world: World) -> None:
    content = b"From: a@example.com\r\nSubject: hi\r\n\r\nbody\r\n"
    async with Talk(world.relay.smtp) as app:
        message_id = await app.submit(content, BULK, to := somebody())
    sent = (await world.arrived(to)).content
    head = sent.partition(b"\r\n\r\n")[0].decode()
    dates = re.findall(r"^Date: (.*)$", head, re.MULTILINE)
    ids = re.findall(r"^Message-ID: (<[^<>@\s]+@relay\.example\.com>)\r?$", head, re.MULTILINE)
    assert len(dates) == len(ids) == 1
    assert parsedate_to_datetime(dates[0].strip()).tzinfo is not None
    assert (await time_line(world.relay, message_id, "sent"))["message_id"] == ids[0]
    assert sent.endswith(content)


async def test_added_headers_stay_the_same_over_retries(world: World) -> None:
    to = somebody()
    world.first.set_script({"dot": "451 4.3.0 later"})
    world.second.set_script({"dot": ["451 4.3.0 later"]})
    try:
        async with Talk(world.relay.smtp) as app:
            message_id = await app.submit(b"From: a@auth.example.com\r\n\r\nbody\r\n", OTP, to)
        await time_line(world.relay, message_id, "sent")
    finally:
        world.first.set_script({})
        world.second.set_script({})
    tries = [one for one in (*world.first.transfers, *world.second.transfers) if to in one.recipients]
    assert len(tries) >= 3
    assert len({one.content for one in tries}) == 1


async def test_received_says_who_what_and_for_whom_unless_there_are_several(world: World) -> None:
    one, *two = somebody(), somebody(), somebody()
    async with Talk(world.relay.smtp) as app:
        message_id = await app.submit(letter(), BULK, one)
        await app.submit(letter(), BULK, *two)
    trace = unfolded((await world.arrived(one)).content)
    assert trace.startswith("Received: from app.example.com ([127.0.0.1])")
    assert f"by relay.example.com with ESMTP id {message_id}" in trace
    assert f"for <{one}>" in trace
    assert "for <" not in unfolded((await world.arrived(two[0])).content)


async def test_one_message_to_many_is_one_transaction(world: World) -> None:
    several = [somebody() for _ in range(5)]
    async with Talk(world.relay.smtp) as app:
        await app.submit(letter(), BULK, *several)
    assert (await world.arrived(several[0])).recipients == tuple(several)


async def test_esmtp_parameters_reach_an_upstream_that_offers_them(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        await app.submit(
            letter(), BULK, to := somebody(), mail="RET=HDRS ENVID=abc+3Ddef BODY=8BITMIME",
            rcpt="NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;other@example.net",
        )  # fmt: skip
    received = await world.arrived(to)
    assert {"RET=HDRS", "ENVID=abc+3Ddef", "BODY=8BITMIME"} <= set(received.mail_from.split())
    words = received.rcpts[0].split()
    assert "ORCPT=rfc822;other@example.net" in words
    assert {"NOTIFY=SUCCESS,FAILURE", "NOTIFY=FAILURE,SUCCESS"} & set(words)


async def test_the_null_sender_is_relayed_as_such(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        await app.submit(letter(), "", to := somebody())
    assert (await world.arrived(to)).mail_from.startswith("FROM:<>")


async def test_a_utf8_address_is_relayed_with_its_flag(world: World) -> None:
    to = f"jörg{somebody()}"
    async with Talk(world.relay.smtp) as app:
        message_id = await app.submit(letter(), BULK, to, mail="SMTPUTF8")
    assert (await time_line(world.relay, message_id, "sent"))["recipients"][0]["address"] == to


async def test_a_refusal_leaves_the_session_usable(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        assert (await app.ask(f"MAIL FROM:<{BULK}> SIZE=1000001")).startswith("552 5.")
        await app.envelope(BULK, somebody())
        app.send(b"Subject: big\r\n\r\n" + b"x" * 900 + b"\r\n")
        app.send((b"x" * 900 + b"\r\n") * 1200 + b".\r\n")
        assert (await app.reply()).startswith("552 5.")
        await app.ask(f"MAIL FROM:<{BULK}>")
        for _ in range(5):
            assert (await app.ask(f"RCPT TO:<{somebody()}>")).startswith("250 ")
        assert (await app.ask(f"RCPT TO:<{somebody()}>")).startswith("452 4.5.3")
        assert (await app.ask("RSET")).startswith("250 ")
        await app.submit(letter(), BULK, somebody())


async def test_a_pipelined_session_is_answered_in_order(world: World) -> None:
    to = somebody()
    async with Talk(world.relay.smtp) as app:
        app.send(f"MAIL FROM:<{BULK}>\r\nRCPT TO:<>\r\nRCPT TO:<{to}>\r\nDATA\r\n".encode())
        assert [(await app.reply())[:1] for _ in range(4)] == ["2", "5", "2", "3"]
        app.send(letter() + b".\r\nNOOP\r\nQUIT\r\n")
        assert [(await app.reply())[:3] for _ in range(3)] == ["250", "250", "221"]
        assert await app.reply() == ""
    assert (await world.arrived(to)).recipients == (to,)


async def test_a_client_that_closes_its_half_after_the_dot_is_stored_and_answered(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        await app.envelope(BULK, to := somebody())
        app.send(letter() + b".\r\n")
        app.writer.write_eof()
        assert QUEUED.fullmatch(await app.reply())
    await world.arrived(to)


async def test_a_client_that_is_gone_inside_data_leaves_nothing_behind(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        await app.envelope(BULK, to := somebody())
        app.send(letter())
    async with Talk(world.relay.smtp) as app:
        await app.submit(letter(), BULK, somebody())
    assert (await get(world.relay, f"/api/messages?to={to}")).document == []


async def test_two_hundred_connections_are_served_at_once(world: World) -> None:
    async def one(to: str) -> None:
        async with Talk(world.relay.smtp) as app:
            await app.submit(letter(), BULK, to)

    several = [somebody() for _ in range(200)]
    await asyncio.gather(*map(one, several))
    await world.arrived(several[-1])


def without_trace(content: bytes) -> bytes:
    """Without the Received field that the relay put on top."""
    found = re.match(rb"Received: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", content)
    assert found, content[:200]
    return content[found.end() :]


def unfolded(content: bytes) -> str:
    """The first field as one line."""
    found = re.match(rb"[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", content)
    assert found
    return re.sub(r"\r\n[ \t]+", " ", found[0].decode()).strip()
