"""Scaleway's API: the message's parts in JSON, and an id for each recipient."""

from __future__ import annotations

from base64 import b64decode
from email.header import decode_header, make_header
from email.headerregistry import AddressHeader
from email.policy import default
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers.api import Attachment, Found, Mailbox
from relay.providers.apis.scaleway import API
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

PROJECT = "6170692e-7363-616c-6577-61792e636f6d"
PDF = Attachment("Übersicht.pdf", "application/pdf", b"%PDF\x00\xff")
WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"]), min_size=1, max_size=60)


def test_the_plainest_mail_has_the_plainest_request() -> None:
    mail = json_mail()
    assert API.why_not(mail) is None
    request = API.request(mail, call(PROJECT, "/proxy"))
    assert request.path == "/proxy/transactional-email/v1alpha1/regions/fr-par/emails"
    assert json_body(request) == {
        "project_id": PROJECT,
        "from": {"email": "otp@example.com"},
        "to": [{"email": ANN}],
        "subject": "482913 is your code",
        "text": "Your code is 482913.\n",
    }
    assert dict(request.headers) == {
        "X-Auth-Token": KEY,
        "Content-Type": "application/json",
        "Accept": "application/json",
    }
    hold_key(request, KEY)


def test_the_fullest_mail_keeps_all_that_it_says() -> None:
    mail = json_mail(
        [ANN, BOB, CEM],
        author=Mailbox("otp@example.com", 'Acme "Ä" \\ Co.'),
        to=(Mailbox(ANN, "Ann, A."),),
        cc=(Mailbox(BOB.upper(), "Bøb"),),
        reply_to=(Mailbox("help@example.com", 'The "Help", desk'), Mailbox("mas@example.com", "Más")),
        subject="482913 ist Ihr Code – prüfen",
        text="Ihr Code: 482913\n",
        html="<p>Ihr Code: <b>482913</b> ü</p>",
        attachments=(PDF,),
        headers=(
            Field("X-Ref", 'a "b" \\ c'),
            Field("Message-ID", "<1@example.com>"),
            Field("X-Ref", "Grüße"),
        ),
    )
    assert API.why_not(mail) is None
    body = json_body(API.request(mail, call(PROJECT)))
    headers = body.pop("additional_headers")
    assert body.pop("attachments") == [
        {"name": "Übersicht.pdf", "type": "application/pdf", "content": "JVBERgD/"},
    ]
    assert b64decode("JVBERgD/") == PDF.data
    assert body == {
        "project_id": PROJECT,
        "from": {"email": "otp@example.com", "name": 'Acme "Ä" \\ Co.'},
        "to": [{"email": ANN, "name": "Ann, A."}],
        "cc": [{"email": BOB.upper(), "name": "Bøb"}],
        "bcc": [{"email": CEM}],
        "subject": "482913 ist Ihr Code – prüfen",
        "text": "Ihr Code: 482913\n",
        "html": "<p>Ihr Code: <b>482913</b> ü</p>",
    }
    assert [one["key"] for one in headers] == ["X-Ref", "X-Ref", "Reply-To"]
    assert headers[0]["value"] == 'a "b" \\ c'
    assert str(make_header(decode_header(headers[1]["value"]))) == "Grüße"
    assert addresses(headers[2]["value"]) == [('The "Help", desk', "help@example.com"), ("Más", "mas@example.com")]


def addresses(value: str) -> list[tuple[str, str]]:
    parsed = default.header_factory("Reply-To", value)
    assert isinstance(parsed, AddressHeader)
    return [(one.display_name, one.addr_spec) for one in parsed.addresses]


@given(value=WORDS)
def test_a_value_beyond_ascii_is_in_encoded_words_of_a_legal_length(value: str) -> None:
    mail = json_mail(headers=(Field("X-Any", value),))
    sent = json_body(API.request(mail, call(PROJECT)))["additional_headers"][0]["value"]
    assert sent.isascii()
    if not value.isascii():
        assert str(make_header(decode_header(sent))) == value
        assert all(len(word) <= 75 for word in sent.split(" "))


