"""SendGrid's API: what a request says, and what an answer means."""

from __future__ import annotations

import base64
import json
from email.header import decode_header, make_header
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers import sendgrid as provider
from relay.providers.api import ApiMail, Found, Mailbox, Verdict
from relay.providers.apis.sendgrid import API
from tests.providers.apis.samples_1 import (
    ALL,
    ALONE,
    ANN,
    BEN,
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

ID = "qNwBLgPQQjW6DJvKQwSAbw"


def built(mail: ApiMail) -> dict[str, Any]:
    return body_of(API, mail, "/proxy/v3/mail/send", ("Authorization", f"Bearer {KEY}"))


judged = partial(judged_by, API)


def steered(value: object) -> ApiMail:
    return mail_of(LEAST, [ANN], {"x-smtpapi": [value if isinstance(value, str) else json.dumps(value)]})


def errors(*each: tuple[str, str | None]) -> dict[str, Any]:
    return {"errors": [{"message": message, "field": field, "help": None} for message, field in each]}


PLAIN = {
    "personalizations": [{"to": [{"email": ANN}]}],
    "from": {"email": "otp@example.com"},
    "subject": "Code",
    "content": [{"type": "text/plain", "value": "1\n"}],
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
        "personalizations": [
            {"to": [{"email": ANN, "name": "Ann"}], "cc": [{"email": BEN}], "bcc": [{"email": EVE}]},
        ],
        "from": {"email": "otp@example.com", "name": "Bank"},
        "reply_to": {"email": "a@example.com", "name": "Ä"},
        "subject": "Dein Code: 123456 – gültig",
        "content": [
            {"type": "text/plain", "value": "123456\nGrüße\n"},
            {"type": "text/html", "value": "<p>123456</p>"},
        ],
        "headers": {"X-Quoted": 'a "b"; <c>', "Message-ID": "<1@example.com>"},
        "attachments": [
            {
                "content": base64.b64encode(PDF.data).decode(),
                "type": "application/pdf",
                "filename": "Übersicht.pdf",
                "disposition": "attachment",
            }
        ],
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_name_goes_as_it_is(name: str) -> None:
    body = built(mail_of(ALONE._replace(to=(Mailbox(ANN, name),)), [ANN]))
    assert body["personalizations"][0]["to"] == [{"email": ANN, "name": name}]


def test_several_addresses_in_reply_to_are_a_list() -> None:
    body = built(mail_of(LEAST._replace(reply_to=(Mailbox("a@example.com"), Mailbox("b@example.com", "B"))), [ANN]))
    assert "reply_to" not in body
    assert body["reply_to_list"] == [{"email": "a@example.com"}, {"email": "b@example.com", "name": "B"}]


def test_an_address_that_stands_twice_is_named_once() -> None:
    two, twice = Mailbox("two@example.org"), Mailbox(ANN.upper(), "Again")
    rebuilt = ALONE._replace(to=(Mailbox(ANN, "Ann"), two, twice), cc=(twice, Mailbox(BEN)))
    one = built(mail_of(rebuilt, [ANN, "two@example.org", BEN, EVE, EVE.upper()]))["personalizations"][0]
    assert one["to"] == [{"email": ANN, "name": "Ann"}, {"email": "two@example.org"}]
    assert (one["cc"], one["bcc"]) == ([{"email": BEN}], [{"email": EVE}])


@given(value=st.text(st.characters(codec="utf-8", exclude_categories=["C", "Z"]), min_size=1, max_size=200))
def test_a_header_value_beyond_ascii_is_encoded_in_one_line(value: str) -> None:
    sent = built(mail_of(LEAST._replace(headers=fields(X_A=value)), [ANN]))["headers"]["X-A"]
    assert sent.isascii()
    assert "\n" not in sent
    assert all(len(word) <= 75 for word in sent.split(" ")) or value.isascii()
    assert sent == value if value.isascii() else str(make_header(decode_header(sent))) == value


def test_x_smtpapi_stands_in_the_apis_fields() -> None:
    mail = steered(
        {
            "category": ["otp", "Anmeldung – ä"],
            "unique_args": {"relay_id": "01JD", "user": 7, "ok": True},
            "send_at": 1_772_366_500,
            "asm_group_id": "12",
            "ip_pool": "otp",
            "filters": {
                "clicktrack": {"settings": {"enable": 0, "enable_text": "1"}},
                "opentrack": {"settings": {"enable": "1", "replace": "%o%"}},
                "subscriptiontrack": {"settings": {"enable": 0}},
                "bypass_list_management": {"settings": {"enable": 1}},
                "footer": {"settings": {"enable": 1, "text/plain": "f", "text/html": "<f>"}},
                "ganalytics": {"settings": {"enable": 1, "utm_source": "otp"}},
            },
        }
    )
    assert built(mail) == {
        **PLAIN,
        "personalizations": [
            {"to": [{"email": ANN}], "custom_args": {"relay_id": "01JD", "user": "7", "ok": "true"}},
        ],
        "categories": ["otp", "Anmeldung – ä"],
        "send_at": 1_772_366_500,
        "asm": {"group_id": 12},
        "ip_pool_name": "otp",
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": True},
            "open_tracking": {"enable": True, "substitution_tag": "%o%"},
            "subscription_tracking": {"enable": False},
            "ganalytics": {"enable": True, "utm_source": "otp"},
        },
        "mail_settings": {
            "bypass_list_management": {"enable": True},
            "footer": {"enable": True, "text": "f", "html": "<f>"},
        },
    }


def test_one_category_may_be_a_text() -> None:
    assert built(steered({"category": "otp"}))["categories"] == ["otp"]
    assert built(steered({})) == PLAIN


@pytest.mark.parametrize(
    "value",
    [
        "{",
        "[]",
        {"to": ["a@example.org"]},
        {"sub": {"-code-": ["1"]}},
        {"category": ["x"] * 11},
        {"category": [1]},
        {"unique_args": {"a": {"b": "c"}}},
        {"unique_args": ["a"]},
        {"send_at": "soon"},
        {"asm_group_id": -1},
        {"ip_pool": 3},
        {"filters": {"template": {"settings": {"enable": 1}}}},
        {"filters": {"clicktrack": {"settings": {"enable": "maybe"}}}},
        {"filters": {"clicktrack": {"settings": {}}}},
        {"filters": {"clicktrack": {"settings": {"enable": 1, "more": 1}}}},
        {"filters": {"clicktrack": 1}},
        {"filters": [1]},
        '{"unique_args": {"a": "\\ud800"}}',
    ],
    ids=str,
)
def test_an_x_smtpapi_that_the_api_has_no_fields_for_goes_another_way(value: object) -> None:
    assert API.why_not(steered(value)) == "X-SMTPAPI has what the API has no field for"


def test_two_x_smtpapi_fields_are_too_many() -> None:
    assert API.why_not(mail_of(LEAST, [ANN], {"x-smtpapi": ["{}", "{}"]})) is not None


@pytest.mark.parametrize(
    "mail",
    [
        mail_of(LEAST._replace(to=()), [ANN]),
        mail_of(LEAST._replace(subject=""), [ANN]),
        mail_of(LEAST._replace(text=""), [ANN]),
        mail_of(LEAST._replace(html=""), [ANN]),
        mail_of(LEAST._replace(text=None), [ANN]),
        mail_of(LEAST._replace(headers=fields(X_A="1") + fields(x_a="2")), [ANN]),
        mail_of(LEAST, [ANN, "jörg@example.org"]),
        mail_of(LEAST._replace(attachments=(PDF._replace(filename=""),)), [ANN]),
    ],
)
def test_what_sendgrid_refuses_goes_another_way(mail: ApiMail) -> None:
    why = API.why_not(mail)
    assert why
    assert "example" not in why


@pytest.mark.parametrize(
    ("name", "allowed"),
    [("x-sg-id", False), ("x-sg-eid", False), ("dkim-signature", False), ("received", False), ("content-type", False),
     ("message-id", True), ("list-id", True), ("in-reply-to", True), ("x-mailer", True)],
)  # fmt: skip
def test_reserved_fields_arent_allowed(name: str, *, allowed: bool) -> None:
    assert API.allows_header(name) is allowed


@pytest.mark.parametrize("body", [b"", None, b"\xff", {"errors": [{"message": "x"}]}])
def test_202_is_the_acceptance_whatever_the_body(body: object) -> None:
    assert judged(202, body, headers={"x-message-id": ID}) == Verdict((Found("sent", ID),) * 3)
    assert judged(202, body) == Verdict((Found("sent", ""),) * 3)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", ["unknown"] * 3),
        (204, b"", ["unknown"] * 3),
        (400, errors(("Does not contain a valid address.", "personalizations.0.to.0.email")),
         ["rejected 5.1.3", "unavailable", "unavailable"]),
        (400, errors(("Does not contain a valid address.", "personalizations.0.cc.0.email"),
                     ("Does not contain a valid address.", "personalizations.0.bcc.0.email")),
         ["unavailable", "rejected 5.1.3", "rejected 5.1.3"]),
        (400, errors(("Does not contain a valid address.", "personalizations.0.to.9.email")), ["unfit"] * 3),
        (400, errors(("Does not contain a valid address.", "from.email")), ["account"] * 3),
        (400, errors(("Does not contain a valid address.", "reply_to.email")), ["unfit"] * 3),
        (400, errors((f"Each email address in the personalization block should be unique between to, cc, and bcc. We"
                      f" found the first duplicate instance of [{ANN}] in the personalizations.0.cc field.",
                      "personalizations.0")), ["unfit"] * 3),
        (400, errors(("Bad Request", None)), ["unfit"] * 3),
        (400, {"errors": "x"}, ["unfit"] * 3),
        (401, errors(("The provided authorization grant is invalid, expired, or revoked", None)), ["account"] * 3),
        (401, errors(("Maximum credits exceeded", None)), ["account"] * 3),
        (403, errors(("The from address does not match a verified Sender Identity.", "from")), ["account"] * 3),
        (404, b"", ["account"] * 3),
        (413, errors(("The JSON payload is too large", None)), ["unfit"] * 3),
        (429, errors(("too many requests", None)), ["throttled"] * 3),
        (500, b"", ["unavailable"] * 3),
        (503, b"<html>", ["unavailable"] * 3),
        (504, b"", ["unknown"] * 3),
    ],
)  # fmt: skip
def test_an_answer_says_what_became_of_each_recipient(status: int, body: object, expected: list[str]) -> None:
    assert kinds(judged(status, body)) == expected


