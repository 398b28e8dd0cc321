"""Mail that an upstream can't carry as it is: re-encoded before it is signed, sent elsewhere, or returned."""

from __future__ import annotations

import asyncio
import base64
import email
import email.header
import itertools
import re
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dkim
import pytest
import pytest_asyncio
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import RelayProcess, command, time_line, write_config
from tests.support.upstream import Received, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()
LANES = {
    "seven": ["seven"],
    "seven-eight": ["seven", "eight"],
    "eight": ["eight"],
    "eight-utf8": ["eight", "utf8"],
    "chunks": ["chunks"],
}


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    upstreams: dict[str, Upstream]
    records: dict[str, str]

    async def submit(self, content: bytes, lane: str, sender: str = OTP, mail: str = "", local: str = "") -> Any:
        """The message's time line once it is over."""
        to = f"{local}user{next(_numbers)}@{lane}.example.net"
        async with Talk(self.relay.smtp) as app:
            app.send(f"MAIL FROM:<{sender}> {mail}".rstrip().encode() + b"\r\n")
            assert (await app.reply()).startswith("250")
            app.send(f"RCPT TO:<{to}>\r\nDATA\r\n".encode())
            assert [(await app.reply())[:3] for _ in range(2)] == ["250", "354"]
            app.send(content + b".\r\n")
            id_ = (await app.reply()).rpartition(" ")[2]
        return await time_line(self.relay, id_, "sent", "bounced")

    def got(self, view: Any) -> Received:
        """What arrived, at the upstream that it was sent to."""
        (one,) = view["recipients"]
        assert one["state"] == "sent", one
        (received,) = [
            each for each in self.upstreams[one["upstream"]].messages if one["address"] in each.recipients
        ]  # fmt: skip
        return received

    def signatures_hold(self, content: bytes) -> None:
        def record(name: bytes, timeout: int = 5) -> bytes:
            return self.records[name.decode().rstrip(".")].encode()

        assert content.count(b"DKIM-Signature:") == 2
        verifier: Any = dkim.DKIM(content)  # type: ignore[no-untyped-call]
        assert [verifier.verify(n, dnsfunc=record) for n in (0, 1)] == [True, True]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("hygiene")
    records = {}
    for selector, option in (("s1", ()), ("e1", ("--ed25519",))):
        made = await command("keygen", "auth.example.com", selector, "--out", directory, *option)
        assert made.code == 0, made.err
        records[f"{selector}._domainkey.auth.example.com"] = "".join(re.findall(r'"([^"]*)"', made.out))
    keys = [{"selector": name, "key_file": str(directory / f"auth.example.com.{name}.pem")} for name in ("s1", "e1")]
    async with (
        Upstream(("PIPELINING", "SIZE 100000")) as seven,
        Upstream(("PIPELINING", "8BITMIME")) as eight,
        Upstream(("8BITMIME", "SMTPUTF8")) as utf8,
        Upstream(("PIPELINING", "CHUNKING")) as chunks,
    ):
        upstreams = {"seven": seven, "eight": eight, "utf8": utf8, "chunks": chunks}
        config = write_config(
            directory,
            upstreams,
            lanes={name: {"upstreams": own, "retry": ["1s"], "expires": "10m"} for name, own in LANES.items()},
            rules=[{"name": name, "match": {"recipient": f"*@{name}.example.net"}, "lane": name} for name in LANES],
            default_lane="eight",
            dkim=[{"domain": "auth.example.com", "keys": keys}],
            workers=0,
        )
        async with RelayProcess(config) as relay:
            yield World(relay, upstreams, records)


