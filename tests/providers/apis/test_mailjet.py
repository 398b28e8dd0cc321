"""Mailjet's API: what a request says, and what an answer means."""

from __future__ import annotations

import base64
from functools import partial
from typing import Any

import pytest

from relay.providers import mailjet as provider
from relay.providers.api import ApiMail, Call, Credentials, Found, Mailbox, Verdict
from relay.providers.apis.mailjet import API
from tests.providers.apis.samples_1 import (
    ALONE,
    ANN,
    BEN,
    EVE,
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

CALL = Call(Credentials(key="public:secret"), "api.example", "/proxy", NOW, "01JD.1")
UUIDS = [f"cb927469-36fd-4c02-bce4-0d199929a20{digit}" for digit in range(3)]
NUMBERS = [92_042_317_804_662_640 + digit for digit in range(3)]


def built(mail: ApiMail) -> dict[str, Any]:
    proof = ("Authorization", "Basic cHVibGljOnNlY3JldA==")
    body = body_of(API, mail, "/proxy/v3.1/send", proof, call=CALL, secret="secret")
    assert list(body) == ["Messages"]
    (message,) = body["Messages"]
    assert isinstance(message, dict)
    return message


judged = partial(judged_by, API)


def listed(email: str, place: int) -> dict[str, Any]:
    return {"Email": email, "MessageUUID": UUIDS[place], "MessageID": NUMBERS[place], "MessageHref": "https://x"}


def messages(status: str, **more: Any) -> dict[str, Any]:
    return {"Messages": [{"Status": status, **more}]}


def failed(code: str, message: str, *related: str, status: int = 400) -> dict[str, Any]:
    one = {"ErrorIdentifier": "0", "ErrorCode": code, "StatusCode": status, "ErrorMessage": message}
    return messages("error", Errors=[{**one, "ErrorRelatedTo": list(related)}])


PLAIN = {"From": {"Email": "otp@example.com"}, "To": [{"Email": ANN}], "Subject": "Code", "TextPart": "1\n"}


def test_a_mail_of_one_line_has_no_field_that_it_doesnt_need() -> None:
    assert built(mail_of(LEAST, [ANN])) == PLAIN


def test_every_part_of_a_mail_has_its_field() -> None:
    rebuilt = REBUILT._replace(
        reply_to=(Mailbox("a@example.com", "Ä"),),
        attachments=(PDF,),
        headers=fields(X_Quoted='a "b"; <ä>', Message_ID="<1@example.com>"),
    )
    assert built(mail_of(rebuilt)) == {
        "From": {"Email": "otp@example.com", "Name": "Bank"},
        "To": [{"Email": ANN, "Name": "Ann"}],
        "Cc": [{"Email": BEN}],
        "Bcc": [{"Email": EVE}],
        "ReplyTo": {"Email": "a@example.com", "Name": "Ä"},
        "Subject": "Dein Code: 123456 – gültig",
        "TextPart": "123456\nGrüße\n",
        "HTMLPart": "<p>123456</p>",
        "Headers": {"X-Quoted": 'a "b"; <ä>'},
        "Attachments": [
            {
                "ContentType": "application/pdf",
                "Filename": "Übersicht.pdf",
                "Base64Content": base64.b64encode(PDF.data).decode(),
            }
        ],
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_name_goes_as_it_is(name: str) -> None:
    assert built(mail_of(ALONE._replace(to=(Mailbox(ANN, name),)), [ANN]))["To"] == [{"Email": ANN, "Name": name}]


def test_a_message_id_is_left_out() -> None:
    assert "Headers" not in built(mail_of(LEAST._replace(headers=fields(Message_ID="<1@example.com>")), [ANN]))
    assert API.allows_header("message-id")


def test_an_empty_text_isnt_a_missing_one() -> None:
    body = built(mail_of(LEAST._replace(text="", html="<p>"), [ANN]))
    assert (body["TextPart"], body["HTMLPart"]) == ("", "<p>")
    assert "TextPart" not in built(mail_of(LEAST._replace(text=None, html="<p>"), [ANN]))


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("x-mj-customid", "01JD8Z2W3X4Y5Z6A7B8C9DAEBF", "CustomID", "01JD8Z2W3X4Y5Z6A7B8C9DAEBF"),
        ("x-mj-eventpayload", '{"a": "ä"}', "EventPayload", '{"a": "ä"}'),
        ("x-mj-monitoringcategory", "otp", "MonitoringCategory", "otp"),
        ("x-mailjet-campaign", "Codes 1", "CustomCampaign", "Codes 1"),
        ("x-mailjet-deduplicatecampaign", "Yes", "DeduplicateCampaign", True),
        ("x-mailjet-deduplicatecampaign", "0", "DeduplicateCampaign", False),
        ("x-mailjet-prio", "3", "Priority", 3),
        ("x-mailjet-trackopen", "0", "TrackOpens", "disabled"),
        ("x-mailjet-trackclick", "1", "TrackClicks", "enabled"),
        ("x-mailjet-trackclick", "account_default", "TrackClicks", "account_default"),
        ("x-mj-templatelanguage", "1", "TemplateLanguage", True),
        ("x-mj-vars", '{"code": "123456"}', "Variables", {"code": "123456"}),
        ("x-mj-templateerrorreporting", "a@example.com", "TemplateErrorReporting", {"Email": "a@example.com"}),
        ("x-mj-templateerrorreporting", '{"Email": "a@example.com", "Name": "A"}', "TemplateErrorReporting",
         {"Email": "a@example.com", "Name": "A"}),
        ("x-mj-templateerrordeliver", "deliver", "TemplateErrorDeliver", True),
        ("x-mj-templateerrordeliver", "0", "TemplateErrorDeliver", False),
    ],
)  # fmt: skip
def test_what_the_app_set_in_a_header_field_stands_in_the_apis_field(
    name: str, value: str, field: str, expected: object
) -> None:
    assert name in API.steering
    assert built(mail_of(LEAST, [ANN], {name: [value]})) == {**PLAIN, field: expected}
    assert built(mail_of(LEAST, [ANN], {name: [" "]})) == PLAIN


