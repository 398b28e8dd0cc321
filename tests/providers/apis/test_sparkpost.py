"""SparkPost's API: the message as a JSON string, X-MSYS-API as parameters, and answers by their counts."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.api import Found
from relay.providers.apis.sparkpost import API
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

ID = "65832150921904138"
QUIET = {"transactional": True, "open_tracking": False, "click_tracking": False, "perform_substitutions": False}


def steered(value: object) -> dict[str, tuple[str, ...]]:
    return {"x-msys-api": (value if isinstance(value, str) else json.dumps(value),)}


def test_the_request_holds_the_envelope_and_the_message_as_it_is() -> None:
    mail = raw_mail()
    assert API.why_not(mail) is None
    request = API.request(mail, call(prefix="/proxy"))
    assert request.path == "/proxy/api/v1/transmissions"
    assert json_body(request) == {
        "options": QUIET,
        "recipients": [{"address": {"email": ANN}}, {"address": {"email": BOB}}],
        "content": {"email_rfc822": CONTENT.decode()},
    }
    assert dict(request.headers) == {
        "Authorization": KEY,
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    hold_key(request, KEY)


@given(content=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="{"), max_size=200))
def test_any_utf_8_comes_through(content: str) -> None:
    mail = raw_mail(content=content.encode())
    assert API.why_not(mail) is None
    assert json_body(API.request(mail, call()))["content"] == {"email_rfc822": content}


def test_x_msys_api_goes_into_the_parameters() -> None:
    settings = {
        "campaign_id": "otp",
        "metadata": {"relay_id": "01JD", "n": 1},
        "tags": ["a", "ä"],
        "options": {"open_tracking": True, "transactional": False, "ip_pool": "eu", "perform_substitutions": True},
        "substitution_data": {"ignored": "by its SMTP server, too"},
    }
    mail = raw_mail(steering=steered(settings))
    assert API.why_not(mail) is None
    body = json_body(API.request(mail, call()))
    assert (body["campaign_id"], body["metadata"]) == ("otp", {"relay_id": "01JD", "n": 1})
    assert body["options"] == {**QUIET, "open_tracking": True, "transactional": False, "ip_pool": "eu"}
    assert body["recipients"] == [{"address": {"email": one}, "tags": ["a", "ä"]} for one in (ANN, BOB)]
    assert "substitution_data" not in body
    assert API.steering == {"x-msys-api"}


@pytest.mark.parametrize(
    "value",
    [
        "",
        "{",
        "[]",
        '{"metadata": []}',
        '{"metadata": {"a": NaN}}',
        '{"metadata": {"a": 1e999}}',
        '{"metadata": {"a": "\\ud800"}}',
        "[" * 100_000,
        {"cc": ["eve@example.org"]},
        {"bcc": ["eve@example.org"]},
        {"archive": ["eve@example.org"]},
        {"campaign_id": 7},
        {"tags": "a"},
        {"options": "fast"},
    ],
    ids=lambda value: str(value)[:30],
)
def test_settings_that_the_api_has_no_parameter_for_send_the_mail_another_way(value: object) -> None:
    assert API.why_not(raw_mail(steering=steered(value))) is not None


def test_two_fields_of_settings_send_the_mail_another_way() -> None:
    assert API.why_not(raw_mail(steering={"x-msys-api": ("{}", "{}")})) is not None


def test_mail_that_can_be_unsubscribed_from_is_not_called_transactional() -> None:
    mail = raw_mail(content=b"From: a@example.com\r\nLIST-unsubscribe: <https://example.com>\r\n\r\nList\r\n")
    assert json_body(API.request(mail, call()))["options"]["transactional"] is False


@pytest.mark.parametrize(
    ("content", "fits"),
    [
        (b"Subject: x\r\n\r\n{{ body }}\r\n", True),
        (b"Subject: x\r\n\r\nX-Not-A-Field: {{ y }}\r\n", True),
        (b"Subject: {x}\r\n\r\n", True),
        (b"Subject: {{x}}\r\n\r\n", False),
        (b"Subject: x\r\nX-Y: a\r\n b {{z\r\n\r\n", False),
        (b"Subject: x\nX-Y: {{z\n\nbody\n", False),
        (b"Subject: {\r\n {x\r\n\r\n", True),  # unfolded, a space stands between the two
        (b"Subject: =?utf-8?q?=7B=7Bx?=\r\n\r\n", False),
        (b"Subject: =?utf-8?q?a=7B?=\r\n =?utf-8?b?eyBiIH0=?=\r\n\r\n", False),
        (b"Subject: =?utf-9?q?x?= =?utf-8?b?!?=\r\n\r\n", True),
        (b"Subject: no end {{", False),
        (b"X-{{y}}: x\r\n\r\n", False),
    ],
)
def test_double_braces_in_a_header_field_send_the_mail_another_way(content: bytes, fits: bool) -> None:
    assert (API.why_not(raw_mail(content=content)) is None) is fits


def test_a_message_that_isnt_utf_8_goes_another_way() -> None:
    assert API.why_not(raw_mail(content=b"Subject: x\r\n\r\n\xe4\r\n")) == "the message isn't UTF-8"


def results(accepted: object, rejected: object, **more: object) -> dict[str, Any]:
    counts = {"total_accepted_recipients": accepted, "total_rejected_recipients": rejected}
    return {"results": {**counts, "id": ID, **more}}


def test_each_recipient_gets_the_transmissions_id_that_events_carry() -> None:
    verdict = judged(API, raw_mail(), answer(200, results(2, 0)))
    assert verdict.found == (Found("sent", ID),) * 2
    assert esp_id_in_reply("sparkpost", verdict.found[0].text) == ID
    event = {"type": "delivery", "rcpt_to": ANN, "transmission_id": ID}
    assert esp_ids_of_events("sparkpost", json.dumps([{"msys": {"message_event": event}}]).encode()) == [ID]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (results(0, 2), "rejected", "5.0.0"),
        (results(0, 2, rcpt_to_errors=[{"message": "invalid address"}]), "rejected", "5.1.3"),
        (results(0, 2, rcpt_to_errors=[{"message": "suppressed"}]), "rejected", "5.7.1"),
        (results(1, 1), "unknown", ""),
        (results(2, 1), "unknown", ""),
        (results(0, 1), "unknown", ""),
        (results(0, 0), "unknown", ""),
        (results(2, None), "unknown", ""),
        (results(True, False), "unknown", ""),
        (results(2, 0.0), "unknown", ""),
        (results("2", 0), "unknown", ""),
        (results(2, 0, id=None), "unknown", ""),
        ({"results": {"id": ID}}, "unknown", ""),
        (b"", "unknown", ""),
    ],
)
def test_rejections_inside_of_a_200_are_counted(body: Any, kind: str, status: str) -> None:
    verdict = judged(API, raw_mail(), answer(200, body))
    assert [(one.kind, one.status) for one in verdict.found] == [(kind, status)] * 2


def error(code: object, message: str = "", description: str | None = None) -> dict[str, Any]:
    return {"errors": [{"message": message, "code": code, "description": description}]}


SUPPRESSED = error("1902", "Message generation rejected", "recipient address was suppressed due to customer policy")
JUDGED: list[tuple[str, int, Any, str]] = [
    ("daily limit", 420, error("2102", "Exceed Sending Limit (daily)"), "account"),
    ("a limit without a code", 420, b"", "account"),
    ("key", 401, error(None, "Unauthorized."), "account"),
    ("permission", 403, error("1100", "permission denied"), "account"),
    ("sending domain", 400, error("7001", "Invalid domain", "Unconfigured Sending Domain <example.com>"), "account"),
    ("sandbox", 400, error("1902", "Message generation rejected", "Sending domain sandbox option mismatch"), "account"),
    ("a number as code", 400, error(7000, "Sending domain blacklisted"), "account"),
    ("resources", 400, error("1502", "Server resources unavailable"), "unavailable"),
    ("no valid recipient", 400, error(5002, "At least one valid recipient is required"), "rejected"),
    ("suppressed", 400, SUPPRESSED, "rejected"),
    ("rejected content", 400, error("1902", "Message generation rejected", "unsafe attachment"), "unfit"),
    ("generation", 400, error("1901", "Message failed to generate"), "unfit"),
    ("content", 422, error("3020", "template mime parsing error"), "unfit"),
    ("size", 413, error(None, "Request Entity Too Large"), "unfit"),
    ("too many", 429, error(None, "Too many requests"), "throttled"),
    ("trouble", 500, error("1500", "Failed to update database"), "unavailable"),
    ("may be sent", 504, b"", "unknown"),
    ("no JSON", 400, b"<html>", "unfit"),
]


@pytest.mark.parametrize(("_", "status", "body", "kind"), JUDGED, ids=[one[0] for one in JUDGED])
def test_an_answer_means(_: str, status: int, body: Any, kind: str) -> None:
    assert kinds(judged(API, raw_mail([ANN]), answer(status, body))) == [kind]


def test_a_refused_recipient_that_is_named_leaves_the_others_alone() -> None:
    body = error("1902", "Message generation rejected", f"recipient <{BOB.upper()}> was suppressed")
    found = judged(API, raw_mail(), answer(400, body)).found
    assert [(one.kind, one.status) for one in found] == [("unavailable", ""), ("rejected", "5.7.1")]


def test_a_suppression_among_several_recipients_that_names_none_ends_none() -> None:
    assert kinds(judged(API, raw_mail(), answer(400, SUPPRESSED))) == ["unfit", "unfit"]


def test_no_valid_recipient_means_that_each_address_is_invalid() -> None:
    body = error(5002, "At least one valid recipient is required")
    assert [one.status for one in judged(API, raw_mail(), answer(400, body)).found] == ["5.1.3", "5.1.3"]


def test_the_text_has_message_description_and_code() -> None:
    assert judged(API, raw_mail([ANN]), answer(403, error(None, "Forbidden."))).found[0].text == "HTTP 403: Forbidden."
    assert judged(API, raw_mail([ANN]), answer(403, error("1100"))).found[0].text == "HTTP 403"
    counted = judged(API, raw_mail(), answer(200, results(1, 1))).found[0]
    assert counted.text == "HTTP 200: 1 recipients rejected, 1 accepted"
    found = judged(API, raw_mail([ANN]), answer(400, error("7001", "Invalid domain", "No sending domain"))).found[0]
    assert found.text == "HTTP 400: Invalid domain: No sending domain (7001)"


def test_retry_after_is_the_wait() -> None:
    assert judged(API, raw_mail(), answer(429, b"", {"retry-after": "3"})).retry_after_s == 3.0
    assert judged(API, raw_mail(), answer(429)).retry_after_s is None