TEXT = "Grüße, Ihr Code ist 123456\r\n.\r\n".replace("\r\n.", "\r\n..").encode()
ARRIVES = TEXT.replace(b"\r\n..", b"\r\n.")
ALTERNATIVE = letter(
    sender=OTP,
    extra="MIME-Version: 1.0\r\nContent-Type: multipart/alternative; boundary=b\r\n",
    text="--b\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\nGrüße\r\n"
    "--b\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>日本日本日本日本</p>\r\n--b--\r\n",
)
EIGHT_BIT = {
    "without MIME": letter(sender=OTP).replace(b"hello\r\n", TEXT),
    "declared": letter(
        sender=OTP,
        extra="MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n",
    ).replace(b"hello\r\n", TEXT),
    "multipart": ALTERNATIVE,
    "the header too": letter(sender=OTP, subject="Bestätigung").replace(b"hello\r\n", TEXT),
    "large": letter(sender=OTP).replace(b"hello\r\n", "Größe 1\r\n".encode() * 5_000),
}


def leaves(content: bytes) -> list[bytes]:
    """The leaves, decoded."""
    parts: list[Any] = list(email.message_from_bytes(content).walk())
    return [part.get_payload(decode=True) for part in parts if not part.is_multipart()]


@pytest.mark.parametrize("lane", ["seven", "chunks"])
@pytest.mark.parametrize("mail", ["", "BODY=8BITMIME"])
@pytest.mark.parametrize("name", EIGHT_BIT)
async def test_8bit_mail_is_re_encoded_and_then_signed_for_an_upstream_of_seven_bits(
    world: World, name: str, mail: str, lane: str
) -> None:
    content = EIGHT_BIT[name]
    received = world.got(await world.submit(content, lane, mail=mail))
    assert received.content.isascii()
    assert "BODY" not in received.mail_from
    assert leaves(received.content) == leaves(content.replace(b"\r\n..", b"\r\n."))
    world.signatures_hold(received.content)
    size = re.search(r"SIZE=(\d+)", received.mail_from)
    assert size is None or abs(int(size[1]) - len(received.content)) < 2_000
    subject = email.message_from_bytes(received.content)["Subject"]
    assert str(email.header.make_header(email.header.decode_header(subject))) in ("hi", "Bestätigung")


@pytest.mark.parametrize("name", EIGHT_BIT)
async def test_the_same_mail_is_untouched_where_8bitmime_is_offered(world: World, name: str) -> None:
    received = world.got(await world.submit(EIGHT_BIT[name], "eight"))
    assert received.content.endswith(EIGHT_BIT[name].replace(b"\r\n..", b"\r\n."))
    assert "BODY=8BITMIME" in received.mail_from
    world.signatures_hold(received.content)


SMIME = letter(
    sender=OTP,
    extra="MIME-Version: 1.0\r\nContent-Type: multipart/signed; boundary=b; micalg=sha-256\r\n",
    text="--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nGrüße\r\n--b\r\n"
    "Content-Type: application/pkcs7-signature\r\n\r\nx\r\n--b--\r\n",
)
KEY = rsa.generate_private_key(65537, 2048)


def signed_by_another() -> bytes:
    content = letter(sender="a@other.example", text="Grüße")
    pem = KEY.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return bytes(dkim.sign(content, b"sel", b"other.example", pem)) + content


UNTOUCHABLE = {"S/MIME": SMIME, "signed by another": signed_by_another()}


@pytest.mark.parametrize("name", UNTOUCHABLE)
async def test_what_would_break_goes_to_an_upstream_that_carries_it(world: World, name: str) -> None:
    view = await world.submit(UNTOUCHABLE[name], "seven-eight")
    assert [one["upstream"] for one in view["recipients"][0]["attempts"]] == ["seven", "eight"]
    assert world.got(view).content.endswith(UNTOUCHABLE[name])


@pytest.mark.parametrize("name", UNTOUCHABLE)
async def test_or_is_returned_to_its_sender(world: World, name: str) -> None:
    sender = f"bounces{next(_numbers)}@eight.example.net"
    view = await world.submit(UNTOUCHABLE[name], "seven", sender=sender)
    assert view["recipients"][0]["state"] == "bounced"
    assert view["recipients"][0]["reply"].startswith("550 5.6.3 ")
    eight = world.upstreams["eight"]
    await eight.wait_until(lambda: any(sender in one.recipients for one in eight.messages))
    (status,) = [one.content for one in eight.messages if sender in one.recipients]
    assert b"Status: 5.6.3" in status


