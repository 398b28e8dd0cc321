"""Signatures verify with dkimpy, which did not make them, and break with any change."""

from __future__ import annotations

import re

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import PrivateFormat
from hypothesis import given, settings

from relay.mail.canonical import BodyHash
from relay.mail.dkim import (
    OVERSIGNED,
    Unsignable,
    ascii_domain,
    is_dns_name,
)
from relay.mail.message import Unacceptable, normalise, parse, prepare
from tests.mail.material import (
    OTP,
    any_content,
    ed25519_key,
    keys,
    pem,
    published,
    rsa_key,
    signed,
    signer,
    well_formed,
)

BOTH = ("s1", "e1")


def verdicts(content: bytes, *selectors: str) -> list[bool]:
    """dkimpy's verdict on each signature, from the top."""
    records = published(*selectors)

    def txt(name: bytes, timeout: int = 5) -> str | None:
        return records.get(name.decode().rstrip("."))

    found = []
    for index in range(len([field for field in parse(content).fields if field.name == "dkim-signature"])):
        try:
            found.append(dkim.DKIM(content).verify(idx=index, dnsfunc=txt))  # type: ignore[no-untyped-call]
        except dkim.DKIMException:
            found.append(False)
    return found


@pytest.mark.parametrize("selectors", [("s1",), ("e1",), BOTH])
def test_every_key_listed_makes_a_signature_that_verifies(selectors: tuple[str, ...]) -> None:
    assert verdicts(signed(OTP, *selectors), *selectors) == [True] * len(selectors)


@pytest.mark.parametrize(
    "content",
    [
        b"From: a@example.com\r\n\r\n",
        b"From: a@example.com\r\n",
        b"From: a@example.com\r\n\r\n\r\n\r\n",
        b"From:a@example.com\r\nfrom:\tb@example.com\r\n\r\nx\r\n",
        b"From: a@example.com\r\nSubject: one\r\nSubject: two\r\nTo:\r\n x\r\n\r\n \t\r\nx \r\n",
        b"From: a@example.com\r\nSubject: \xc3\xa4\r\n\r\n\xc3\xa4\r\n",
        b"From: a@example.com\r\nList-Unsubscribe: <x:y>\r\nList-Unsubscribe-Post: a\r\n\r\n"
        + b"x" * 300_000
        + b"\r\n",
    ],
)
def test_odd_messages_verify_too(content: bytes) -> None:
    assert verdicts(signed(content, *BOTH), *BOTH) == [True, True]


@settings(max_examples=50)
@given(well_formed())
def test_every_well_formed_message_with_a_from_verifies(content: bytes) -> None:
    assert verdicts(signed(b"From: a@example.com\r\n" + content, "e1"), "e1") == [True]


# dkimpy refuses the obsolete blank before a colon; test_dkim_real has verifiers that accept it.
@settings(max_examples=50)
@given(any_content.filter(lambda content: not re.search(rb"[ \t]:", content)))
def test_any_content_is_signed_and_verifies_or_is_unsignable(content: bytes) -> None:
    try:
        content = prepare(
            parse(normalise(b"From: a@example.com\r\n" + content)), trace=b"", date=b"x", message_id="<x@y>"
        ).content
        made = signed(content, "e1")
    except (Unsignable, Unacceptable):
        return
    assert verdicts(made, "e1") == [True]


CHANGES = [
    (b"123456.", b"123457."),
    (b"ten minutes", b"ten  hours"),
    (b"Subject: Your", b"Subject: My"),
    (b"From: Acme", b"From: Evil"),
    (b"To: user@", b"To: other@"),
    (b"Date: Sat, 01", b"Date: Sat, 02"),
    (b"Message-ID: <1@", b"Message-ID: <2@"),
    (b"text/plain", b"text/html"),
    (b"minutes.\r\n", b"minutes.\r\nmore\r\n"),
    (b"d=example.com", b"d=example.org"),
    (b"t=1740819907", b"t=1740819908"),
]


@pytest.mark.parametrize(("old", "new"), CHANGES)
def test_a_change_breaks_every_signature(old: bytes, new: bytes) -> None:
    content = signed(OTP, *BOTH)
    assert old in content
    assert verdicts(content.replace(old, new), *BOTH) == [False, False]


@pytest.mark.parametrize("name", OVERSIGNED)
@pytest.mark.parametrize("where", ["above", "below"])
def test_a_field_added_above_or_below_breaks_every_signature(name: str, where: str) -> None:
    added = f"{name.title()}: added@example.com\r\n".encode()
    content = signed(OTP, *BOTH)
    changed = added + content if where == "above" else content.replace(b"X-Campaign", added + b"X-Campaign")
    assert verdicts(changed, *BOTH) == [False, False]


@pytest.mark.parametrize(
    "change",
    [
        (b"DKIM-Signature:", b"Received: from x by y;\r\n\tdate\r\nReturn-Path: <a@b>\r\nDKIM-Signature:"),
        (b"X-Campaign: login\r\n", b""),
        (b"is 123456.\t \r\n", b"is 123456. \r\n"),
        (b"minutes.\r\n\r\n", b"minutes.\r\n\r\n\r\n"),
        (b'text/plain;\r\n\tcharset="utf-8"', b'text/plain; charset="utf-8"'),
    ],
)
def test_what_a_relay_may_do_breaks_nothing(change: tuple[bytes, bytes]) -> None:
    content = signed(OTP, *BOTH)
    assert change[0] in content
    assert verdicts(content.replace(change[0], change[1], 1), *BOTH) == [True, True]


