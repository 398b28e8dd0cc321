"""Messages and keys that the tests of this folder share."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import strategies as st

from relay.config.model import DkimDomain, DkimKey
from relay.mail.dkim import Signer, dns_record
from relay.mail.message import parse

OTP = (
    b"From: Acme <no-reply@auth.example.com>\r\n"
    b"To: user@example.net\r\n"
    b"Subject: Your verification code: 123456\r\n"
    b"Date: Sat, 01 Mar 2025 09:05:07 +0000\r\n"
    b"Message-ID: <1@auth.example.com>\r\n"
    b"MIME-Version: 1.0\r\n"
    b'Content-Type: text/plain;\r\n\tcharset="utf-8"\r\n'
    b"Content-Transfer-Encoding: 7bit\r\n"
    b"X-Campaign: login\r\n"
    b"\r\n"
    b"Your code  is 123456.\t \r\n"
    b"\r\n"
    b"It is valid for ten minutes.\r\n"
    b"\r\n"
)

PrivateKey = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


@cache
def rsa_key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(65537, 2048)


@cache
def ed25519_key() -> ed25519.Ed25519PrivateKey:
    return ed25519.Ed25519PrivateKey.generate()


def pem(key: PrivateKey, form: PrivateFormat = PrivateFormat.PKCS8) -> bytes:
    return key.private_bytes(Encoding.PEM, form, NoEncryption())


def keys(*selectors: str) -> dict[str, PrivateKey]:
    """Selectors beginning with `e` get the Ed25519 key."""
    return {name: ed25519_key() if name.startswith("e") else rsa_key() for name in selectors}


def signer(domains: dict[str, dict[str, PrivateKey]]) -> Signer:
    sections, pems = [], {}
    for domain, by_selector in domains.items():
        entries = []
        for selector, key in by_selector.items():
            path = Path(f"{domain}/{selector}.pem")
            pems[path] = pem(key)
            entries.append(DkimKey(selector=selector, key_file=path))
        sections.append(DkimDomain(domain=domain, keys=tuple(entries)))
    return Signer(sections, pems)


def signed(content: bytes, *selectors: str, now: int = 1_740_819_907) -> bytes:
    """`content` signed for example.com with the keys of these selectors."""
    made = signer({"example.com": keys(*selectors)})
    keyset = made.select("example.com")
    assert keyset is not None
    return made.prepare(parse(content), keyset, now=now).sign().headers + content


def published(*selectors: str) -> dict[str, str]:
    """The DNS records of these keys, by name."""
    return {f"{name}._domainkey.example.com": dns_record(key) for name, key in keys(*selectors).items()}


PIECES = st.sampled_from(
    [b"\r\n", b"\n", b"\r", b" ", b"\t", b":", b"a", b"Subject: x", b"Bcc: y", b"X-Relay-Lane: z", b"\xe9", b"\r\n\r\n"]
)
"""pieces that confuse parsers; few, so that every order of them occurs"""
any_content = st.lists(PIECES, max_size=14).map(b"".join)

header_names = st.sampled_from(
    ["From", "To", "Subject", "Date", "Message-ID", "bcc", "Resent-Bcc", "X-RELAY-Lane", "Received", "X-Other"]
)
header_values = st.lists(
    st.sampled_from([" v", "  ", "\t", "\r\n ", "\r\n\t", "w:x", "é", "=?utf-8?q?=0D=0A?="]), max_size=6
).map("".join)
body_lines = st.lists(st.sampled_from(["", " ", "\t", "a", "Bcc: no", "a  b", "é", ".", "--"]), max_size=8)


@st.composite
def well_formed(draw: st.DrawFn) -> bytes:
    """A message with a header section, a blank line and a body, all lines ended by CRLF."""
    fields = draw(st.lists(st.tuples(header_names, header_values), max_size=8))
    body = draw(body_lines)
    # Never blank behind the fold: `any_content` has all-blank continuations.
    head = "".join(f"{name}:{value}z\r\n" for name, value in fields)
    return (head + "\r\n" + "".join(f"{line}\r\n" for line in body)).encode()