@given(name=st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=30))
def test_any_name_in_reply_to_comes_back(name: str) -> None:
    mail = json_mail(reply_to=(Mailbox("help@example.com", name),))
    sent = json_body(API.request(mail, call(PROJECT)))["additional_headers"][0]
    assert sent["key"] == "Reply-To"
    if "=?" not in name:
        assert [one for _, one in addresses(sent["value"])] == ["help@example.com"]
        assert addresses(sent["value"])[0][0].split() == name.split()


UNFIT: list[tuple[str, dict[str, Any]]] = [
    ("no To", {"to": ()}),
    ("short subject", {"subject": "Code 12345"[:9]}),
    ("short text", {"text": "482913\n"}),
    ("empty text", {"text": "", "html": "<p>Your code is 482913</p>"}),
    ("short HTML", {"html": "<b>1</b>"}),
    ("no text", {"text": None}),
    ("a ZIP", {"attachments": (Attachment("a.zip", "application/zip", b"PK"),)}),
    ("many files", {"attachments": (PDF,) * 11}),
    ("address beyond ASCII", {"author": Mailbox("jürgen@example.com")}),
    ("reply address beyond ASCII", {"reply_to": (Mailbox("jürgen@example.com"),)}),
]


@pytest.mark.parametrize(("_", "parts"), UNFIT, ids=[one[0] for one in UNFIT])
def test_what_scaleway_wont_take_goes_another_way(_: str, parts: dict[str, Any]) -> None:
    assert API.why_not(json_mail(**parts)) is not None


@pytest.mark.parametrize(
    "parts",
    [
        {"subject": "0123456789"},
        {"text": "0123456789"},
        {"text": None, "html": "<p>482913</p>"},
        {"attachments": (PDF,) * 10},
        {"attachments": (Attachment("a.png", "IMAGE/PNG", b""),)},
    ],
)
def test_what_scaleway_just_takes_goes_its_way(parts: dict[str, Any]) -> None:
    assert API.why_not(json_mail(**parts)) is None


def test_more_recipients_than_it_takes_and_bcc_beyond_ascii_go_another_way() -> None:
    ten = [ANN, *(f"r{number}@example.org" for number in range(9))]
    assert API.why_not(json_mail(ten)) is None
    assert API.why_not(json_mail([*ten, BOB])) is not None
    assert API.why_not(json_mail([ANN, "jürgen@example.org"])) is not None


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("x-any", True),
        ("list-unsubscribe", True),
        ("in-reply-to", True),
        ("message-id", True),
        ("sender", False),
        ("return-path", False),
        ("dkim-signature", False),
        ("arc-seal", False),
        ("resent-to", False),
    ],
)
def test_a_field_may_be_set_or_not(name: str, allowed: bool) -> None:
    assert API.allows_header(name) is allowed


def test_a_message_id_alone_leaves_no_headers() -> None:
    mail = json_mail(headers=(Field("MESSAGE-ID", "<1@example.com>"),))
    assert "additional_headers" not in json_body(API.request(mail, call(PROJECT)))


def email(recipient: str, status: Any = "new", esp_id: Any = "id-of-ann", **more: Any) -> dict[str, Any]:
    return {"id": esp_id, "message_id": "<m@tem>", "mail_rcpt": recipient, "status": status, **more}


def test_each_recipient_gets_its_own_id_in_any_order() -> None:
    body = {"emails": [email(BOB.upper(), "sending", "id-of-bob"), email(ANN)]}
    found = judged(API, json_mail([ANN, BOB]), answer(200, body)).found
    assert found == (Found("sent", "id-of-ann"), Found("sent", "id-of-bob"))