def tags(content: bytes) -> dict[str, str]:
    """The tags of the topmost signature, blanks removed."""
    value = parse(content).fields[0].value.decode()
    return dict("".join(tag.split()).split("=", 1) for tag in value.split(";"))


def test_a_signature_has_its_required_tags_and_no_other() -> None:
    found = tags(signed(OTP, "s1", now=1_740_819_907))
    assert list(found) == ["v", "a", "c", "d", "s", "t", "h", "bh", "b"]
    assert {key: found[key] for key in "vacdst"} == {
        "v": "1", "a": "rsa-sha256", "c": "relaxed/relaxed", "d": "example.com", "s": "s1", "t": "1740819907",
    }  # fmt: skip
    names = found["h"].split(":")
    assert not {"received", "return-path", "bcc", "x-campaign"} & set(names)
    assert (names.count("from"), names.count("cc"), names.count("subject")) == (2, 1, 2)


def test_all_lines_of_a_signature_are_short() -> None:
    header = signed(OTP, *BOTH).partition(b"From:")[0]
    assert header.count(b"DKIM-Signature:") == 2
    assert all(len(line) <= 78 for line in header.split(b"\r\n"))


def test_headers_that_an_upstream_rewrites_are_neither_signed_nor_oversigned() -> None:
    made = signer({"example.com": keys(*BOTH)})
    keyset = made.select("example.com")
    assert keyset is not None
    rewritten = frozenset({"message-id", "date", "from"})
    content = made.prepare(parse(OTP), keyset, now=1, unsigned_headers=rewritten).sign().headers + OTP
    names = tags(content)["h"].split(":")
    assert not {"message-id", "date"} & set(names)
    # RFC 6376 5.4: From is always signed.
    assert names.count("from") == 2
    changed = content.replace(b"<1@auth", b"<ses@auth").replace(b"Sat, 01", b"Sun, 02")
    assert verdicts(changed, *BOTH) == [True, True]


def test_a_precomputed_body_hash_gives_the_same_signature() -> None:
    made = signer({"example.com": keys("e1")})
    keyset = made.select("example.com")
    assert keyset is not None
    beforehand = BodyHash(OTP, parse(OTP).body_at).digest()
    assert made.prepare(parse(OTP), keyset, now=1, body_hash=beforehand) == made.prepare(parse(OTP), keyset, now=1)


@pytest.mark.parametrize(
    "content",
    [
        b"To: a@b\r\n\r\nx\r\n",
        b"\r\nx\r\n",
        b"text\r\n",
        b"From: a@example.com\r\nno colon\r\n\r\nx\r\n",
        b" folded\r\nFrom: a@example.com\r\n\r\nx\r\n",
        b"From: a@example.com\r\nX-\xe4: 1\r\n\r\nx\r\n",
    ],
)
def test_a_message_that_cannot_be_signed_raises_unsignable(content: bytes) -> None:
    with pytest.raises(Unsignable):
        signed(content, "s1")


SELECTIONS = [
    ("example.com", "example.com"),
    ("EXAMPLE.com.", "example.com"),
    ("a.example.com", "example.com"),
    ("auth.example.com", "auth.example.com"),
    ("x.auth.example.com", "auth.example.com"),
    ("notexample.com", None),
    ("com", None),
    ("", None),
    ("münchen.example", "xn--mnchen-3ya.example"),
    ("xn--mnchen-3ya.example", "xn--mnchen-3ya.example"),
    ("ü" * 300, None),
    ("ü..example.com", None),
]


@pytest.mark.parametrize(("from_domain", "domain"), SELECTIONS)
def test_the_longest_domain_at_or_above_the_senders_signs(from_domain: str, domain: str | None) -> None:
    made = signer({name: keys("e1") for name in ("example.com", "auth.example.com", "münchen.example")})
    found = made.select(from_domain)
    assert (found.domain if found else None) == domain


def test_the_signing_domain_is_the_configured_one_not_the_senders() -> None:
    assert tags(signed(OTP, "s1"))["d"] == "example.com"


def test_signatures_name_their_selectors() -> None:
    made = signer({"example.com": keys(*BOTH)})
    keyset = made.select("example.com")
    assert keyset is not None
    assert keyset.selectors == made.prepare(parse(OTP), keyset, now=1).sign().selectors == BOTH


@pytest.mark.parametrize("selector", ["", "a b", "s1;x", "s1\r\n", "ü", "-a", "a..b"])
def test_a_selector_that_could_end_a_tag_is_refused(selector: str) -> None:
    assert not is_dns_name(selector)
    with pytest.raises(ValueError, match="not a name for DNS"):
        signer({"example.com": {selector: ed25519_key()}})


@pytest.mark.parametrize(
    ("domain", "ascii"), [("Example.COM.", "example.com"), ("bücher.example", "xn--bcher-kva.example")]
)
def test_domains_are_compared_in_ascii(domain: str, ascii: str) -> None:
    assert ascii_domain(domain) == ascii


def test_signatures_of_others_stay_valid_when_the_relay_prepares_the_message() -> None:
    # A complete message with a signature of the author's system, here by dkimpy.
    theirs = dkim.sign(OTP, b"s1", b"example.com", pem(rsa_key(), PrivateFormat.TraditionalOpenSSL)) + OTP
    given_up = theirs.replace(b"X-Campaign", b"Bcc: x@y\r\nX-Relay-Lane: otp\r\nX-Campaign")
    out = prepare(parse(given_up), trace=b"Received: from a by b; x\r\n", date=b"", message_id="").content
    assert out == b"Received: from a by b; x\r\n" + theirs
    assert verdicts(out, "s1") == [True]
    assert verdicts(signed(out, *BOTH), *BOTH) == [True, True, True]
