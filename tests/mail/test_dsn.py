"""Delivery status notifications, parsed by Python's email package."""

from __future__ import annotations

from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage, Message
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.dsn import (
    Bounce,
    Kind,
    RecipientReport,
    Stamp,
    bounce,
    bounces,
    wants_success,
)
from relay.mail.dsn_returned import MAX_HEADERS_BYTES, MAX_RETURNED_BYTES, returned_headers
from relay.mail.envelope import Envelope, Notify, Recipient
from relay.mail.message import normalise, over_long_line, parse
from relay.mail.reply import Reply
from tests.mail.material import OTP

STAMP = Stamp("relay.example.com", 1_740_819_907.0, "<b1@relay.example.com>", "=_b1")
ARRIVED = 1_740_819_900.0
USER = Recipient("user@example.net")
ENVELOPE = Envelope("app@example.com", (USER,))
FAILED = RecipientReport(USER, "failed", "550 5.1.1 No such user", "mx.example.net", 1_740_819_905.0)


def made(envelope: Envelope = ENVELOPE, *reports: RecipientReport, content: bytes = OTP) -> Bounce:
    found = bounce(envelope, reports or (FAILED,), content, stamp=STAMP, arrived_at=ARRIVED)
    assert found is not None
    return found


def read(bounced: Bounce) -> tuple[EmailMessage, str, list[Message[str, str]], Message[str, str]]:
    """The report, its text for people, its status groups and the returned part."""
    assert normalise(bounced.content) is bounced.content
    message = message_from_bytes(bounced.content, policy=policy.default)
    assert not message.defects
    assert message.get_content_type() == "multipart/report"
    human, status, returned = message.iter_parts()
    groups = status.get_payload() if status.is_multipart() else []
    return message, cast(EmailMessage, human).get_content(), cast("list[Message[str, str]]", groups), returned


def test_a_failure_is_reported_to_the_sender_from_the_null_sender() -> None:
    bounced = made()
    assert bounced.envelope == Envelope("", (Recipient("app@example.com", notify=frozenset({"NEVER"})),))
    message, human, groups, returned = read(bounced)
    assert message["From"] == "Mail Delivery System <MAILER-DAEMON@relay.example.com>"
    assert message["To"] == "app@example.com"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["Message-ID"] == "<b1@relay.example.com>"
    assert message["Date"] == "Sat, 01 Mar 2025 09:05:07 +0000"
    assert message["In-Reply-To"] == message["References"] == "<1@auth.example.com>"
    assert message.get_param("report-type") == "delivery-status"
    assert "could not be delivered" in human
    assert "user@example.net" in human
    assert "550 5.1.1 No such user (said by mx.example.net)" in human
    assert dict(groups[0].items()) == {
        "Reporting-MTA": "dns; relay.example.com",
        "Arrival-Date": "Sat, 01 Mar 2025 09:05:00 +0000",
    }
    assert dict(groups[1].items()) == {
        "Final-Recipient": "rfc822; user@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 No such user",
        "Last-Attempt-Date": "Sat, 01 Mar 2025 09:05:05 +0000",
    }
    assert returned.get_content_type() == "text/rfc822-headers"


def test_no_code_is_in_a_report_that_returns_headers() -> None:
    content = OTP.replace(
        b"X-Campaign", b"Thread-Topic: Your verification code: 123456\r\nX-OTP: abc\r\nX-Ref: v123456\r\nX-Campaign"
    )
    bounced = made(content=content)
    assert b"123456" not in bounced.content
    assert b"abc" not in bounced.content
    assert b"Subject: Your verification code: ******\r\n" in bounced.content
    assert b"X-Campaign: login\r\n" in bounced.content


def test_a_spaced_code_of_the_subject_is_found_elsewhere_too() -> None:
    headers = returned_headers(parse(b"Subject: Code 123 456\r\nX-Ref: 123456\r\nDate: 1 Jan 2025\r\n\r\n"))
    assert headers == b"Subject: Code ******\r\nX-Ref: ******\r\nDate: 1 Jan 2025\r\n"


