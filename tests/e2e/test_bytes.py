"""What an app hands in comes out at the upstream byte for byte, but for what the contract adds and removes."""

from __future__ import annotations

import asyncio
import base64
import itertools
import random
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
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import RelayProcess, command, time_line, write_config
from tests.support.upstream import DEFAULT_EXTENSIONS, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    plain: Upstream
    """DATA, PIPELINING"""
    chunked: Upstream
    """CHUNKING besides"""
    simple: Upstream
    """command by command"""
    records: dict[str, str]
    """DNS name to TXT record of the signing keys"""

    async def through(self, content: bytes, *, lane: str = "plain", sender: str = BULK) -> bytes:
        """As it arrives at that lane's upstream."""
        to = f"user{next(_numbers)}@{lane}.example.net"
        async with Talk(self.relay.smtp) as app:
            await app.submit(content, sender, to)
        upstream = {"plain": self.plain, "chunked": self.chunked, "simple": self.simple}[lane]
        await upstream.wait_until(lambda: any(to in one.recipients for one in upstream.messages))
        (arrived,) = [one.content for one in upstream.messages if to in one.recipients]
        return arrived


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("bytes")
    records = {}
    for selector, option in (("s1", ()), ("e1", ("--ed25519",))):
        made = await command("keygen", "auth.example.com", selector, "--out", directory, *option)
        assert made.code == 0, made.err
        records[f"{selector}._domainkey.auth.example.com"] = "".join(re.findall(r'"([^"]*)"', made.out))
    keys = [{"selector": name, "key_file": str(directory / f"auth.example.com.{name}.pem")} for name in ("s1", "e1")]
    names = ("plain", "chunked", "simple")
    async with (
        Upstream() as plain,
        Upstream((*DEFAULT_EXTENSIONS, "CHUNKING")) as chunked,
        Upstream(("8BITMIME", "SMTPUTF8")) as simple,
    ):
        lanes = {name: {"upstreams": [name], "retry": ["1s"], "expires": "10m"} for name in names}
        rules = [
            {"name": name, "match": {"recipient": f"*@{name}.example.net"}, "lane": name} for name in names
        ]  # fmt: skip
        config = write_config(
            directory,
            {"plain": plain, "chunked": chunked, "simple": simple},
            lanes=lanes,
            rules=rules,
            default_lane="plain",
            dkim=[{"domain": "auth.example.com", "keys": keys}],
            workers=0,
        )
        async with RelayProcess(config) as relay:
            yield World(relay, plain, chunked, simple, records)


def own(content: bytes) -> bytes:
    """Without the DKIM-Signature and Received fields that the relay put in front: at most two and exactly one."""
    found = re.match(
        rb"(?:DKIM-Signature:[^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*){0,2}Received: from [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*",
        content,
    )
    assert found, content[:300]
    return content[found.end() :]


HEAD = b"From: a@example.com\r\nDate: Sat, 01 Mar 2025 09:05:07 +0000\r\nMessage-ID: <x@app.example.com>\r\n"

CONTENTS = {
    "no body": HEAD,
    "an empty body": HEAD + b"\r\n",
    "blank lines only": HEAD + b"\r\n\r\n\r\n\r\n",
    "dots": HEAD + b"\r\n.\r\n..\r\n...\r\n.x\r\nx.\r\n.\r\n",
    "a dot first": b".odd: x\r\n" + HEAD + b"\r\nx\r\n",
    "trailing blanks": HEAD + b"Subject: x  \t\r\n\r\nbody  \r\n\t\r\n  \r\n",
    "8-bit everywhere": HEAD + b"Subject: \xc3\xa4\xff\r\nX-\xe4: y\r\n\r\n\xff\xfe\x80\r\n",
    "a line of 998": HEAD + b"\r\n" + b"x" * 998 + b"\r\n",
    "a very long field": HEAD + b"X-Long: " + b"x" * 100_000 + b"\r\nSubject: " + b"x" * 32_000 + b"\r\n\r\nx\r\n",
    "a long folded header": HEAD + b"References:" + b"".join(b"\r\n <%d@x>" % n for n in range(300)) + b"\r\n\r\nx\r\n",
    "folding with tabs and blanks": HEAD + b"Subject:\r\n\t a\r\n  \tb\r\nX:\r\n y\r\n\r\nx\r\n",
    "headers twice": HEAD + b"To: a@b\r\nTo: c@d\r\nSubject: 1\r\nSubject: 2\r\n\r\nx\r\n",
    "headers in odd case": HEAD + b"SUBJECT: x\r\nx-RELAYED: y\r\nmime-VERSION: 1.0\r\n\r\nx\r\n",
    "a blank before the colon": HEAD + b"Subject : x\r\n\r\nx\r\n",
    "no blank behind the colon": HEAD + b"Subject:x\r\nEmpty:\r\n\r\nx\r\n",
    "a header without a colon": HEAD + b"not a header\r\nSubject: x\r\n\r\nx\r\n",
    "Bcc in the body": HEAD + b"\r\nBcc: stays@example.net\r\nX-Relay-Lane: stays\r\nReceived: stays\r\n",
    "other people's traces": b"Received: from x by y; Sat, 01 Mar 2025 09:05:07 +0000\r\nReturn-Path: <z@z>\r\n"
    + HEAD
    + b"\r\nx\r\n",
    "control characters": HEAD + b"\r\n\x01\x02\x07\x08\x0b\x0c\x0e\x1b[31m\x7f\r\n",
    "nested MIME": HEAD
    + b'Content-Type: multipart/mixed; boundary="a"\r\n\r\npreamble\r\n--a\r\n'
    + b'Content-Type: multipart/alternative; boundary="b"\r\n\r\n--b\r\n\r\nx\r\n--b--\r\n--a\r\n'
    + b"Content-Type: message/rfc822\r\n\r\nBcc: inner@stays\r\nX-Relay-Inner: stays\r\n\r\n.\r\n--a--\r\nepilogue\r\n",
    "a thousand parts deep": HEAD
    + b"Content-Type: multipart/mixed; boundary=0\r\n\r\n"
    + b"".join(b"--%d\r\nContent-Type: multipart/mixed; boundary=%d\r\n\r\n" % (n, n + 1) for n in range(1200)),
}


