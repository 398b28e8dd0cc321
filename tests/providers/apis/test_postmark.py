"""Postmark: what a request says, and what an answer means."""

from __future__ import annotations

import base64
from email.utils import getaddresses
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.providers import postmark as provider
from relay.providers.api import ApiMail, Attachment, Found, Mailbox, Verdict
from relay.providers.apis.postmark import API
from relay.providers.webhook import Field
from tests.providers.apis.samples_1 import (
    ALL,
    ALONE,
    ANN,
    BEN,
    EVE,
    KEY,
    LEAST,
    NAMES,
    PDF,
    REBUILT,
    body_of,
    fields,
    judged_by,
    kinds,
    mail_of,
)

UUID = "b7bc2f4a-e38e-4336-af7d-e6c392c2f817"


def built(mail: ApiMail) -> dict[str, Any]:
    return body_of(API, mail, "/proxy/email", ("X-Postmark-Server-Token", KEY))


judged = partial(judged_by, API)


def error(code: int, message: str) -> dict[str, Any]:
    return {"ErrorCode": code, "Message": message}


def test_a_mail_of_one_line_has_no_field_that_it_doesnt_need() -> None:
    assert built(mail_of(LEAST, [ANN])) == {"From": "otp@example.com", "To": ANN, "Subject": "Code", "TextBody": "1\n"}


def test_every_part_of_a_mail_has_its_field() -> None:
    rebuilt = REBUILT._replace(
        to=(Mailbox(ANN, "Bee, Ann"), Mailbox("two@example.org")),
        reply_to=(Mailbox("a@example.com", "Ä"), Mailbox("b@example.com")),
        attachments=(PDF, Attachment("", "text/plain", b"")),
        headers=fields(X_Quoted='a "b"; <c>', List_Id="Ä <x>", X_Twice="1") + fields(X_Twice="2"),
    )
    assert built(mail_of(rebuilt, [EVE, *ALL[:2], "two@example.org"])) == {
        "From": '"Bank" <otp@example.com>',
        "To": f'"Bee, Ann" <{ANN}>, two@example.org',
        "Cc": BEN,
        "Bcc": EVE,
        "ReplyTo": '"Ä" <a@example.com>, b@example.com',
        "Subject": "Dein Code: 123456 – gültig",
        "TextBody": "123456\nGrüße\n",
        "HtmlBody": "<p>123456</p>",
        "Headers": [
            {"Name": "X-Quoted", "Value": 'a "b"; <c>'},
            {"Name": "List-Id", "Value": "Ä <x>"},
            {"Name": "X-Twice", "Value": "1"},
            {"Name": "X-Twice", "Value": "2"},
        ],
        "Attachments": [
            {
                "Name": "Übersicht.pdf",
                "Content": base64.b64encode(b"\x00\xff%PDF").decode(),
                "ContentType": "application/pdf",
            },
            {"Name": "", "Content": "", "ContentType": "text/plain"},
        ],
    }


@given(name=st.one_of(st.sampled_from(NAMES), st.text(st.characters(codec="utf-8", exclude_categories=["C"]))))
def test_a_name_is_read_back_whatever_is_in_it(name: str) -> None:
    rebuilt = ALONE._replace(to=(Mailbox(ANN, name), Mailbox(EVE, "x")))
    assert getaddresses([built(mail_of(rebuilt, [ANN, EVE]))["To"]]) == [(name, ANN), ("x", EVE)]


@pytest.mark.parametrize(
    ("text", "html", "there"),
    [
        ("", "<p>", {"TextBody": "", "HtmlBody": "<p>"}),
        (None, "<p>", {"HtmlBody": "<p>"}),
        ("1", "", {"TextBody": "1", "HtmlBody": ""}),
    ],
)
def test_an_empty_text_isnt_a_missing_one(text: str | None, html: str | None, there: dict[str, str]) -> None:
    body = built(mail_of(ALONE._replace(text=text, html=html), [ANN]))
    assert {name: body[name] for name in ("TextBody", "HtmlBody") if name in body} == there


