"""Mandrill's API: the message as a JSON string, and a status for each recipient under 200."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.api import Found
from relay.providers.apis.mandrill import API
from tests.providers.apis.samples_2 import (
    ANN,
    BOB,
    CONTENT,
    KEY,
    answer,
    call,
    esp_id_in_reply,
    esp_ids_of_events,
    hold_key,
    json_body,
    judged,
    kinds,
    raw_mail,
)

ID, OTHER = "abcdef0123456789abcdef0123456789", "0123456789abcdef0123456789abcdef"


def test_the_request_holds_key_envelope_and_the_message_as_it_is() -> None:
    mail = raw_mail()
    assert API.why_not(mail) is None
    request = API.request(mail, call(prefix="/proxy"))
    assert request.path == "/proxy/api/1.0/messages/send-raw.json"
    assert json_body(request) == {
        "key": KEY,
        "raw_message": CONTENT.decode(),
        "to": [ANN, BOB],
        "async": False,
    }
    hold_key(request, KEY, in_body=1)


def test_x_mc_fields_stay_in_the_message_because_send_raw_reads_them_there() -> None:
    content = b'X-MC-Metadata: {"relay_id": "01JD"}\r\nX-MC-Tags: otp\r\n' + CONTENT
    assert API.steering == frozenset()
    assert json_body(API.request(raw_mail(content=content), call()))["raw_message"] == content.decode()


@given(content=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_utf_8_comes_through(content: str) -> None:
    assert json_body(API.request(raw_mail(content=content.encode()), call()))["raw_message"] == content


def test_a_message_that_isnt_utf_8_goes_another_way() -> None:
    assert API.why_not(raw_mail(content=b"Subject: x\r\n\r\n\xe4\r\n")) == "the message isn't UTF-8"


def status(email: str = ANN, status: Any = "sent", esp_id: Any = ID, **more: Any) -> dict[str, Any]:
    return {"email": email, "status": status, "_id": esp_id, "reject_reason": None, **more}


def test_each_recipient_gets_its_own_id_in_any_order() -> None:
    body = [status(BOB.upper(), "queued", OTHER), status()]
    verdict = judged(API, raw_mail(), answer(200, body))
    assert verdict.found == (Found("sent", ID), Found("sent", OTHER))
    assert esp_id_in_reply("mandrill", ID) == ID
    events = [{"event": "send", "_id": ID, "ts": 1772366405, "msg": {"email": ANN, "_id": ID}}]
    assert esp_ids_of_events("mandrill", urlencode({"mandrill_events": json.dumps(events)}).encode()) == [ID]


@pytest.mark.parametrize(
    "reason",
    ["hourly-quota-exhausted", "monthly-limit-reached", "free-trial-sends-exhausted", "sending-paused", "of-tomorrow"],
)
def test_mail_that_is_held_back_is_sent_and_said_to_be_late(reason: str) -> None:
    found = judged(API, raw_mail([ANN]), answer(200, [status(status="queued", queued_reason=reason)])).found[0]
    assert found == Found("sent", f"{ID} (held back, may come late: {reason})")
    assert esp_id_in_reply("mandrill", found.text) == ID


@pytest.mark.parametrize("reason", ["attachments", "multiple-recipients", None])
def test_mail_that_is_only_sent_in_the_background_isnt_called_late(reason: str | None) -> None:
    body = [status(status="queued", queued_reason=reason)]
    assert judged(API, raw_mail([ANN]), answer(200, body)).found == (Found("sent", ID),)


STATUSES: list[tuple[str, str | None, str, str]] = [
    ("scheduled", None, "sent", ""),
    ("invalid", None, "rejected", "5.1.3"),
    ("rejected", "hard-bounce", "rejected", "5.7.1"),
    ("rejected", "soft-bounce", "rejected", "5.7.1"),
    ("rejected", "spam", "rejected", "5.7.1"),
    ("rejected", "unsub", "rejected", "5.7.1"),
    ("rejected", "custom", "rejected", "5.7.1"),
    ("rejected", "rule", "rejected", "5.7.1"),
    ("rejected", "invalid", "rejected", "5.1.3"),
    ("rejected", "of-tomorrow", "rejected", "5.0.0"),
    ("rejected", None, "rejected", "5.0.0"),
    ("rejected", "invalid-sender", "account", ""),
    ("rejected", "unsigned", "account", ""),
    ("rejected", "test-mode-limit", "account", ""),
    ("of-tomorrow", None, "unknown", ""),
]


@pytest.mark.parametrize(("name", "reason", "kind", "enhanced"), STATUSES)
def test_a_rejection_inside_of_a_200_is_that_recipients(
    name: str, reason: str | None, kind: str, enhanced: str
) -> None:
    body = [status(), status(BOB, name, reject_reason=reason)]
    ann, bob = judged(API, raw_mail(), answer(200, body)).found
    assert ann == Found("sent", ID)
    assert (bob.kind, bob.status) == (kind, enhanced)
    if reason is not None:
        assert bob.text == f"HTTP 200: rejected: {reason}"


def test_a_recipient_that_the_answer_forgets_is_unknown() -> None:
    assert kinds(judged(API, raw_mail(), answer(200, [status()]))) == ["sent", "unknown"]
    assert kinds(judged(API, raw_mail(), answer(200, []))) == ["unknown", "unknown"]


def error(name: str, message: str, code: int = -1) -> dict[str, Any]:
    return {"status": "error", "code": code, "name": name, "message": message}


JUDGED: list[tuple[str, int, Any, str]] = [
    ("key, as it comes", 500, error("Invalid_Key", "Invalid API key"), "account"),
    ("key, 401", 401, error("Invalid_Key", "Invalid API key"), "account"),
    ("no key", 500, error("ValidationError", "You must specify a key value", -2), "account"),
    ("plan", 500, error("PaymentRequired", "The requested feature requires payment"), "account"),
    ("subaccount", 500, error("Unknown_Subaccount", "No subaccount exists with the id 'x'"), "account"),
    ("content", 500, error("ValidationError", 'Validation error: {"raw_message":"Please enter a value"}', -2), "unfit"),
    ("trouble", 500, error("GeneralError", "An unexpected error occurred", -99), "unavailable"),
    ("closed", 503, error("ServiceUnavailable", "temporarily unavailable"), "unavailable"),
    ("no JSON", 500, b"<html>", "unavailable"),
    ("may be sent", 504, b"", "unknown"),
    ("too many", 429, b"", "throttled"),
    ("a key under 200", 200, error("Invalid_Key", "Invalid API key"), "account"),
    ("another 200", 200, {"status": "sent"}, "unknown"),
    ("empty", 200, b"", "unknown"),
]


@pytest.mark.parametrize(("_", "code", "body", "kind"), JUDGED, ids=[one[0] for one in JUDGED])
def test_an_error_means_by_its_name(_: str, code: int, body: Any, kind: str) -> None:
    assert kinds(judged(API, raw_mail(), answer(code, body))) == [kind] * 2


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (error("Invalid_Key", "Invalid API key"), "HTTP 500: Invalid_Key: Invalid API key"),
        ({"name": "Invalid_Key"}, "HTTP 500: Invalid_Key"),
        ({"message": "Closed"}, "HTTP 500: Closed"),
    ],
)
def test_the_text_has_name_and_message(body: Any, text: str) -> None:
    assert judged(API, raw_mail([ANN]), answer(500, body)).found[0].text == text


def test_no_more_recipients_than_have_their_status_in_the_answer() -> None:
    assert API.recipients == 10