@pytest.mark.parametrize("lane", ["plain", "chunked", "simple"])
@pytest.mark.parametrize("name", CONTENTS)
async def test_bytes_in_are_bytes_out(world: World, name: str, lane: str) -> None:
    arrived = await world.through(CONTENTS[name], lane=lane)
    assert own(arrived) == CONTENTS[name]


@pytest.mark.parametrize("size", [1_000, 65_535, 65_536, 262_144, 1_000_001, 5_000_000])
@pytest.mark.parametrize("lane", ["plain", "chunked"])
async def test_every_size_comes_through_whole(world: World, size: int, lane: str) -> None:
    chance = random.Random(size)
    alphabet = bytes(value for value in range(1, 256) if value not in b"\r\n")
    body = b"".join(b"." * (n % 3) + bytes(chance.choices(alphabet, k=70)) + b"\r\n" for n in range(size // 72 + 1))
    content = HEAD + b"\r\n" + body
    assert own(await world.through(content, lane=lane)) == content


FIELD_NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=126, exclude_characters=":"), min_size=1, max_size=20
)
TEXT = st.binary(max_size=60).map(lambda raw: re.sub(rb"[\r\n\0]", b"", raw))
FIELDS = st.builds(
    lambda name, lines: name.encode() + b":" + b"\r\n ".join(line + b"x" for line in lines) + b"\r\n",
    FIELD_NAMES.filter(lambda name: not name.lower().startswith(("x-relay-", "bcc", "resent-bcc"))),
    st.lists(TEXT, min_size=1, max_size=3),
)
BODIES = st.lists(st.one_of(TEXT, st.sampled_from([b".", b"..", b"", b" ", b"\t", b".\r"[:1]])), max_size=12).map(
    lambda lines: b"".join(line + b"\r\n" for line in lines)
)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(fields=st.lists(FIELDS, max_size=6), body=BODIES, lane=st.sampled_from(["plain", "chunked", "simple"]))
async def test_any_headers_and_any_body_come_out_as_they_went_in(
    world: World, fields: list[bytes], body: bytes, lane: str
) -> None:
    content = HEAD + b"".join(fields) + b"\r\n" + body
    assert own(await world.through(content, lane=lane)) == content


async def test_bare_line_ends_become_crlf_before_signing_and_nothing_else_changes(world: World) -> None:
    content = HEAD + b"Subject: x\r\n\r\none\ntwo\rthree\r\n.\nfour\r\n"
    wanted = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    assert own(await world.through(content)) == wanted


def signatures(content: bytes) -> list[str]:
    """The selectors that signed, in order."""
    head = content.partition(b"\r\n\r\n")[0].decode("latin-1")
    fields = re.findall(r"^DKIM-Signature:([^\r\n]*(?:\r\n[ \t][^\r\n]*)*)", head, re.MULTILINE | re.IGNORECASE)
    return [re.sub(r"\s", "", field).partition(";s=")[2].partition(";")[0] for field in fields]