@pytest.mark.parametrize("lane", ["seven", "eight", "chunks", "eight-utf8"])
async def test_over_long_lines_are_wrapped_before_they_are_signed(world: World, lane: str) -> None:
    content = letter(sender=OTP, text="<p>" + "x" * 5_000 + "</p>", extra="Content-Type: text/html\r\n")
    received = world.got(await world.submit(content, lane))
    assert max(map(len, received.content.split(b"\r\n"))) <= 998
    assert leaves(received.content) == leaves(content)
    world.signatures_hold(received.content)


async def test_an_over_long_line_that_another_signed_stays(world: World) -> None:
    content = b"DKIM-Signature: v=1; a=rsa-sha256; d=x; s=y; b=z\r\n" + letter(text="x" * 5_000)
    assert world.got(await world.submit(content, "eight", sender=BULK)).content.endswith(content)


async def test_an_internationalized_address_goes_where_it_is_taken_or_back(world: World) -> None:
    view = await world.submit(letter(), "eight-utf8", sender=BULK, mail="SMTPUTF8", local="ü")
    assert [one["outcome"] for one in view["recipients"][0]["attempts"]] == ["refused", "sent"]
    assert "SMTPUTF8" in world.got(view).mail_from
    assert not any("SMTPUTF8" in one.mail_from for one in world.upstreams["eight"].transfers)
    returned = await world.submit(letter(), "eight", sender=BULK, mail="SMTPUTF8", local="ü")
    assert returned["recipients"][0]["state"] == "bounced"
    assert returned["recipients"][0]["reply"].startswith("550 5.6.7 ")


@pytest.mark.parametrize("lane", ["eight", "seven"])
async def test_the_flag_alone_stops_nothing(world: World, lane: str) -> None:
    """Go's net/smtp sets it whenever it is offered."""
    received = world.got(await world.submit(letter(sender=OTP), lane, mail="BODY=8BITMIME SMTPUTF8"))
    assert "SMTPUTF8" not in received.mail_from
    assert received.content.endswith(letter(sender=OTP))


async def test_a_header_in_utf8_becomes_ascii_where_it_isnt_taken(world: World) -> None:
    content = letter(sender=OTP, subject="Bestätigung", text="Grüße")
    received = world.got(await world.submit(content, "eight", mail="SMTPUTF8"))
    head, _, body = received.content.partition(b"\r\n\r\n")
    assert head.isascii()
    assert body == "Grüße\r\n".encode()
    world.signatures_hold(received.content)
    taken = world.got(await world.submit(content, "eight-utf8", mail="SMTPUTF8"))
    assert taken.content.partition(b"\r\n\r\n")[2] == body


async def test_what_a_new_session_offers_counts_not_what_the_last_one_did(world: World) -> None:
    upstream, content = world.upstreams["utf8"], EIGHT_BIT["declared"]
    eight = world.upstreams["eight"]
    before = eight.extensions, upstream.extensions
    try:
        assert world.got(await world.submit(content, "eight")).content.endswith(ARRIVES)
        eight.extensions = ("PIPELINING",)
        eight.close_sessions()
        await eight.wait_until(lambda: eight.open == 0 or any("EHLO" in one.verbs for one in eight.sessions[-1:]))
        received = world.got(await world.submit(content, "eight"))
        assert received.content.isascii()
        world.signatures_hold(received.content)
        view = await world.submit(letter(), "eight-utf8", sender=BULK, mail="SMTPUTF8", local="ü")
        assert world.got(view).accepted
        upstream.extensions = ("8BITMIME",)
        upstream.close_sessions()
        returned = await world.submit(letter(), "eight-utf8", sender=BULK, mail="SMTPUTF8", local="ü")
        assert returned["recipients"][0]["reply"].startswith("550 5.6.7 ")
    finally:
        eight.extensions, upstream.extensions = before
        eight.close_sessions()
        upstream.close_sessions()


