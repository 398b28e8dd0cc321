"""Resend: JSON, with idempotency keys that it knows for 24 hours.

Source: its OpenAPI document of 2026-08 and its page on idempotency keys.
"""

from __future__ import annotations

from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Kind, Mailbox, Verdict
from relay.providers.apis.answers import (
    accepted,
    by_status,
    is_success,
    json_of,
    named,
    rejection,
    retry_after_s,
    text_of,
)
from relay.providers.apis.making import base64_of, json_request, quoted
from relay.providers.apis.places import refused
from relay.providers.reading import dig, identifier

_KEY_HEADER = "resend-idempotency-key"
_QUOTA = ("daily_quota_exceeded", "monthly_quota_exceeded")
_ACCOUNT = ("missing_api_key", "invalid_api_key", "restricted_api_key", "invalid_from_address", "not_found")
_MAX_RECIPIENTS = 50


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /emails`."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    body: dict[str, Any] = {
        "from": _mailbox(rebuilt.author),
        "to": [_mailbox(one) for one in rebuilt.to],
        "subject": rebuilt.subject,
    }
    if rebuilt.cc:
        body["cc"] = [_mailbox(one) for one in rebuilt.cc]
    if mail.bcc:
        body["bcc"] = list(mail.bcc)
    if rebuilt.reply_to:
        body["reply_to"] = [_mailbox(one) for one in rebuilt.reply_to]
    if rebuilt.text is not None:
        body["text"] = rebuilt.text
    if rebuilt.html is not None:
        body["html"] = rebuilt.html
    if rebuilt.headers:
        body["headers"] = {field.name: field.value for field in rebuilt.headers}
    if rebuilt.attachments:
        body["attachments"] = [
            {"filename": one.filename, "content": base64_of(one.data), "content_type": one.content_type}
            for one in rebuilt.attachments
        ]
    fields = (
        ("Authorization", f"Bearer {call.credentials.key}"),
        ("Idempotency-Key", mail.steered(_KEY_HEADER) or call.idempotency_key),
    )
    return json_request(f"{call.prefix}/emails", body, *fields)


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{"id"}`, or `{statusCode, name, message}`."""
    body = json_of(answer)
    if is_success(answer):
        return accepted(answer, mail, identifier(dig(body, "id")), "no id in the answer")
    name, message = dig(body, "name"), dig(body, "message")
    text = text_of(answer, message, name)
    if answer.status == 409:
        # The key is known with another body. The relay's own key: that one may have been accepted. The app's: it has
        # used it for another mail.
        other: Kind = "unknown" if mail.steered(_KEY_HEADER) is None else "unfit"
        kind: Kind = "in_progress" if name == "concurrent_idempotent_requests" else other
        return Verdict.of_all(mail, Found(kind, text))
    if name in _QUOTA or name in _ACCOUNT:
        return Verdict.of_all(mail, Found("account", text))
    if answer.status == 429:
        return Verdict.of_all(mail, Found("throttled", text), retry_after_s(answer, now, "ratelimit-reset"))
    if answer.status in (400, 422):
        if gone := named(mail, message):
            return refused(mail, gone, rejection(text, "5.1.3"))
        if isinstance(message, str) and "`from`" in message:
            return Verdict.of_all(mail, Found("account", text))
        if isinstance(message, str) and "`to`" in message:
            return Verdict.of_all(mail, rejection(text, "5.1.3"))
    return by_status(answer, mail, text, now)


def why_not(mail: ApiMail) -> str | None:
    """Resend wants a recipient in To."""
    return "no address in To" if mail.rebuilt is not None and not mail.rebuilt.to else None


def _mailbox(one: Mailbox) -> str:
    is_plain = bool(one.name) and not set(one.name) & set('()<>[]:;@\\,."')
    return f"{one.name} <{one.address}>" if is_plain else quoted(one)


API = Api(
    form="json",
    url="https://api.resend.com",
    request=request,
    judge=judge,
    recipients=_MAX_RECIPIENTS,
    max_bytes=40_000_000,
    why_not=why_not,
    steering=frozenset({_KEY_HEADER}),
    idempotent_s=24 * 3600.0,
)