def test_what_the_app_set_in_header_fields_stands_in_the_apis_fields() -> None:
    rebuilt = LEAST._replace(
        headers=(Field("X-PM-Metadata-relay-id", "01JD"), Field("x-pm-metadata-Color", "blau, ä"), Field("X-A", "b"))
    )
    steering = {
        "x-pm-message-stream": [" otp "],
        "x-pm-tag": ["code, login"],
        "x-pm-trackopens": ["False"],
        "x-pm-tracklinks": ["None"],
    }
    body = built(mail_of(rebuilt, [ANN], steering))
    assert body.pop("Headers") == [{"Name": "X-A", "Value": "b"}]
    assert body == {
        "From": "otp@example.com",
        "To": ANN,
        "Subject": "Code",
        "TextBody": "1\n",
        "MessageStream": "otp",
        "Tag": "code, login",
        "TrackOpens": False,
        "TrackLinks": "None",
        "Metadata": {"relay-id": "01JD", "Color": "blau, ä"},
    }
    assert steering.keys() <= API.steering


@pytest.mark.parametrize(("keep", "kept"), [("true", True), (" TRUE ", True), ("false", False), (None, False)])
def test_a_message_id_goes_along_only_where_the_app_asks_to_keep_it(keep: str | None, kept: bool) -> None:
    mail = mail_of(
        LEAST._replace(headers=fields(Message_ID="<1@example.com>")),
        [ANN],
        {} if keep is None else {"x-pm-keepid": [keep]},
    )
    body = built(mail)
    headers = [{"Name": "Message-ID", "Value": "<1@example.com>"}, {"Name": "X-PM-KeepID", "Value": "true"}]
    assert body.get("Headers") == (headers if kept else None)
    assert API.allows_header("message-id")


def test_a_bcc_alone_is_enough() -> None:
    body = built(mail_of(LEAST._replace(to=()), [ANN]))
    assert (body.get("To"), body["Bcc"]) == (None, ANN)


@pytest.mark.parametrize(
    "mail",
    [
        mail_of(ALONE._replace(text=None, html=None), [ANN]),
        mail_of(ALONE._replace(text="", html=None), [ANN]),
        mail_of(ALONE._replace(text="ä" * 2_600_000), [ANN]),
        mail_of(ALONE, [ANN, "jörg@example.org"]),
        mail_of(ALONE._replace(to=(Mailbox('"a b"@example.org'),)), ['"a b"@example.org']),
        mail_of(ALONE._replace(headers=tuple(Field(f"X-PM-Metadata-{one}", "x") for one in range(11))), [ANN]),
        mail_of(ALONE._replace(headers=(Field("X-PM-Metadata-a", "x"), Field("x-pm-metadata-A", "y"))), [ANN]),
        mail_of(ALONE, [ANN], {"x-pm-trackopens": ["maybe"]}),
        mail_of(ALONE, [ANN], {"x-pm-tag": ["a", "b"]}),
    ],
)
def test_what_postmark_cant_carry_goes_another_way(mail: ApiMail) -> None:
    why = API.why_not(mail)
    assert why
    assert "example" not in why


def test_a_field_that_is_postmarks_own_isnt_allowed() -> None:
    assert not any(map(API.allows_header, ("dkim-signature", "sender", "return-path", "received")))
    assert all(map(API.allows_header, ("list-unsubscribe", "in-reply-to", "x-pm-metadata-a", "x-mailer")))


def test_all_recipients_have_the_one_id() -> None:
    said = {"To": ANN, "SubmittedAt": "2026-03-01", "MessageID": UUID, "ErrorCode": 0, "Message": "OK"}
    assert judged(200, said) == Verdict((Found("sent", UUID),) * 3)
    assert judged(200, {"MessageID": UUID, "Message": "Message accepted, but delivery may be delayed."}) == Verdict(
        (Found("sent", UUID),) * 3
    )


def test_recipients_on_the_suppression_list_are_left_out_of_a_200() -> None:
    message = (
        "Message OK, but will not deliver to these inactive addresses: ben@example.net, eve@example.com."
        " Inactive recipients are ones that have generated a hard bounce or a spam complaint."
    )
    found = judged(200, {"MessageID": UUID, "ErrorCode": 0, "Message": message}).found
    assert [(one.kind, one.status) for one in found] == [("sent", ""), ("rejected", "5.7.1"), ("rejected", "5.7.1")]
    assert found[0].text == UUID
    assert found[1].text.startswith("HTTP 200: Message OK, but will not deliver")