def test_a_place_is_counted_in_the_request_as_it_was_sent() -> None:
    rebuilt = ALONE._replace(to=(Mailbox(ANN), Mailbox(ANN.upper()), Mailbox(BEN)))
    body = errors(("Does not contain a valid address.", "personalizations.0.to.1.email"))
    assert kinds(judged(400, body, mail_of(rebuilt, [ANN, BEN]))) == ["unavailable", "rejected 5.1.3"]


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({"x-ratelimit-reset": str(int(NOW) + 30)}, 30.0),
        ({"retry-after": "4"}, 4.0),
        ({"x-ratelimit-reset": "x"}, None),
    ],
)
def test_a_pause_is_as_long_as_the_answer_says(headers: dict[str, str], wait_s: float | None) -> None:
    assert judged(429, b"", headers=headers).retry_after_s == wait_s


def test_the_words_are_sendgrids() -> None:
    found = judged(401, errors(("Maximum credits exceeded", None))).found[0]
    assert found == Found("account", "HTTP 401: Maximum credits exceeded")


def test_the_id_in_the_reply_is_the_one_of_the_events() -> None:
    found = judged(202, b"", mail_of(REBUILT, ALL), {"x-message-id": ID}).found[0]
    assert provider.esp_id(f"250 2.0.0 Ok: queued as {found.text}") == ID
    assert provider._message(f"{ID}.recvd-5f9c7b6d4-abcde-1-65E1C4A2-1B.0") == ID
    assert provider.esp_id("250 2.0.0 Ok: queued as ") is None
