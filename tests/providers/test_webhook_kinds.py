"""What each kind of event of each ESP means: its kind, whether another try is useless, and what is suppressed."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import pytest

from relay.providers.registry import provider_named
from relay.providers.webhook import Accepted, EspEvent
from tests.providers.kinds import (
    ANN,
    TABLES,
    Case,
    brevo,
    form,
    mailgun,
    mailjet,
    mandrill,
    postmark,
    resend,
    sendgrid,
    sparkpost,
)
from tests.providers.signers import NOW, SIGNERS, sns_message

CASES = [pytest.param(esp, case, id=f"{esp}: {case[0]}") for esp, cases in TABLES.items() for case in cases]


def events_of(esp: str, body: Any) -> tuple[EspEvent, ...]:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.webhook is not None
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    verdict = provider.webhook(*SIGNERS[esp](raw, {}, NOW))
    assert isinstance(verdict, Accepted)
    return verdict.events


@pytest.mark.parametrize(("esp", "case"), CASES)
def test_an_event_means_what_the_esp_documents(esp: str, case: Case) -> None:
    _, body, kind, permanent, suppress = case
    (event,) = events_of(esp, body)
    assert (event.kind, event.permanent, event.suppress, event.recipient) == (kind, permanent, suppress, ANN)


def test_a_bounce_is_about_the_recipients_that_it_lists_and_no_others() -> None:
    mail = {"messageId": "0107-000000", "destination": [ANN, "bob@example.org", "eve@example.org"]}
    listed = [{"emailAddress": ANN, "status": "5.1.1"}, {"emailAddress": "Eve <eve@example.org>", "status": "5.7.1"}]
    part = {"bounceType": "Permanent", "bounceSubType": "General", "bouncedRecipients": listed}
    one, two = events_of("ses", sns_message({"eventType": "Bounce", "mail": mail, "bounce": part}))
    assert (one.recipient, one.suppress) == (ANN, "bounce")
    assert (two.recipient, two.suppress) == ("eve@example.org", None)
    assert one.key != two.key


def test_an_open_of_mail_to_several_names_no_recipient() -> None:
    mail = {"messageId": "0107-000000", "destination": [ANN, "bob@example.org"]}
    (event,) = events_of("ses", sns_message({"eventType": "Open", "mail": mail, "open": {}}))
    assert (event.kind, event.recipient) == ("opened", None)


def test_an_event_of_resend_about_one_of_several_suppresses_none() -> None:
    events = events_of("resend", resend("email.bounced", to=[ANN, "bob@example.org"], bounce={"type": "Permanent"}))
    assert [(event.recipient, event.suppress) for event in events] == [(ANN, None), ("bob@example.org", None)]
    assert len({event.key for event in events}) == 2


@pytest.mark.parametrize(
    ("identity", "found"),
    [
        ("qNwBLgPQQjW6DJvKQwSAbw.recvd-5f9c7b6d4-abcde-1-65E1C4A2-1B.0", "qNwBLgPQQjW6DJvKQwSAbw"),
        ("qNwBLgPQQjW6DJvKQwSAbw", "qNwBLgPQQjW6DJvKQwSAbw"),
        ("filter0093p1las1.9128.5717FB8127.0", None),
        ("", None),
    ],
)
def test_sendgrids_id_is_what_stands_before_the_first_dot(identity: str, found: str | None) -> None:
    (event,) = events_of("sendgrid", sendgrid("dropped", sg_message_id=identity))
    assert event.esp_id == found


@pytest.mark.parametrize(
    ("data", "found"),
    [
        ({"message_id": "<0107-000000@us-east-1.amazonses.com>"}, None),
        ({"message_id": "<1@otp.example.com>"}, "<1@otp.example.com>"),
        ({"message_id": "<2@amazonses.com>", "headers": [{"name": "Message-Id", "value": "<1@b>"}]}, "<1@b>"),
    ],
)
def test_a_message_id_that_amazon_wrote_behind_resend_isnt_ours(data: dict[str, Any], found: str | None) -> None:
    (event,) = events_of("resend", resend("email.sent", **data))
    assert event.message_id == found


def test_a_text_of_amazons_about_the_topic_says_nothing_of_mail() -> None:
    assert events_of("ses", sns_message("Successfully validated SNS topic for Amazon SES event publishing.")) == ()


def test_a_legacy_form_of_mailgun_may_be_multipart() -> None:
    signed, terms = SIGNERS["mailgun"](form(event="dropped", description="x"), {}, NOW)
    part = b'--xx\r\nContent-Disposition: form-data; name="%s"\r\n\r\n%s\r\n'
    body = b"".join(part % (name, value) for name, value in parse_qsl(signed.body)) + b"--xx--\r\n"
    headers = {"content-type": "multipart/form-data; boundary=xx"}
    provider = provider_named("mailgun")
    assert provider is not None
    assert provider.webhook is not None
    verdict = provider.webhook(signed._replace(headers=headers, body=body), terms)
    assert isinstance(verdict, Accepted)
    assert (verdict.events[0].kind, verdict.events[0].recipient) == ("rejected", ANN)


@pytest.mark.parametrize(
    ("custom", "found"), [("01JD8Z2W3X4Y5Z6A7B8C9DAEBF", True), ("order-4711", False), ("", False)]
)
def test_a_custom_id_of_mailjet_is_the_relays_or_the_apps(custom: str, found: bool) -> None:
    (event,) = events_of("mailjet", mailjet("open", CustomID=custom))
    assert event.relay_id == (custom if found else None)


@pytest.mark.parametrize("key", ["relay_id", "Relay-ID", "x-relay-id", "X-OTP-Relay-Id"])
def test_the_relays_id_is_found_in_any_of_its_spellings(key: str) -> None:
    for metadata in ({key: "01J"}, {"X-Relay-Id": "own", "x-otp-relay-id": "01J"}):
        assert events_of("mandrill", mandrill("open", metadata=metadata))[0].relay_id == "01J"
    bodies: dict[str, Any] = {
        "postmark": postmark("Delivery", Metadata={"a": "b", key: "01J"}),
        "sendgrid": sendgrid("delivered", **{key: "01J"}),
        "ses": sns_message({"eventType": "Send", "mail": {"tags": {"a": ["b"], key: ["01J"]}}}),
        "resend": resend("email.sent", headers=[{"name": key, "value": "01J"}]),
        "mailgun": mailgun("opened", **{"user-variables": {key: "01J"}}),
        "brevo": brevo("click", **{"X-Mailin-custom": f"a:b|{key}:01J"}),
        "sparkpost": sparkpost("open", rcpt_meta={key: "01J"}),
        "mailjet": mailjet("open", Payload=json.dumps({key: "01J"})),
        "mandrill": mandrill("open", metadata={key: "01J"}),
    }
    found = {esp: events_of(esp, body)[0].relay_id for esp, body in bodies.items()}
    assert found == dict.fromkeys(SIGNERS, "01J")