@pytest.mark.parametrize(
    "mail",
    [
        mail_of(LEAST._replace(to=()), [ANN]),
        mail_of(LEAST._replace(reply_to=(Mailbox("a@example.com"), Mailbox("b@example.com"))), [ANN]),
        mail_of(LEAST._replace(text="", html=None), [ANN]),
        mail_of(LEAST._replace(headers=fields(X_A="1") + fields(x_a="2")), [ANN]),
        mail_of(LEAST, [ANN, "jörg@example.org"]),
        mail_of(LEAST._replace(attachments=(PDF._replace(filename=""),)), [ANN]),
        mail_of(LEAST._replace(attachments=(PDF._replace(content_type="text/plain"),)), [ANN]),
        *(
            mail_of(LEAST, [ANN], {name: values})
            for name, values in {
                "x-mj-templateid": ["12"],
                "x-mj-customid": ["a", "b"],
                "x-mj-vars": ["{"],
                "x-mj-templateerrorreporting": ["nobody"],
                "x-mailjet-prio": ["high"],
                "x-mailjet-trackopen": ["2"],
                "x-mailjet-deduplicatecampaign": ["perhaps"],
            }.items()
        ),
        mail_of(LEAST, [ANN], {"x-mj-vars": ['{"a": "\\ud800"}']}),
    ],
)
def test_what_mailjet_cant_carry_goes_another_way(mail: ApiMail) -> None:
    why = API.why_not(mail)
    assert why
    assert "example" not in why


@pytest.mark.parametrize("name", ["dkim-signature", "list-id", "x-mailer", "user-agent", "sender", "x-feedback-id"])
def test_a_forbidden_field_isnt_allowed(name: str) -> None:
    assert not API.allows_header(name)
    assert API.allows_header("list-unsubscribe")


def test_each_recipient_has_an_id_of_its_own() -> None:
    body = messages("success", CustomID="", To=[listed(ANN, 0)], Cc=[listed(BEN.lower(), 1)], Bcc=[listed(EVE, 2)])
    assert judged(200, body) == Verdict(
        tuple(Found("sent", f"{uuid} ({number})") for uuid, number in zip(UUIDS, NUMBERS, strict=True))
    )