def test_the_relays_own_reply_is_not_attributed_to_an_upstream() -> None:
    own = str(Reply.own(451, "4.4.1", "connection refused"))
    assert own == "451 4.4.1 otp-relay: connection refused"
    _, human, groups, _ = read(made(ENVELOPE, replace(FAILED, reply=own)))
    assert f"    {own}" in human.splitlines()
    assert "said by" not in human
    assert "Remote-MTA" not in groups[1]
    assert groups[1]["Diagnostic-Code"] == f"smtp; {own}"


LONG = b"x" * 20_000
LONG_FIELD = b"X-Long: " + LONG + b"\r\n"


@pytest.mark.parametrize(
    ("envelope", "report", "content"),
    [
        (ENVELOPE, FAILED, LONG_FIELD + OTP),
        (ENVELOPE._replace(ret="FULL"), FAILED, LONG_FIELD + OTP),
        (ENVELOPE._replace(ret="FULL"), FAILED, b"DKIM-Signature: v=1\r\n" + OTP + LONG + b"\r\n"),
        (ENVELOPE, RecipientReport(Recipient("\u00fc@example.net"), "failed"), LONG_FIELD + OTP),
        (ENVELOPE, RecipientReport(USER, "failed", "550 5.1.1 " + "y" * 2_000), OTP),
        (ENVELOPE, RecipientReport(Recipient("user@example.net", orcpt="rfc822;" + "o" * 2_000), "failed"), OTP),
        (ENVELOPE._replace(envid="e" * 2_000), FAILED, OTP),
    ],
    ids=["headers", "RET=FULL", "a body that stays", "global headers", "reply", "ORCPT", "ENVID"],
)
def test_no_line_of_a_report_is_longer_than_smtp_carries(
    envelope: Envelope, report: RecipientReport, content: bytes
) -> None:
    """A server that refused a message for its long line would refuse the report with the same line, too."""
    bounced = made(envelope, report, content=content)
    assert not over_long_line(bounced.content)
    returned = read(bounced)[3]
    if LONG_FIELD in content:
        assert LONG in cast(bytes, returned.get_payload(decode=True))


def test_a_long_line_of_a_body_that_can_be_re_encoded_is_returned_with_the_message() -> None:
    content = OTP + LONG + b"\r\n"
    assert content in made(ENVELOPE._replace(ret="FULL"), content=content).content


def test_returned_headers_are_bounded_and_whole() -> None:
    headers = returned_headers(
        parse(b"X-A: " + b"x" * 900 + b"\r\n" + b"X-B: y\r\n".rjust(50, b"X") * 10_000 + b"\r\n")
    )
    assert MAX_HEADERS_BYTES - 1000 < len(headers) <= MAX_HEADERS_BYTES
    assert headers.endswith(b"XX-B: y\r\n")


def test_the_whole_message_is_returned_when_asked_for() -> None:
    returned = read(made(ENVELOPE._replace(ret="FULL")))[3]
    assert returned.get_content_type() == "message/rfc822"
    assert OTP in made(ENVELOPE._replace(ret="FULL")).content


@pytest.mark.parametrize(
    ("envelope", "report", "content"),
    [
        (ENVELOPE._replace(ret="HDRS"), FAILED, OTP),
        (ENVELOPE, FAILED, OTP),
        (ENVELOPE._replace(ret="FULL"), FAILED, OTP + b"x" * MAX_RETURNED_BYTES + b"\r\n"),
        # RFC 3461 4.3: RET is about failures only.
        (ENVELOPE._replace(ret="FULL"), RecipientReport(Recipient("u@x", frozenset({"SUCCESS"})), "relayed"), OTP),
    ],
    ids=["asked for headers", "asked for nothing", "too large", "no failure"],
)
def test_otherwise_only_the_headers_are_returned(envelope: Envelope, report: RecipientReport, content: bytes) -> None:
    assert read(made(envelope, report, content=content))[3].get_content_type() == "text/rfc822-headers"


NOTIFY: list[tuple[frozenset[Notify] | None, bool, bool, bool]] = [
    (None, True, False, False),
    (frozenset({"NEVER"}), False, False, False),
    (frozenset({"FAILURE"}), True, False, False),
    (frozenset({"DELAY"}), False, True, False),
    (frozenset({"SUCCESS"}), False, False, True),
    (frozenset({"SUCCESS", "FAILURE", "DELAY"}), True, True, True),
]


