"""Debian's Postfix as the upstream, in a private instance, a sink of ours behind it."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import dkim
import pytest
import pytest_asyncio

from tests.support.app import OTP, Talk, letter
from tests.support.postfix import Postfix, why_not
from tests.support.relay import RelayProcess, command, get, time_line, write_config
from tests.support.upstream import Received, Upstream

pytestmark = [pytest.mark.real, pytest.mark.asyncio(loop_scope="module")]

_numbers = itertools.count()
WAYS = ("chunked", "pipelined", "plain")


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    postfix: Postfix
    sink: Upstream
    records: dict[str, str]

    async def send(self, way: str, *recipients: str, text: str = "hello", rcpt: str = "", sender: str = OTP) -> str:
        """The message's id; it goes to Postfix in that way."""
        async with Talk(self.relay.smtp) as app:
            content = letter(text, sender=OTP, extra=f"X-Relay-Lane: {way}\r\n")
            return await app.submit(content, sender, *recipients, rcpt=rcpt)

    async def arrived(self, recipient: str) -> Received:
        sink = self.sink
        await sink.wait_until(lambda: any(recipient in one.recipients for one in sink.messages), 20)
        (only,) = [one for one in sink.messages if recipient in one.recipients]
        return only


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    if (reason := why_not()) is not None:
        pytest.skip(reason)
    directory = tmp_path_factory.mktemp("postfix")
    records, keys = {}, []
    for selector, option in (("s1", ()), ("e1", ("--ed25519",))):
        made = await command("keygen", "auth.example.com", selector, "--out", directory, *option)
        records[f"{selector}._domainkey.auth.example.com"] = "".join(re.findall(r'"([^"]*)"', made.out))
        keys.append({"selector": selector, "key_file": str(directory / f"auth.example.com.{selector}.pem")})
    async with Upstream() as sink, Postfix((sink.host, sink.port)) as postfix:
        ports = dict(zip(WAYS, (postfix.port, postfix.unchunked_port, postfix.plain_port), strict=True))
        upstreams = {way: {"host": "127.0.0.1", "port": port, "tls": "none"} for way, port in ports.items()}
        lanes: dict[str, Any] = {
            way: {"upstreams": [way], "retry": ["200ms"], "expires": "10m", "suppress": "none"} for way in WAYS
        }  # fmt: skip
        lanes["bulk"] = {"upstreams": ["pipelined"], "retry": ["1s"], "expires": "2d"}
        rules = [{"name": way, "match": {"header": {"X-Relay-Lane": way}}, "lane": way} for way in WAYS]
        signing = [{"domain": "auth.example.com", "keys": keys}]
        config = write_config(directory, upstreams, lanes=lanes, rules=rules, dkim=signing, workers=0)
        async with RelayProcess(config) as relay:
            yield World(relay, postfix, sink, records)


def somebody() -> str:
    return f"user{next(_numbers)}@example.net"


@pytest.mark.parametrize("way", WAYS)
async def test_mail_goes_through_a_real_mta_and_its_signatures_still_hold(world: World, way: str) -> None:
    message_id = await world.send(way, to := somebody(), text="Grüße\r\n.\r\n..dots  \r\n" + "x" * 900)
    shown = await time_line(world.relay, message_id, "sent")
    assert re.match(r"250 2\.0\.0 Ok: (\d+ bytes )?queued as [0-9A-Za-z]+", shown["recipients"][0]["reply"])
    content = (await world.arrived(to)).content
    assert content.endswith("\r\n\r\nGrüße\r\n.\r\n..dots  \r\n".encode() + b"x" * 900 + b"\r\n")

    def record(name: bytes, timeout: int = 5) -> bytes:
        return world.records[name.decode().rstrip(".")].encode()

    verifier: Any = dkim.DKIM(content)  # type: ignore[no-untyped-call]
    assert [verifier.verify(n, dnsfunc=record) for n in (0, 1)] == [True, True]


@pytest.mark.parametrize("way", WAYS)
async def test_each_recipient_has_its_own_end_and_the_sender_is_told(world: World, way: str) -> None:
    sender = f"sender-{way}@auth.example.com"
    kept = somebody()
    message_id = await world.send(way, "refused@example.net", kept, sender=sender)
    shown = await time_line(world.relay, message_id, "sent", "bounced")
    states = {one["address"]: one["state"] for one in shown["recipients"]}
    assert states == {"refused@example.net": "bounced", kept: "sent"}
    assert (await world.arrived(kept)).sender == sender
    bounce = await world.arrived(sender)
    assert bounce.sender == ""
    assert b"550 5.1.1 <refused@example.net>: Recipient address rejected: unknown here" in bounce.content


@pytest.mark.parametrize("way", WAYS)
async def test_a_crowd_gets_through_once_each(world: World, way: str) -> None:
    several = [somebody() for _ in range(40)]
    await asyncio.gather(*(world.send(way, to) for to in several))
    for to in several:
        await world.arrived(to)


async def test_dsn_parameters_reach_it(world: World) -> None:
    await world.send("chunked", to := somebody(), rcpt="NOTIFY=NEVER")
    assert "NOTIFY=NEVER" in (await world.arrived(to)).rcpts[0]


async def test_mail_waits_while_it_is_away_and_goes_when_it_is_back(world: World) -> None:
    await world.postfix.stop()
    several = {way: somebody() for way in WAYS}
    ids = [await world.send(way, to) for way, to in several.items()]
    for message_id in ids:
        shown = (await get(world.relay, f"/api/messages/{message_id}")).document
        assert shown["recipients"][0]["state"] in ("queued", "sending", "deferred")
    await world.postfix.start()
    for message_id in ids:
        await time_line(world.relay, message_id, "sent")
    for to in several.values():
        await world.arrived(to)