@pytest.mark.parametrize(("left", "text"), [("MessageUUID", UUIDS[0]), ("MessageID", str(NUMBERS[0]))])
def test_either_id_is_enough(left: str, text: str) -> None:
    one = {"Email": ANN, left: listed(ANN, 0)[left]}
    assert judged(200, messages("success", To=[one]), mail_of(LEAST, [ANN])).found == (Found("sent", text),)


def test_a_recipient_that_the_answer_doesnt_list_is_unknown() -> None:
    body = messages("success", To=[listed(ANN, 0)], Cc=[{"Email": BEN}], Bcc=[])
    assert kinds(judged(200, body)) == ["sent", "unknown", "unknown"]


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (200, b"", ["unknown"] * 3),
        (200, messages("success"), ["unknown"] * 3),
        (200, messages("queued", To=[listed(ANN, 0)]), ["unknown"] * 3),
        (200, {"Messages": []}, ["unknown"] * 3),
        (200, messages("error"), ["unknown"] * 3),
        (200, messages("success", To=[listed(ANN, 0)], Errors=[{"ErrorMessage": "x"}]), ["sent", "unknown", "unknown"]),
        (400, failed("mj-0013", '"x" is an invalid email address.', "To[0].Email"),
         ["rejected 5.1.3", "unavailable", "unavailable"]),
        (200, failed("mj-0013", '"x" is an invalid email address.', "Bcc[0].Email"),
         ["unavailable", "unavailable", "rejected 5.1.3"]),
        (400, failed("mj-0013", '"x" is an invalid email address.', "Cc[7].Email"), ["unfit"] * 3),
        (400, failed("mj-0013", '"x" is an invalid email address.', "ReplyTo.Email"), ["unfit"] * 3),
        (400, failed("mj-0013", '"x" is an invalid email address.', "From.Email"), ["account"] * 3),
        (400, failed("send-0008", "not an authorized sender email address for your account."), ["account"] * 3),
        (200, failed("send-0008", "not an authorized sender email address for your account.", "From"),
         ["account"] * 3),
        (400, failed("mj-0001", "The account is blocked", status=403), ["account"] * 3),
        (400, failed("send-0003", 'At least "HTMLPart" must be provided.', "HTMLPart", "TextPart"), ["unfit"] * 3),
        (200, failed("send-0003", 'At least "HTMLPart" must be provided.', "HTMLPart", "TextPart"), ["unfit"] * 3),
        (400, {"ErrorCode": "mj-0002", "ErrorMessage": "Malformed JSON", "StatusCode": 400}, ["unfit"] * 3),
        (401, {"ErrorMessage": "API key authentication/authorization failure.", "StatusCode": 401}, ["account"] * 3),
        (403, b"", ["account"] * 3),
        (413, b"", ["unfit"] * 3),
        (429, b"Too many requests", ["throttled"] * 3),
        (429, failed("mj-0013", "x", "To[0].Email"), ["throttled"] * 3),
        (500, {"ErrorMessage": "Internal", "StatusCode": 500}, ["unavailable"] * 3),
        (502, failed("mj-0013", "x", "To[0].Email"), ["unavailable"] * 3),
        (504, b"", ["unknown"] * 3),
    ],
)  # fmt: skip
def test_an_answer_says_what_became_of_each_recipient(status: int, body: object, expected: list[str]) -> None:
    assert kinds(judged(status, body)) == expected


def test_the_words_are_mailjets() -> None:
    found = judged(401, {"ErrorMessage": "API key authentication/authorization failure.", "StatusCode": 401}).found[0]
    assert found.text == "HTTP 401: API key authentication/authorization failure."
    assert judged(429, b"", headers={"retry-after": "60"}).retry_after_s == 60.0


def test_the_id_in_the_reply_is_the_one_of_the_events() -> None:
    found = judged(200, messages("success", To=[listed(ANN, 0)]), mail_of(LEAST, [ANN])).found[0]
    event = provider._event({"event": "sent", "Message_GUID": UUIDS[0].upper(), "MessageID": NUMBERS[0]})
    assert provider.esp_id(f"250 2.0.0 Ok: queued as {found.text}") == event.esp_id == UUIDS[0]
    number = provider._event({"event": "sent", "MessageID": NUMBERS[0]}).esp_id
    assert provider.esp_id(f"250 2.0.0 Ok: queued as {NUMBERS[0]}") == number == str(NUMBERS[0])
