"""Resend's API: what a request says, and what an answer means."""

from __future__ import annotations

import json
from typing import Any

import pytest

from relay.providers.api import Answer, ApiMail, Attachment, Call, Credentials, Found, Mailbox, Rebuilt
from relay.providers.apis.resend import API
from relay.providers.webhook import Field

CALL = Call(Credentials(key="re_key"), "api.resend.com", "/proxy", 1_000_000.0, "otp-relay-1")
REBUILT = Rebuilt(
    author=Mailbox("login@example.com", 'Acme, "Inc"'),
    to=(Mailbox("ann@example.net", "Ann"), Mailbox("bob@example.net")),
    cc=(Mailbox("cy@example.net"),),
    reply_to=(Mailbox("help@example.com"),),
    subject="Code 482913 ü",
    text="Your code\n",
    html="<p>Your code</p>",
    attachments=(Attachment("a.txt", "text/plain", b"hello"),),
    headers=(Field("X-A", "1"), Field("Message-ID", "<1@example.com>")),
)
EVERYONE = ("ann@example.net", "Bob@example.net", "cy@example.net", "archive@example.com")


def mail(recipients: tuple[str, ...] = EVERYONE, rebuilt: Rebuilt = REBUILT, **steering: str) -> ApiMail:
    values = {name.replace("_", "-"): (value,) for name, value in steering.items()}
    return ApiMail("01ABC", "bounce@example.com", recipients, "login@example.com", values, b"", rebuilt)


def test_a_request_has_all_that_the_mail_says() -> None:
    made = API.request(mail(), CALL)
    assert made.path == "/proxy/emails"
    assert dict(made.headers) == {
        "Authorization": "Bearer re_key",
        "Content-Type": "application/json",
        "Accept": "application/json",
        "Idempotency-Key": "otp-relay-1",
    }
    assert json.loads(made.body) == {
        "from": '"Acme, \\"Inc\\"" <login@example.com>',
        "to": ["Ann <ann@example.net>", "bob@example.net"],
        "cc": ["cy@example.net"],
        "bcc": ["archive@example.com"],
        "reply_to": ["help@example.com"],
        "subject": "Code 482913 ü",
        "text": "Your code\n",
        "html": "<p>Your code</p>",
        "headers": {"X-A": "1", "Message-ID": "<1@example.com>"},
        "attachments": [{"filename": "a.txt", "content": "aGVsbG8=", "content_type": "text/plain"}],
    }


def test_what_a_mail_doesnt_have_is_left_out() -> None:
    bare = REBUILT._replace(cc=(), reply_to=(), html=None, attachments=(), headers=())
    body = json.loads(API.request(mail(("ann@example.net", "bob@example.net"), bare), CALL).body)
    assert body.keys() == {"from", "to", "subject", "text"}


def test_the_apps_own_key_is_used() -> None:
    made = API.request(mail(resend_idempotency_key="app-1"), CALL)
    assert dict(made.headers)["Idempotency-Key"] == "app-1"


def test_mail_without_an_address_in_to_isnt_carried() -> None:
    assert API.why_not(mail()) is None
    assert API.why_not(mail(rebuilt=REBUILT._replace(to=()))) == "no address in To"


def error(status: int, name: str, message: str = "no") -> tuple[int, Any]:
    return status, {"statusCode": status, "name": name, "message": message}


CASES: list[tuple[str, tuple[int, Any], dict[str, str], list[str]]] = [
    ("accepted", (200, {"id": "49a3999c"}), {}, ["sent"] * 4),
    ("no id", (200, {}), {}, ["unknown"] * 4),
    ("a list", (200, ["id"]), {}, ["unknown"] * 4),
    ("in flight", error(409, "concurrent_idempotent_requests"), {}, ["in_progress"] * 4),
    ("another body", error(409, "invalid_idempotent_request"), {}, ["unknown"] * 4),
    ("no key", error(401, "missing_api_key"), {}, ["account"] * 4),
    ("a wrong key", error(403, "invalid_api_key"), {}, ["account"] * 4),
    ("a domain", error(403, "validation_error", "The example.com domain is not verified"), {}, ["account"] * 4),
    ("a quota", error(429, "daily_quota_exceeded"), {"retry-after": "9"}, ["account"] * 4),
    ("too fast", error(429, "rate_limit_exceeded"), {"retry-after": "9"}, ["throttled"] * 4),
    ("a recipient", error(422, "validation_error", "bob@example.net is no address"), {},
     ["unavailable", "rejected", "unavailable", "unavailable"]),
    ("its to", error(422, "validation_error", "Invalid `to` field"), {}, ["rejected"] * 4),
    ("its from", error(422, "validation_error", "Invalid `from` field"), {}, ["account"] * 4),
    ("the mail", error(422, "missing_required_field", "Missing `subject`"), {}, ["unfit"] * 4),
    ("out of order", error(500, "application_error"), {}, ["unavailable"] * 4),
    ("a gateway", (504, None), {}, ["unknown"] * 4),
    ("a redirect", (301, None), {}, ["account"] * 4),
]  # fmt: skip


@pytest.mark.parametrize(("status", "headers", "kinds"), [case[1:] for case in CASES], ids=[case[0] for case in CASES])
def test_an_answer_means(status: tuple[int, Any], headers: dict[str, str], kinds: list[str]) -> None:
    body = b"" if status[1] is None else json.dumps(status[1]).encode()
    verdict = API.judge(Answer(status[0], headers, body), mail(), CALL.now)
    assert [found.kind for found in verdict.found] == kinds
    assert verdict.retry_after_s == (9.0 if kinds[0] == "throttled" else None)


def test_the_id_is_the_reply_and_a_refusal_is_in_resends_words() -> None:
    assert API.judge(Answer(200, {}, b'{"id":"e1"}'), mail(), 0.0).found[0] == Found("sent", "e1")
    refused = API.judge(Answer(422, {}, json.dumps(error(422, "x", "Invalid `to` field")[1]).encode()), mail(), 0.0)
    assert refused.found[0] == Found("rejected", "HTTP 422: Invalid `to` field", "5.1.3")
