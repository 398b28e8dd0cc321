"""Brevo's API: what a request says, and what an answer means."""

from __future__ import annotations

import base64
import json
from email.header import decode_header, make_header
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from relay.providers import brevo as provider
from relay.providers.api import ApiMail, Found, Mailbox, Verdict
from relay.providers.apis.brevo import API
from tests.providers.apis.samples_1 import (
    ALONE,
    ANN,
    BEN,
    CALL,
    EVE,
    KEY,
    LEAST,
    NAMES,
    NOW,
    PDF,
    REBUILT,
    body_of,
    fields,
    judged_by,
    kinds,
    mail_of,
)

ID = "<202603011200.123456@smtp-relay.mailin.fr>"


def built(mail: ApiMail) -> dict[str, Any]:
    """The body of the request; its idempotency key is checked here, and taken off."""
    body = body_of(API, mail, "/proxy/v3/smtp/email", ("api-key", KEY))
    key = body["headers"].pop("idempotencyKey")
    assert str(UUID(key)) == key
    return body


judged = partial(judged_by, API)


def error(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message}


PLAIN = {
    "sender": {"email": "otp@example.com"},
    "to": [{"email": ANN}],
    "subject": "Code",
    "textContent": "1\n",
    "headers": {},
}


def test_a_mail_of_one_line_has_no_field_that_it_doesnt_need() -> None:
    assert built(mail_of(LEAST, [ANN])) == PLAIN


def test_every_part_of_a_mail_has_its_field() -> None:
    rebuilt = REBUILT._replace(
        reply_to=(Mailbox("a@example.com", "Ä"),),
        attachments=(PDF,),
        headers=fields(X_Quoted='a "b"; <c>', Message_ID="<1@example.com>"),
    )
    assert built(mail_of(rebuilt)) == {
        "sender": {"email": "otp@example.com", "name": "Bank"},
        "to": [{"email": ANN, "name": "Ann"}],
        "cc": [{"email": BEN}],
        "bcc": [{"email": EVE}],
        "replyTo": {"email": "a@example.com", "name": "Ä"},
        "subject": "Dein Code: 123456 – gültig",
        "textContent": "123456\nGrüße\n",
        "htmlContent": "<p>123456</p>",
        "headers": {"X-Quoted": 'a "b"; <c>'},
        "attachment": [{"name": "Übersicht.pdf", "content": base64.b64encode(PDF.data).decode()}],
    }


def test_the_same_request_has_the_same_key_and_another_one_another() -> None:
    def key_of(key: str) -> str:
        body = json.loads(API.request(mail_of(), CALL._replace(idempotency_key=key)).body)
        return str(body["headers"]["idempotencyKey"])

    assert API.request(mail_of(), CALL) == API.request(mail_of(), CALL._replace(now=NOW + 60))
    assert key_of("01JD.1") == key_of("01JD.1") != key_of("01JD.2")
    assert API.idempotent_s == 900.0


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_encoded_only_where_brevo_would_drop_it(name: str) -> None:
    (one,) = built(mail_of(ALONE._replace(to=(Mailbox(ANN, name),)), [ANN]))["to"]
    assert one["email"] == ANN
    if name == "日本, 語":
        assert one["name"].startswith("=?utf-8?")
        assert str(make_header(decode_header(one["name"]))) == name
    else:
        assert one["name"] == name


def test_an_empty_text_isnt_a_missing_one() -> None:
    body = built(mail_of(LEAST._replace(text="", html="<p>"), [ANN]))
    assert (body["textContent"], body["htmlContent"]) == ("", "<p>")
    assert "textContent" not in built(mail_of(LEAST._replace(text=None, html="<p>"), [ANN]))


def test_what_the_app_set_in_header_fields_stands_in_the_apis_fields() -> None:
    steering = {"x-mailin-tag": ["otp", " login "], "x-mailin-custom": ["a:b|relay_id:01JD"]}
    assert steering.keys() == API.steering
    assert built(mail_of(LEAST, [ANN], steering)) == {
        **PLAIN,
        "tags": ["otp", "login"],
        "headers": {"X-Mailin-custom": "a:b|relay_id:01JD"},
    }