SIGNED = {
    "plain": letter("123456 is your code", sender=OTP, subject="Your code"),
    "no date": f"From: {OTP}\r\nSubject: x\r\n\r\nbody\r\n".encode(),
    "blanks": f"From: {OTP}\r\nSubject:   a \t  b  \r\n\r\nbody  x\t y \r\n\r\n\r\n".encode(),
    "8-bit": f"From: {OTP}\r\nSubject: \xe4\r\n\r\n\xff\r\n".encode("latin-1"),
    "dots": f"From: {OTP}\r\n\r\n.\r\n..\r\n".encode(),
    "bare line feeds": f"From: {OTP}\r\n\r\na\nb\r\n".encode(),
    "no body": f"From: {OTP}\r\n".encode(),
    "large": f"From: {OTP}\r\n\r\n".encode() + b"0123456789 \r\n" * 100_000,
}


@pytest.mark.parametrize("lane", ["plain", "chunked", "simple"])
@pytest.mark.parametrize("name", SIGNED)
async def test_both_signatures_hold_for_dkimpy(world: World, name: str, lane: str) -> None:
    arrived = await world.through(SIGNED[name], lane=lane, sender=OTP)
    assert signatures(arrived) == ["s1", "e1"]

    def record(name: bytes, timeout: int = 5) -> bytes:
        return world.records[name.decode().rstrip(".")].encode()

    verifier: Any = dkim.DKIM(arrived)  # type: ignore[no-untyped-call]
    assert [verifier.verify(n, dnsfunc=record) for n in (0, 1)] == [True, True]
    tampered: Any = dkim.DKIM(  # type: ignore[no-untyped-call]
        arrived + (b"" if b"\r\n\r\n" in arrived else b"\r\n") + b"more\r\n"
    )
    for n in (0, 1):
        with pytest.raises(dkim.ValidationError):
            tampered.verify(n, dnsfunc=record)


async def test_the_log_names_the_selectors_and_other_domains_are_not_signed(world: World) -> None:
    async with Talk(world.relay.smtp) as app:
        signed = await app.submit(letter(sender=OTP), OTP, "a@plain.example.net")
        below = await app.submit(letter(sender="x@deep.auth.example.com"), OTP, "b@plain.example.net")
        unsigned = await app.submit(letter(sender="x@example.com"), OTP, "c@plain.example.net")
    expected = {signed: ["s1", "e1"], below: ["s1", "e1"], unsigned: []}
    assert {one: (await time_line(world.relay, one, "sent"))["signed"] for one in expected} == expected
    arrived = {one.recipients[0]: signatures(one.content) for one in world.plain.messages}
    assert arrived["b@plain.example.net"] == ["s1", "e1"]
    assert arrived["c@plain.example.net"] == []


async def test_a_signature_of_another_keeps_holding(world: World) -> None:
    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    content = letter(sender="a@other.example")
    content = dkim.sign(content, b"sel", b"other.example", pem, canonicalize=(b"relaxed", b"relaxed")) + content
    arrived = await world.through(content, sender="a@other.example")
    record = b"v=DKIM1; k=rsa; p=" + base64.b64encode(public)
    assert dkim.verify(arrived, dnsfunc=lambda name, timeout=5: record)  # type: ignore[no-untyped-call]


async def test_the_published_records_are_those_of_the_key_files(world: World) -> None:
    directory = Path(world.relay._config_file).parent
    for selector, kind in (("s1", rsa.RSAPrivateKey), ("e1", ed25519.Ed25519PrivateKey)):
        path = directory / f"auth.example.com.{selector}.pem"
        assert path.stat().st_mode & 0o777 == 0o600
        assert isinstance(serialization.load_pem_private_key(path.read_bytes(), None), kind)


@pytest.mark.real
async def test_opendkim_takes_what_went_through_the_relay(world: World, tmp_path: Path) -> None:
    opendkim = shutil.which("opendkim", path="/usr/sbin:/usr/bin:/usr/local/sbin:/usr/local/bin")
    if opendkim is None:
        pytest.skip("no opendkim (Debian: opendkim)")
    (tmp_path / "keys").write_text("".join(f"{name} {record}\n" for name, record in world.records.items()))
    (tmp_path / "opendkim.conf").write_text(
        f"Mode v\nSyslog no\nTestPublicKeys {tmp_path}/keys\nSocket local:{tmp_path}/socket\n"
    )
    for name, content in SIGNED.items():
        message = tmp_path / "message.eml"
        message.write_bytes(await world.through(content, lane="chunked", sender=OTP))
        done = await asyncio.create_subprocess_exec(
            opendkim, "-x", str(tmp_path / "opendkim.conf"), "-t", str(message), "-vv",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said = (await asyncio.wait_for(done.communicate(), 30))[0].decode()
        assert [line.split("dkim=")[1].split()[0] for line in said.splitlines() if "\tdkim=" in line] == [
            "pass",
            "pass",
        ], name