@pytest.mark.parametrize(
    ("one", "kind", "status"),
    [
        (email(BOB, "sent"), "sent", ""),
        (email(BOB, "failed"), "rejected", "5.0.0"),
        (email(BOB, "canceled"), "rejected", "5.0.0"),
        (email(BOB, "failed", flags=["blocklisted"]), "rejected", "5.7.1"),
        (email(BOB, "failed", flags=[7, "mailbox_not_found"]), "rejected", "5.1.1"),
        (email(BOB, "failed", status_details="550 5.2.2 full"), "rejected", "5.2.2"),
        (email(BOB, "unknown"), "unknown", ""),
        (email(BOB, "new", None), "unknown", ""),
        (email(CEM), "unknown", ""),
        (None, "unknown", ""),
    ],
)
def test_each_recipient_has_a_status_of_its_own(one: Any, kind: str, status: str) -> None:
    ann, bob = judged(API, json_mail([ANN, BOB]), answer(200, {"emails": [email(ANN), one]})).found
    assert ann.kind == "sent"
    assert (bob.kind, bob.status) == (kind, status)


def fault(argument: str, reason: str = "constraint", help_message: str = "") -> dict[str, Any]:
    detail = {"argument_name": argument, "reason": reason, "help_message": help_message}
    return {"type": "invalid_arguments", "message": "invalid argument(s)", "details": [detail]}


JUDGED: list[tuple[str, int, Any, list[str]]] = [
    ("key", 401, {"type": "denied_authentication", "method": "api_key"}, ["account"] * 2),
    ("permission", 403, {"type": "permissions_denied", "message": "insufficient permissions"}, ["account"] * 2),
    ("quota", 403, {"type": "quotas_exceeded", "message": "quota exceeded"}, ["account"] * 2),
    ("quota, as 400", 400, {"type": "quotas_exceeded", "message": "quota exceeded"}, ["account"] * 2),
    ("project", 404, {"type": "not_found", "resource": "project"}, ["account"] * 2),
    ("domain", 412, {"type": "precondition_failed", "precondition": "domain_not_checked"}, ["account"] * 2),
    ("sender", 400, fault("from"), ["account"] * 2),
    ("sender's address", 400, fault("from.email", "format"), ["account"] * 2),
    ("project's form", 400, fault("project_id", "format"), ["account"] * 2),
    ("To", 400, fault("to.0.email", "format", "must be an e-mail address"), ["rejected", "unavailable"]),
    ("Bcc", 400, fault("bcc[0].email", "format"), ["unavailable", "rejected"]),
    ("a place that is empty", 400, fault("cc.7"), ["unfit"] * 2),
    ("by its address", 400, fault("recipients", "unknown", f"{BOB} is invalid"), ["unavailable", "rejected"]),
    ("all of To", 400, fault("to", "constraint", "too many recipients"), ["unfit"] * 2),
    ("subject", 400, fault("subject", "constraint", "at least 10 characters"), ["unfit"] * 2),
    ("attachment", 400, fault("attachments.0.type"), ["unfit"] * 2),
    ("too many", 429, {"type": "too_many_requests"}, ["throttled"] * 2),
    ("trouble", 500, {"message": "internal error"}, ["unavailable"] * 2),
    ("may be sent", 504, b"", ["unknown"] * 2),
    ("no JSON", 400, b"<html>", ["unfit"] * 2),
    ("empty", 200, b"", ["unknown"] * 2),
]  # fmt: skip


@pytest.mark.parametrize(("_", "status", "body", "expected"), JUDGED, ids=[one[0] for one in JUDGED])
def test_an_answer_means(_: str, status: int, body: Any, expected: list[str]) -> None:
    assert kinds(judged(API, json_mail([ANN, BOB]), answer(status, body))) == expected


def test_an_invalid_address_is_5_1_3_in_the_esps_words() -> None:
    body = fault("to.0.email", "format", "must be an e-mail address")
    found = judged(API, json_mail([ANN, BOB]), answer(400, body)).found[0]
    text = "HTTP 400: invalid argument(s): must be an e-mail address: to.0.email"
    assert found == Found("rejected", text, "5.1.3")