UNSIGNABLE = {
    "a line without a colon": b"not a header\r\n",
    "an 8-bit name": b"X-\xe4: x\r\n",
}


@pytest.mark.parametrize("line", UNSIGNABLE.values(), ids=UNSIGNABLE)
async def test_what_cant_be_signed_goes_out_unsigned_and_says_so(world: World, line: bytes) -> None:
    content = f"From: {OTP}\r\n".encode() + line + letter(sender=OTP).partition(b"\r\n")[2]
    view = await world.submit(content, "eight")
    assert view["signed"] == []
    received = world.got(view)
    assert received.content.endswith(content)
    assert b"DKIM-Signature" not in received.content


HOP = b"Received: from a by b; Sat, 01 Mar 2025 09:05:07 +0000\r\n"
REFUSED = {
    "over 50 hops": (HOP * 51 + letter(), "554 5.4.6 "),
    "a NUL in the body": (letter("a\0b"), "554 5.6.0 "),
    "a bare CR in the header": (letter(subject="a\rBcc: evil@example.net"), "554 5.6.0 "),
    "a header section without end": (b"X: y\r\n" * 60_000 + letter(), "554 5.6.0 "),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_what_is_refused_whoever_sends_it_leaves_the_session_usable(world: World, name: str) -> None:
    content, reply = REFUSED[name]
    to = f"user{next(_numbers)}@eight.example.net"
    async with Talk(world.relay.smtp) as app:
        await app.envelope(BULK, f"refused.{to}")
        app.send(content + b".\r\n")
        assert (await app.reply()).startswith(reply)
        id_ = await app.submit(HOP * 50 + letter(), BULK, to)
    await time_line(world.relay, id_, "sent")
    assert not any(f"refused.{to}" in one.recipients for one in world.upstreams["eight"].transfers)


ODD = {
    "line ends in an encoded word": (b"=?utf-8?B?YQ0KQmNjOiBldmlsQGV4YW1wbGUubmV0DQoNCmI=?=", b"text/plain"),
    "an unknown charset": (b"=?x-none?Q?=41?=", b"text/plain; charset=x-none"),
    "an encoded word that is none": (b"=?utf-8?B?****?= =?utf-8?Q?=ZZ?=", b"text/plain; charset="),
}


@pytest.mark.parametrize("name", ODD)
async def test_odd_words_are_relayed_as_they_are_and_told_in_one_line(world: World, name: str) -> None:
    subject, kind = ODD[name]
    content = letter().replace(b"Subject: hi", b"Subject: " + subject + b"\r\nContent-Type: " + kind)
    view = await world.submit(content, "eight", sender=BULK)
    assert world.got(view).content.endswith(content)
    assert "\r" not in view["subject"]
    assert "\n" not in view["subject"]
    assert not any(line.startswith("Bcc") for line in world.relay.stderr.splitlines())


@pytest.mark.real
async def test_a_signature_by_opendkims_own_signer_keeps_holding(world: World, tmp_path: Path) -> None:
    signer = shutil.which("opendkim-testmsg", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if signer is None:
        pytest.skip("no opendkim-testmsg (Debian: opendkim-tools)")
    (tmp_path / "key.pem").write_bytes(
        KEY.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
        )
    )
    signing = await asyncio.create_subprocess_exec(
        signer, "-C", "-d", "other.example", "-k", str(tmp_path / "key.pem"), "-s", "sel",
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    content, _ = await asyncio.wait_for(signing.communicate(letter("Grüße", sender="a@other.example")), 20)
    assert signing.returncode == 0
    assert b"DKIM-Signature" in content
    public = KEY.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    arrived = world.got(await world.submit(content, "seven-eight", sender=BULK)).content
    assert dkim.verify(arrived, dnsfunc=lambda name, timeout=5: record)  # type: ignore[no-untyped-call]