@pytest.mark.parametrize(("notify", "failure", "delay", "success"), NOTIFY)
def test_notify_decides_what_is_reported(
    notify: frozenset[Notify] | None, failure: bool, delay: bool, success: bool
) -> None:
    recipient = Recipient("u@x.example", notify)
    assert wants_success(recipient) is success
    expected: dict[Kind, bool] = {"failed": failure, "expired": failure, "delayed": delay, "relayed": success}
    for kind, is_reported in expected.items():
        assert (bounces(ENVELOPE, [RecipientReport(recipient, kind)]) is not None) is is_reported


def test_the_null_sender_gets_no_report() -> None:
    everything = Recipient("u@x", frozenset({"SUCCESS", "FAILURE", "DELAY"}))
    kinds: tuple[Kind, ...] = ("failed", "expired", "delayed", "relayed")
    for kind in kinds:
        envelope = Envelope("", (everything,))
        report = RecipientReport(everything, kind)
        assert bounces(envelope, [report]) is None
        assert bounce(envelope, [report], OTP, stamp=STAMP, arrived_at=ARRIVED) is None


def test_only_the_wanted_outcomes_are_in_the_report() -> None:
    silent = RecipientReport(Recipient("silent@x.example", frozenset({"NEVER"})), "failed")
    groups = read(made(ENVELOPE, silent, FAILED))[2]
    assert [group["Final-Recipient"] for group in groups[1:]] == ["rfc822; user@example.net"]


STATUS: list[tuple[Kind, str | None, str, str]] = [
    ("failed", "550 5.1.1 no", "failed", "5.1.1"),
    ("failed", "550-5.7.26 no", "failed", "5.7.26"),
    ("failed", "550 no", "failed", "5.0.0"),
    ("failed", "550 4.2.2 odd", "failed", "5.0.0"),
    ("failed", None, "failed", "5.0.0"),
    ("expired", "451 4.4.2 later", "failed", "5.4.7"),
    ("delayed", "451 4.4.2 later", "delayed", "4.4.2"),
    ("delayed", None, "delayed", "4.0.0"),
    ("relayed", "250 2.1.5 OK", "relayed", "2.1.5"),
    ("relayed", "250 OK 5.1.1", "relayed", "2.0.0"),
]


@pytest.mark.parametrize(("kind", "reply", "action", "status"), STATUS)
def test_action_and_status_agree(kind: Kind, reply: str | None, action: str, status: str) -> None:
    recipient = Recipient("u@x.example", frozenset({"SUCCESS", "FAILURE", "DELAY"}))
    group = read(made(ENVELOPE, RecipientReport(recipient, kind, reply)))[2][1]
    assert (group["Action"], group["Status"]) == (action, status)


def test_a_delay_reports_until_when_the_relay_retries() -> None:
    recipient = Recipient("u@x.example", frozenset({"DELAY"}))
    report = RecipientReport(recipient, "delayed", "451 4.3.0 later", retry_until=1_740_820_000.0)
    message, human, groups, _ = read(made(ENVELOPE, report))
    assert message["Subject"] == "Delayed mail (still being retried)"
    assert groups[1]["Will-Retry-Until"] == "Sat, 01 Mar 2025 09:06:40 +0000"
    assert "trying until Sat, 01 Mar 2025 09:06:40 +0000" in human


def test_envelope_id_and_original_recipient_come_back_decoded() -> None:
    recipient = Recipient("u@x.example", orcpt="rfc822;first+2Blast@old.example")
    groups = read(made(ENVELOPE._replace(envid="QQ+2B1"), RecipientReport(recipient, "failed")))[2]
    assert groups[0]["Original-Envelope-Id"] == "QQ+1"
    assert groups[1]["Original-Recipient"] == "rfc822; first+last@old.example"


@pytest.mark.parametrize("envid", ["a+0D+0AInjected:+20x", "a+", "\r\nInjected: x"])
def test_malformed_xtext_comes_back_as_one_line(envid: str) -> None:
    groups = read(made(ENVELOPE._replace(envid=envid)))[2]
    assert groups[0]["Injected"] is None
    assert groups[0]["Original-Envelope-Id"] is not None


