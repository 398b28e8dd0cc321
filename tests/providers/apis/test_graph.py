"""Microsoft Graph: a base64 message without an envelope."""

from __future__ import annotations

from base64 import b64decode
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.api import Found
from relay.providers.apis.graph import API
from tests.providers.apis.samples_2 import (
    ANN,
    BOB,
    CEM,
    CONTENT,
    DEE,
    KEY,
    answer,
    call,
    hold_key,
    judged,
    kinds,
    raw_mail,
)

MAILBOX = "otp@example.com"


def test_the_body_is_the_message_in_base64() -> None:
    mail = raw_mail()
    assert API.why_not(mail) is None
    request = API.request(mail, call(MAILBOX, "/proxy"))
    assert request.path == "/proxy/v1.0/users/otp@example.com/sendMail"
    assert dict(request.headers) == {"Authorization": f"Bearer {KEY}", "Content-Type": "text/plain"}
    assert b64decode(request.body, validate=True) == CONTENT
    hold_key(request, KEY)
    assert API.needs == "token"


@given(content=st.binary(max_size=300))
def test_any_bytes_come_through(content: bytes) -> None:
    assert b64decode(API.request(raw_mail(content=content), call(MAILBOX)).body, validate=True) == content


def test_the_mailbox_cant_leave_its_place_in_the_path() -> None:
    assert API.request(raw_mail(), call("a/../b?c#d@ex.com")).path == "/v1.0/users/a%2F..%2Fb%3Fc%23d@ex.com/sendMail"


ENVELOPES: list[tuple[str, list[str], bool]] = [
    (f"To: {ANN}", [ANN], True),
    (f"To: {ANN.upper()}", [ANN], True),
    (f"To: {ANN}\r\nCc: {BOB}", [ANN, BOB], True),
    (f'To: "Last, First" <{ANN}>,\r\n =?utf-8?q?B=2Cb?= <{BOB}>\r\nCC: {CEM}', [CEM, BOB, ANN], True),
    (f"To: Team: {ANN}, {BOB};", [ANN, BOB], True),
    (f"To: {ANN}\r\nTo: {BOB}", [ANN, BOB], True),
    (f"To: {ANN}\r\nBcc: {ANN}", [ANN], True),
    (f"To: Ann\u00e4 <{ANN}>", [ANN], True),
    (f"To: {ANN}", [ANN, BOB], False),
    (f"To: {ANN}, {BOB}", [ANN], False),
    (f"To: {ANN}\r\nCc: {DEE}", [ANN], False),
    (f"To: {ANN}\r\nBcc: {DEE}", [ANN], False),
    (f"To: {ANN}\r\nBcc: {BOB}", [ANN, BOB], False),
    ("To: undisclosed-recipients:;", [ANN], False),
    ("X-To: " + ANN, [ANN], False),
    (f"Subject: x\r\n\r\nTo: {ANN}", [ANN], False),
]


@pytest.mark.parametrize(("fields", "recipients", "fits"), ENVELOPES)
def test_the_envelope_must_be_what_to_and_cc_name(fields: str, recipients: list[str], fits: bool) -> None:
    mail = raw_mail(recipients, f"From: {MAILBOX}\r\n{fields}\r\n\r\ncode\r\n".encode())
    reason = API.why_not(mail)
    assert (reason is None) is fits
    assert reason is None or "@" not in reason


def test_202_is_an_acceptance_whatever_its_body() -> None:
    request_id = "5f0c9a1e-8b7d-4c6e-9f20-31425364a5b6"
    taken = answer(202, b"", {"request-id": request_id})
    assert judged(API, raw_mail(), taken).found == (Found("sent", request_id),) * 2
    assert judged(API, raw_mail(), taken._replace(body=None, headers={})).found == (Found("sent", ""),) * 2


def error(code: str, message: str = "Something.") -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "innerError": {"date": "2026-03-01T12:00:05"}}}


INVALID = error("ErrorInvalidRecipients", "At least one recipient is not valid.")
JUDGED: list[tuple[int, Any, str]] = [
    (200, b"", "unknown"),
    (204, b"", "unknown"),
    (400, INVALID, "rejected"),
    (400, error("ErrorInvalidUser"), "account"),
    (400, error("ErrorQuotaExceeded"), "account"),
    (400, error("ErrorMimeContentInvalidBase64String", "Invalid base64 string for MIME content."), "unfit"),
    (401, error("InvalidAuthenticationToken", "Access token has expired."), "account"),
    (403, error("ErrorSendAsDenied"), "account"),
    (403, error("ErrorAccessDenied"), "account"),
    (404, error("ErrorInvalidUser"), "account"),
    (404, error("MailboxNotEnabledForRESTAPI"), "account"),
    (413, error("ErrorMessageSizeExceeded"), "unfit"),
    (429, error("ApplicationThrottled"), "throttled"),
    (400, error("ErrorServerBusy"), "unavailable"),
    (503, error("ErrorMailboxStoreUnavailable"), "unavailable"),
    (500, b"<html>", "unavailable"),
    (504, b"", "unknown"),
]


@pytest.mark.parametrize(("status", "body", "kind"), JUDGED)
def test_an_answer_means(status: int, body: Any, kind: str) -> None:
    assert kinds(judged(API, raw_mail([ANN]), answer(status, body))) == [kind]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (INVALID, "HTTP 404: ErrorInvalidRecipients: At least one recipient is not valid."),
        ({"error": {"code": "ErrorInvalidUser"}}, "HTTP 404: ErrorInvalidUser"),
        ({"error": {"message": "No such user"}}, "HTTP 404: No such user"),
    ],
)
def test_the_text_has_code_and_message(body: Any, text: str) -> None:
    assert judged(API, raw_mail([ANN]), answer(404, body)).found[0].text == text


def test_an_invalid_recipient_ends_only_itself() -> None:
    assert judged(API, raw_mail([ANN]), answer(400, INVALID)).found[0].status == "5.1.3"
    assert kinds(judged(API, raw_mail(), answer(400, INVALID))) == ["unfit", "unfit"]
    body = error("ErrorInvalidRecipients", f"Recipient '{BOB}' is not valid.")
    assert kinds(judged(API, raw_mail(), answer(400, body))) == ["unavailable", "rejected"]


def test_retry_after_is_the_wait() -> None:
    busy = answer(503, error("ErrorServerBusy"), {"retry-after": "10"})
    assert judged(API, raw_mail(), busy).retry_after_s == 10.0
    assert kinds(judged(API, raw_mail(), busy)) == ["throttled", "throttled"]
    assert judged(API, raw_mail(), answer(429, b"", {"retry-after": "7"})).retry_after_s == 7.0