@pytest.mark.parametrize(
    "mail",
    [
        mail_of(LEAST._replace(to=()), [ANN]),
        mail_of(LEAST._replace(subject=""), [ANN]),
        mail_of(LEAST._replace(text="", html=None), [ANN]),
        mail_of(LEAST._replace(reply_to=(Mailbox("a@example.com"), Mailbox("b@example.com"))), [ANN]),
        mail_of(LEAST._replace(reply_to=(Mailbox("a@example.com", "Müller, Jörg"),)), [ANN]),
        mail_of(LEAST._replace(to=(Mailbox(ANN, "x" * 71),)), [ANN]),
        mail_of(LEAST._replace(headers=fields(X_A="ä")), [ANN]),
        mail_of(LEAST._replace(headers=fields(X_A="\\u00e4")), [ANN]),
        mail_of(LEAST._replace(headers=fields(X_A="1") + fields(x_a="2")), [ANN]),
        mail_of(LEAST, [ANN], {"x-mailin-custom": ["ä"]}),
        mail_of(LEAST, [ANN], {"x-mailin-custom": ["a", "b"]}),
        mail_of(LEAST, [ANN, "jörg@example.org"]),
        *(mail_of(LEAST._replace(attachments=(PDF._replace(filename=one),)), [ANN]) for one in ("", "code", "a.exe")),
    ],
)
def test_what_brevo_cant_carry_goes_another_way(mail: ApiMail) -> None:
    why = API.why_not(mail)
    assert why
    assert "example" not in why


@pytest.mark.parametrize("name", ["sender", "content-type", "dkim-signature", "api-key", "idempotencykey"])
def test_a_standard_field_isnt_allowed(name: str) -> None:
    assert not API.allows_header(name)
    assert all(map(API.allows_header, ("message-id", "list-unsubscribe", "x-sib-sandbox", "in-reply-to")))


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (201, {"messageId": ID}, ["sent"] * 3),
        (201, b"", ["unknown"] * 3),
        (201, {"messageId": None}, ["unknown"] * 3),
        (202, {"messageIds": [ID]}, ["unknown"] * 3),
        (400, error("duplicate_parameter", "Duplicate idempotencyKey"), ["sent"] * 3),
        (400, error("duplicate_request", "Request already processed"), ["unknown"] * 3),
        (500, error("duplicate_parameter", "x"), ["unavailable"] * 3),
        (400, error("invalid_parameter", "email is not valid in to"), ["rejected 5.1.3", "unavailable", "unavailable"]),
        (400, error("invalid_parameter", "email is not valid in cc"), ["unavailable", "rejected 5.1.3", "unavailable"]),
        (400, error("invalid_parameter", "email is not valid in bcc"),
         ["unavailable", "unavailable", "rejected 5.1.3"]),
        (400, error("invalid_parameter", "email is not valid in replyTo"), ["unfit"] * 3),
        (400, error("invalid_parameter", f"Sending has been rejected because the sender you used {ANN} is not valid."),
         ["account"] * 3),
        (400, error("missing_parameter", "Either of htmlContent or textContent is required"), ["unfit"] * 3),
        (400, error("not_enough_credits", "x"), ["account"] * 3),
        (402, error("not_enough_credits", "x"), ["account"] * 3),
        (401, error("unauthorized", "Key not found"), ["account"] * 3),
        (403, error("permission_denied", "Your SMTP account is not yet activated."), ["account"] * 3),
        (400, error("account_under_validation", "x"), ["account"] * 3),
        (413, b"", ["unfit"] * 3),
        (429, b"", ["throttled"] * 3),
        (503, b"", ["unavailable"] * 3),
        (504, b"", ["unknown"] * 3),
    ],
)  # fmt: skip
def test_an_answer_says_what_became_of_each_recipient(status: int, body: object, expected: list[str]) -> None:
    assert kinds(judged(status, body)) == expected


def test_an_invalid_address_among_several_of_a_list_is_for_another_esp_to_name() -> None:
    two = mail_of(LEAST._replace(to=(Mailbox(ANN), Mailbox(BEN))), [ANN, BEN])
    assert kinds(judged(400, error("invalid_parameter", "email is not valid in to"), two)) == ["unfit"] * 2


def test_a_repeated_request_was_taken_the_first_time_and_has_its_id_where_the_answer_names_it() -> None:
    body = error("duplicate_parameter", "x")
    assert judged(400, body) == Verdict((Found("sent", ""),) * 3)
    assert judged(400, {**body, "messageId": ID}) == Verdict((Found("sent", ID),) * 3)


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [({"x-sib-ratelimit-reset": "12"}, 12.0), ({"retry-after": "3", "x-sib-ratelimit-reset": "12"}, 3.0), ({}, None)],
)
def test_a_pause_is_as_long_as_the_answer_says(headers: dict[str, str], wait_s: float | None) -> None:
    assert judged(429, b"", headers=headers).retry_after_s == wait_s


def test_the_words_are_brevos() -> None:
    found = judged(401, error("unauthorized", "Key not found")).found[0]
    assert found == Found("account", "HTTP 401: Key not found")


@pytest.mark.parametrize("said", [ID, ID.strip("<>")])
def test_the_id_in_the_reply_is_the_one_of_the_events(said: str) -> None:
    found = judged(201, {"messageId": said}).found[0]
    event = provider._event({"event": "delivered", "message-id": ID})
    assert provider.esp_id(f"250 2.0.0 Ok: queued as {found.text}") == event.esp_id == ID
