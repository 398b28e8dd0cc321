"""Leadpush's API: the message's parts in JSON, and answers of two documented shapes."""

from __future__ import annotations

from typing import Any

import pytest

from relay.providers.api import Attachment, Found, Mailbox
from relay.providers.apis.leadpush import API
from relay.providers.webhook import Field
from tests.providers.apis.samples_2 import (
    ANN,
    BOB,
    CEM,
    KEY,
    answer,
    call,
    hold_key,
    json_body,
    json_mail,
    judged,
    kinds,
)

UUID, OTHER = "0198f3c1-0000-7000-8000-000000000001", "0198f3c1-0000-7000-8000-000000000002"


def test_the_plainest_mail_has_the_plainest_request() -> None:
    mail = json_mail()
    assert API.why_not(mail) is None
    request = API.request(mail, call(prefix="/proxy"))
    assert request.path == "/proxy/v1/emails"
    assert json_body(request) == {
        "from": "otp@example.com",
        "to": [ANN],
        "subject": "482913 is your code",
        "text": "Your code is 482913.\n",
    }
    assert dict(request.headers) == {
        "Authorization": f"Bearer {KEY}",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "X-Leadpush-API-Version": "v1",
    }
    hold_key(request, KEY)


def test_the_fullest_mail_keeps_all_that_it_says() -> None:
    mail = json_mail(
        [ANN, BOB, CEM],
        author=Mailbox("otp@example.com", "Äcme"),
        to=(Mailbox(ANN), Mailbox(BOB.upper())),
        reply_to=(Mailbox("help@example.com", 'The "Help", desk'),),
        subject="Código 482913",
        text="",
        html="<p>482913 ü</p>",
        headers=(Field("X-Ref", 'Grüße "x"'), Field("Message-Id", "<1@example.com>")),
    )
    assert API.why_not(mail) is None
    assert json_body(API.request(mail, call())) == {
        "from": "otp@example.com",
        "to": [ANN, BOB.upper()],
        "bcc": [CEM],
        "reply_to": "help@example.com",
        "subject": "Código 482913",
        "text": "",
        "html": "<p>482913 ü</p>",
        "headers": {"X-Ref": 'Grüße "x"'},
    }


def test_mail_without_to_goes_as_bcc_alone() -> None:
    mail = json_mail([ANN], to=())
    assert API.why_not(mail) is None
    body = json_body(API.request(mail, call()))
    assert "to" not in body
    assert body["bcc"] == [ANN]


UNFIT: list[tuple[str, dict[str, Any]]] = [
    ("Cc", {"cc": (Mailbox(ANN),)}),
    ("a file", {"attachments": (Attachment("a.pdf", "application/pdf", b"%PDF"),)}),
    ("two reply addresses", {"reply_to": (Mailbox(ANN), Mailbox(BOB))}),
    ("a name in To", {"to": (Mailbox(ANN, "Ann"),)}),
    ("no subject", {"subject": " "}),
    ("no text", {"text": None}),
    ("an empty text alone", {"text": ""}),
    ("a field twice", {"headers": (Field("X-Ref", "1"), Field("x-ref", "2"))}),
]


@pytest.mark.parametrize(("_", "parts"), UNFIT, ids=[one[0] for one in UNFIT])
def test_what_leadpush_has_no_parameter_for_goes_another_way(_: str, parts: dict[str, Any]) -> None:
    assert API.why_not(json_mail(**parts)) is not None


def test_more_recipients_than_it_takes_go_another_way() -> None:
    fifty = [ANN, *(f"r{number}@example.org" for number in range(49))]
    assert API.why_not(json_mail(fifty)) is None
    assert API.why_not(json_mail([*fifty, BOB])) is not None


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("x-ref", True),
        ("list-unsubscribe", True),
        ("message-id", True),
        ("x_ref", False),
        ("x.ref", False),
        ("x-leadpush-send-id", False),
        ("x-leadpush-tag", False),
        ("x-leadpush-tracking", False),
        ("sender", False),
        ("return-path", False),
        ("dkim-signature", False),
        ("x-ré", False),
        ("", False),
    ],
)
def test_a_field_may_be_set_or_not(name: str, allowed: bool) -> None:
    assert API.allows_header(name) is allowed


def message(recipient: str, uuid: Any = UUID, status: Any = "pending") -> dict[str, Any]:
    return {"uuid": uuid, "recipient": recipient, "type": "to", "from": "otp@example.com", "status": status}


def taken(*messages: Any, accepted: Any = True) -> dict[str, Any]:
    return {"data": {"accepted": accepted, "message_count": len(messages), "messages": list(messages)}}