def test_an_address_beyond_ascii_takes_the_forms_of_rfc_6533() -> None:
    recipient = Recipient("jürgen@münchen.example", orcpt="utf-8;j\\x{FC}rgen@m\\x{FC}nchen.example")
    envelope = Envelope("app@example.com", (recipient,), smtputf8=True)
    content = OTP.replace(b"Your verification", "Bestätigung".encode())
    bounced = made(envelope, RecipientReport(recipient, "failed", "550 5.1.1 nö"), content=content)
    assert bounced.envelope.smtputf8
    assert bounced.envelope.body == "8BITMIME"
    text = bounced.content.decode()
    assert "Content-Type: message/global-delivery-status\r\n" in text
    assert "\r\nFinal-Recipient: utf-8; jürgen@münchen.example\r\n" in text
    assert "\r\nOriginal-Recipient: utf-8; jürgen@münchen.example\r\n" in text
    assert "\r\nDiagnostic-Code: smtp; 550 5.1.1 nö\r\n" in text
    assert "jürgen@münchen.example" in read(bounced)[1]


def test_a_report_about_ascii_addresses_stays_seven_bit() -> None:
    content = OTP.replace(b"Acme", "Ácmé".encode())
    bounced = made(ENVELOPE, replace(FAILED, reply="550 5.1.1 nö"), content=content)
    assert bounced.content.isascii()
    assert bounced.envelope.body is None
    _, human, groups, returned = read(bounced)
    assert "nö" in human
    assert groups[1]["Diagnostic-Code"] == "smtp; 550 5.1.1 n?"
    assert "Ácmé" in cast(bytes, returned.get_payload(decode=True)).decode()


def test_an_eight_bit_message_returned_whole_asks_for_8bitmime() -> None:
    bounced = made(ENVELOPE._replace(ret="FULL"), content=OTP.replace(b"ten", b"z\xe4hn"))
    assert bounced.envelope.body == "8BITMIME"
    assert bounced.content.count(b"Content-Transfer-Encoding: 8bit\r\n") == 2


def test_a_credential_in_a_reply_does_not_come_back() -> None:
    bounced = made(ENVELOPE, replace(FAILED, reply="550 5.7.8 AUTH PLAIN AHVzZXIAcGFzc3dvcmQ= refused"))
    assert b"AHVzZXIA" not in bounced.content


@given(
    reply=st.text(max_size=200),
    mta=st.one_of(st.none(), st.just("mx.example.net")),
    orcpt=st.one_of(st.none(), st.text(max_size=30)),
    content=st.lists(st.sampled_from([b"Subject: 123456", b"\r\n", b"a", b"--=_b1", b"\xff", b": "]), max_size=12).map(
        b"".join
    ),
    ret=st.sampled_from([None, "FULL", "HDRS"]),
)
def test_any_report_is_read_as_three_parts_with_two_groups(
    reply: str, mta: str | None, orcpt: str | None, content: bytes, ret: str | None
) -> None:
    # A boundary can't be guessed, so it isn't in the content.
    content = normalise(content.replace(b"--=_b1", b"--=_x"))
    envelope = ENVELOPE._replace(ret=cast("None", ret))
    report = RecipientReport(USER._replace(orcpt=orcpt), "failed", reply, mta)
    bounced = made(envelope, report, content=content)
    assert normalise(bounced.content) is bounced.content
    message = message_from_bytes(bounced.content, policy=policy.compat32)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert len(parts) == 3
    groups = cast("list[Message[str, str]]", cast("Message[str, str]", parts[1]).get_payload())
    assert len(groups) == 2
    assert groups[1]["Action"] == "failed"


def test_long_words_of_an_upstream_fold_into_short_lines() -> None:
    bounced = made(ENVELOPE, replace(FAILED, reply="550 5.7.1 " + "word " * 90))
    assert all(len(line) <= 998 for line in bounced.content.split(b"\r\n"))
    status = bounced.content.split(b"message/delivery-status")[1].split(b"--=_b1")[0]
    assert all(len(line) <= 78 for line in status.split(b"\r\n"))
