"""The changes that the relay makes to a message, and no others."""

from __future__ import annotations

import locale
from email import message_from_bytes, policy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.message import MAX_RECEIVED, Prepared, Unacceptable, normalise, parse, prepare
from relay.mail.trace import Protocol, received, rfc5322_date
from tests.mail.material import OTP, any_content, well_formed

TRACE = b"Received: from app by relay;\r\n\tSat, 01 Mar 2025 09:05:07 +0000\r\n"
DATE = b"Sat, 01 Mar 2025 09:05:07 +0000"
NEW_ID = "<new@relay.example.com>"


def prepared(content: bytes) -> Prepared:
    return prepare(parse(content), trace=TRACE, date=DATE, message_id=NEW_ID)


def without_private_fields(head: bytes) -> bytes:
    """The expected result, made line by line."""
    kept, dropping = [], False
    for line in head.splitlines(keepends=True):
        if line[:1] not in b" \t":
            name = line.partition(b":")[0].strip().lower()
            dropping = name in (b"bcc", b"resent-bcc") or name.startswith(b"x-relay-")
        if not dropping:
            kept.append(line)
    return b"".join(kept)


def test_a_complete_message_only_gets_the_trace() -> None:
    assert prepared(OTP) == Prepared(TRACE + OTP, "<1@auth.example.com>")


@given(well_formed())
def test_everything_but_the_documented_changes_stays_byte_identical(content: bytes) -> None:
    head, blank, body = content.partition(b"\r\n\r\n") if content[:2] != b"\r\n" else (b"", b"\r\n", content[2:])
    if head:
        head, blank = head + b"\r\n", blank[2:]
    names = {field.name for field in parse(content).fields}
    added = TRACE
    added += b"" if "date" in names else b"Date: " + DATE + b"\r\n"
    added += b"" if "message-id" in names else f"Message-ID: {NEW_ID}\r\n".encode()
    assert prepared(content).content == added + without_private_fields(head) + blank + body


@given(any_content)
def test_whatever_comes_in_goes_out_well_formed_with_one_date_and_id(content: bytes) -> None:
    try:
        clean = normalise(content)
    except Unacceptable:
        return
    out = parse(prepared(clean).content)
    names = [field.name for field in out.fields]
    assert "received" in names
    assert names.count("date") == 1
    assert names.count("message-id") == 1
    assert not {"bcc", "resent-bcc", "x-relay-lane"} & set(names)
    # The body stays the same, whatever stands before it.
    before = parse(clean)
    assert out.content[out.body_at :] == clean[before.body_at :]


def test_preparing_twice_adds_nothing_but_the_second_trace() -> None:
    once = prepared(b"To: a@b\r\n\r\nx\r\n").content
    assert prepared(once).content == TRACE + once


@pytest.mark.parametrize(
    ("content", "out"),
    [
        (b"", b""),
        (b"\r\n", b"\r\n"),
        (b"text only\r\nSubject: no\r\n", b"\r\ntext only\r\nSubject: no\r\n"),
        (b"\r\ntext\r\n", b"\r\ntext\r\n"),
        (b"A: 1\r\n", b"A: 1\r\n"),
        (b"A: 1\r\ntext\r\n", b"A: 1\r\n\r\ntext\r\n"),
        (b"Bcc: x\r\n", b""),
        (b"A: 1\r\nBcc: x,\r\n y\r\n\r\nt\r\n", b"A: 1\r\n\r\nt\r\n"),
        (b"A: 1\r\nbcc : x\r\nX-Relay-Lane: otp\r\nB: 2\r\nBCC:\r\n\r\nt\r\n", b"A: 1\r\nB: 2\r\n\r\nt\r\n"),
        (b"A: 1\r\nbroken\r\nBcc: x\r\n\r\nt\r\n", b"A: 1\r\nbroken\r\n\r\nt\r\n"),
        (b"\xe9: 1\r\n\r\nt\r\n", b"\xe9: 1\r\n\r\nt\r\n"),
    ],
)
def test_odd_messages_keep_their_bytes_and_get_a_header_section(content: bytes, out: bytes) -> None:
    added = TRACE + b"Date: " + DATE + b"\r\nMessage-ID: " + NEW_ID.encode() + b"\r\n"
    assert prepared(content).content == added + out