INACTIVE = (
    "You tried to send to a recipient that has been marked as inactive.\n Found inactive addresses: {}.\n Inactive"
    " recipients are ones that have generated a hard bounce or a spam complaint. "
)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (422, error(406, INACTIVE.format("ann@example.org, ben@example.net, eve@example.com")), ["rejected 5.7.1"] * 3),
        (422, error(406, INACTIVE.format("ann@example.org")), ["rejected 5.7.1", "unavailable", "unavailable"]),
        (422, error(406, "Inactive recipient"), ["rejected 5.7.1"] * 3),
        (200, error(406, INACTIVE.format("ann@example.org")), ["rejected 5.7.1", "unavailable", "unavailable"]),
        (422, error(300, f"Invalid 'To' address: '{ANN}'."), ["rejected 5.1.3", "unavailable", "unavailable"]),
        (422, error(300, "Error parsing 'Cc': Illegal email domain 'example.net' in address 'ben@example.net'."),
         ["unavailable", "rejected 5.1.3", "unavailable"]),
        (422, error(300, "Error parsing 'Bcc': Illegal email address 'x'."), ["unfit"] * 3),
        (422, error(300, f"Invalid 'From' address: '{ANN}'."), ["account"] * 3),
        (422, error(300, f"Error parsing 'Reply-To': Illegal email domain 'x' in address '{ANN}'."), ["unfit"] * 3),
        (422, error(300, "Provide either email TextBody or HtmlBody or both."), ["unfit"] * 3),
        (422, error(411, "Forbidden attachment type"), ["unfit"] * 3),
        (422, error(402, "Invalid JSON"), ["unfit"] * 3),
        (401, error(10, "No Account or Server API tokens were supplied"), ["account"] * 3),
        (422, error(10, "Bad token"), ["account"] * 3),
        (422, error(400, "Sender signature not found"), ["account"] * 3),
        (422, error(401, "Sender signature not confirmed"), ["account"] * 3),
        (422, error(405, "Not allowed to send"), ["account"] * 3),
        (422, error(412, "Account is pending: recipients must share the domain of From"), ["account"] * 3),
        (422, error(413, "Account may not send"), ["account"] * 3),
        (422, error(100, "Maintenance"), ["unavailable"] * 3),
        (503, error(100, "Maintenance"), ["unavailable"] * 3),
        (429, error(429, "Rate limit exceeded"), ["throttled"] * 3),
        (500, error(406, INACTIVE.format("ann@example.org")), ["unavailable"] * 3),
        (504, b"<html>", ["unknown"] * 3),
        (200, b"", ["unknown"] * 3),
        (200, None, ["unknown"] * 3),
        (200, {"ErrorCode": 0, "Message": "OK"}, ["unknown"] * 3),
        (200, error(77, "something new"), ["unfit"] * 3),
        (200, {"MessageID": UUID, "ErrorCode": 77}, ["unknown"] * 3),
        (413, b"too large", ["unfit"] * 3),
        (404, b"", ["account"] * 3),
    ],
)  # fmt: skip
def test_an_answer_says_what_became_of_each_recipient(status: int, body: object, expected: list[str]) -> None:
    assert kinds(judged(status, body)) == expected


def test_the_only_recipient_is_the_invalid_one_where_no_other_can_be_meant() -> None:
    verdict = judged(422, error(300, "Error parsing 'To': Illegal email address 'x'."), mail_of(LEAST, [ANN]))
    assert kinds(verdict) == ["rejected 5.1.3"]


def test_a_pause_is_as_long_as_the_answer_says() -> None:
    assert judged(429, b"", headers={"retry-after": "7"}).retry_after_s == 7.0
    assert judged(429, b"").retry_after_s is None


def test_the_id_in_the_reply_is_the_one_of_the_events() -> None:
    found = judged(200, {"MessageID": UUID.upper(), "ErrorCode": 0, "Message": "OK"}).found[0]
    assert provider.esp_id(f"250 2.0.0 Ok: queued as {found.text}") == UUID