def test_each_recipient_gets_its_own_uuid_in_any_order() -> None:
    body = taken(message(BOB.upper(), OTHER), message(f"Ann <{ANN}>"))
    found = judged(API, json_mail([ANN, BOB]), answer(202, body)).found
    assert found == (Found("sent", UUID), Found("sent", OTHER))


def older(count: Any, group: Any = UUID) -> dict[str, Any]:
    return {"data": {"send_group_id": group, "to_count": 1, "bcc_count": 1, "total_recipient_count": count}}


ACCEPTED: list[tuple[str, Any, list[str]]] = [
    ("one is missing", taken(message(ANN)), ["sent", "unknown"]),
    ("one has no uuid", taken(message(ANN), message(BOB, None)), ["sent", "unknown"]),
    ("one has failed", taken(message(ANN), message(BOB, OTHER, "Failed")), ["sent", "unknown"]),
    ("not accepted", taken(message(ANN), message(BOB), accepted=False), ["unfit", "unfit"]),
    ("no message", taken(), ["unknown", "unknown"]),
    ("the older shape", older(2), ["sent", "sent"]),
    ("the older shape, a number", older(2, 7), ["sent", "sent"]),
    ("the older shape, one is missing", older(1), ["unknown", "unknown"]),
    ("the older shape, no id", older(2, None), ["unknown", "unknown"]),
    ("the older shape, no count", older(True), ["unknown", "unknown"]),
    ("neither", {"data": {"accepted": True}}, ["unknown", "unknown"]),
    ("empty", b"", ["unknown", "unknown"]),
]


@pytest.mark.parametrize(("_", "body", "expected"), ACCEPTED, ids=[one[0] for one in ACCEPTED])
def test_a_success_is_read_in_both_shapes(_: str, body: Any, expected: list[str]) -> None:
    assert kinds(judged(API, json_mail([ANN, BOB]), answer(202, body))) == expected


def test_the_older_shape_has_one_id_for_all() -> None:
    assert judged(API, json_mail([ANN, BOB]), answer(200, older(2))).found == (Found("sent", UUID),) * 2


def faults(**errors: Any) -> dict[str, Any]:
    return {"message": "The given data was invalid.", "errors": errors}


JUDGED: list[tuple[str, int, Any, list[str]]] = [
    ("key", 401, {"message": "unauthorized"}, ["account"] * 2),
    ("scope", 403, {"message": "forbidden"}, ["account"] * 2),
    ("path", 404, b"", ["account"] * 2),
    ("sender", 422, faults(**{"from": ["The from address isn't verified."]}), ["account"] * 2),
    ("To", 422, faults(**{"to.0": ["The to.0 field must be a valid email address."]}), ["rejected", "unavailable"]),
    ("Bcc", 422, faults(**{"bcc.0": "must be a valid email address"}), ["unavailable", "rejected"]),
    ("by its address", 422, faults(recipients=[f"{BOB} is invalid"]), ["unavailable", "rejected"]),
    ("too many", 422, faults(to=["The to field must not have more than 50 items."]), ["unfit"] * 2),
    ("headers", 422, faults(headers=["invalid"]), ["unfit"] * 2),
    ("no errors", 422, {"message": "unprocessable"}, ["unfit"] * 2),
    ("errors as a list", 422, {"errors": ["from"]}, ["unfit"] * 2),
    ("trouble", 500, {"message": "Server Error"}, ["unavailable"] * 2),
    ("may be sent", 504, b"", ["unknown"] * 2),
]


@pytest.mark.parametrize(("_", "status", "body", "expected"), JUDGED, ids=[one[0] for one in JUDGED])
def test_an_answer_means(_: str, status: int, body: Any, expected: list[str]) -> None:
    assert kinds(judged(API, json_mail([ANN, BOB]), answer(status, body))) == expected


def test_an_invalid_address_is_5_1_3_in_the_esps_words() -> None:
    body = faults(**{"to.0": ["The to.0 field must be a valid email address."]})
    found = judged(API, json_mail([ANN, BOB]), answer(422, body)).found[0]
    assert found == Found("rejected", "HTTP 422: The to.0 field must be a valid email address.", "5.1.3")


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"retry-after": "12"}, 12.0), ({"retry-after": "Sun, 01 Mar 2026 12:01:05 GMT"}, 60.0), ({}, None)],
)
def test_429_says_how_long_to_wait(headers: dict[str, str], wait_s: float | None) -> None:
    verdict = judged(API, json_mail(), answer(429, {"message": "Too Many Attempts."}, headers))
    assert (kinds(verdict), verdict.retry_after_s) == (["throttled"], wait_s)