def test_a_folded_first_line_does_not_become_part_of_our_fields() -> None:
    out = prepared(b" lost\r\nA: 1\r\n\r\nx\r\n").content
    assert out.startswith(b" lost\r\nReceived: ")
    assert message_from_bytes(out, policy=policy.compat32)["Message-ID"] == NEW_ID


def test_the_apps_own_message_id_is_kept_as_one_line() -> None:
    content = b"Message-ID:\r\n <a\x01b@c>\r\n\r\n"
    assert prepared(content).message_id == "<a b@c>"
    assert prepared(b"A: 1\r\n\r\n").message_id == NEW_ID


@pytest.mark.parametrize(("hops", "refused"), [(MAX_RECEIVED, False), (MAX_RECEIVED + 1, True)])
def test_a_message_in_a_loop_is_refused(hops: int, refused: bool) -> None:
    content = b"received: from a by b\r\n" * hops + b"\r\n"
    if not refused:
        assert prepared(content)
        return
    with pytest.raises(Unacceptable) as loop:
        prepared(content)
    assert str(loop.value.reply) == "554 5.4.6 too many hops"


def trace(helo: str = "app", client: str = "192.0.2.1", protocol: Protocol = "ESMTP", to: str | None = None) -> bytes:
    return received("relay.example.com", helo, client, "01JD", protocol, to, 1_740_819_907.9)


def test_the_trace_names_client_relay_and_time() -> None:
    assert trace("app.example.com", to="u@example.net") == (
        b"Received: from app.example.com ([192.0.2.1])\r\n"
        b"\tby relay.example.com with ESMTP id 01JD\r\n"
        b"\tfor <u@example.net>;\r\n"
        b"\tSat, 01 Mar 2025 09:05:07 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("client", "shown"),
    [("::1", "([IPv6:::1])"), ("unix", "(unix)"), ("local", "(local)"), ("", "(unknown)"), ("a)\r\nb", "(a???b)")],
)
def test_the_client_is_shown_as_what_it_is(client: str, shown: str) -> None:
    assert f" {shown}\r\n" in trace(client=client).decode()


@given(helo=st.text(max_size=300), client=st.text(max_size=20), to=st.text(max_size=300))
def test_no_value_of_a_client_adds_a_field_or_a_long_line(helo: str, client: str, to: str) -> None:
    field = trace(helo, client, to=to)
    message = parse(field + b"\r\n")
    assert [one.name for one in message.fields] == ["received"]
    assert field.isascii()
    assert b"\r" not in field.replace(b"\r\n", b"")
    assert all(len(line) <= 998 for line in field.split(b"\r\n"))


def test_an_ordinary_trace_keeps_to_78_columns() -> None:
    field = trace("mail-out-17.region.apps.example.com", "2001:db8:85a3:1111:2222:8a2e:370:7334", to="user@example.net")
    assert all(len(line) <= 78 for line in field.split(b"\r\n"))


@pytest.mark.parametrize("to", ["ü@example.net", "a b@c", "a>b@c", 'x"<"@c', "a@" + "b" * 300])
def test_a_recipient_is_in_the_trace_only_where_it_is_harmless(to: str) -> None:
    assert b"\tfor" not in trace(to=to)


DATES = [
    (0.0, b"Thu, 01 Jan 1970 00:00:00 +0000"),
    (951_782_399.99, b"Mon, 28 Feb 2000 23:59:59 +0000"),
    (4_102_444_800.0, b"Fri, 01 Jan 2100 00:00:00 +0000"),
]


@pytest.mark.parametrize(("now", "date"), DATES)
def test_dates_are_utc_and_english(now: float, date: bytes) -> None:
    before = locale.setlocale(locale.LC_TIME)
    try:
        for name in ("de_DE.UTF-8", "C"):
            try:
                locale.setlocale(locale.LC_TIME, name)
            except locale.Error:
                continue
            assert rfc5322_date(now) == date
    finally:
        locale.setlocale(locale.LC_TIME, before)
