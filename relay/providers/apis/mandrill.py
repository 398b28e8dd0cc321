"""Mandrill (Mailchimp Transactional): the raw message as a JSON string.

Source: its reference of `messages/send-raw`, which sends a message "exactly as if it were sent through Mandrill's SMTP
servers". So the X-MC-* fields, X-MC-Metadata among them, stay in the message: there are no parameters for them.
`from_email` would replace From, and is left out.

Each recipient has a status of its own under 200. Over the hourly quota, or while the account is paused, it is
`queued`: Mandrill has the mail and sends it later. That is `sent`, because a second copy by another way would only
follow the first; the text says that it is late. Errors come with status 500, so their name counts first.
"""

from __future__ import annotations

import re

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Kind, Verdict
from relay.providers.apis.answers import by_status, for_each, is_success, json_of, rejection, text_of
from relay.providers.apis.making import json_request
from relay.providers.apis.message_fields import is_utf8
from relay.providers.reading import dig, identifier, line

_ACCEPTED = ("sent", "queued", "scheduled")
_NOT_HELD_BACK = ("attachments", "multiple-recipients")
"""`queued_reason` of mail that Mandrill only sends in the background"""
_SUPPRESSED = ("hard-bounce", "soft-bounce", "spam", "unsub", "custom")
"""`reject_reason`: the address is on the account's denylist"""
_ACCOUNT = ("invalid-sender", "unsigned", "test-mode-limit")
_KEY_MISSING = re.compile(r"\bkey\b", re.IGNORECASE)
_ACCOUNT_ERROR = re.compile(r"Invalid_Key|PaymentRequired|Unknown_\w+|Invalid_\w+", re.ASCII)
"""errors that speak of the key, the plan, or a subaccount or pool that isn't there"""


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /api/1.0/messages/send-raw.json`. The key stands in the body."""
    body = {
        "key": call.credentials.key,
        "raw_message": mail.content.decode(),
        "to": list(mail.recipients),
        "async": False,
    }
    return json_request(f"{call.prefix}/api/1.0/messages/send-raw.json", body)


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`[{email, status, reject_reason, queued_reason, _id}]`, or `{status: "error", code, name, message}`."""
    body = json_of(answer)
    if isinstance(body, list) and is_success(answer):
        return Verdict(tuple(_found(answer, one) for one in for_each(mail, body, "email")))
    name, message = identifier(dig(body, "name")), dig(body, "message")
    text = text_of(answer, f"{name}: {message}" if name and line(message) else message, name)
    kind = _kind_of(name or "", text)
    if kind is not None:
        return Verdict.of_all(mail, Found(kind, text))
    if is_success(answer):
        return Verdict.of_all(mail, Found("unknown", text))
    return by_status(answer, mail, text, now)


def _found(answer: Answer, one: object) -> Found:
    """What became of one recipient."""
    status, esp_id = dig(one, "status"), identifier(dig(one, "_id"))
    if status in _ACCEPTED:
        queued = line(dig(one, "queued_reason"), 60) if status == "queued" else None
        if queued is None or queued in _NOT_HELD_BACK:
            return Found("sent", esp_id or "")
        return Found("sent", f"{esp_id or 'unknown'} (held back, may come late: {queued})")
    if status == "invalid":
        return Found("rejected", text_of(answer, "invalid address"), "5.1.3")
    if status == "rejected":
        reason = line(dig(one, "reject_reason"), 60)
        text = text_of(answer, f"rejected: {reason}" if reason else "rejected")
        if reason in _ACCOUNT:
            return Found("account", text)
        if reason == "invalid":
            return Found("rejected", text, "5.1.3")
        return Found("rejected", text, "5.7.1") if reason in (*_SUPPRESSED, "rule") else rejection(text, "5.0.0")
    return Found("unknown", text_of(answer, "no status for this recipient"))


def _kind_of(name: str, text: str) -> Kind | None:
    """What a named error means, whatever its HTTP status. None: the status decides."""
    if name == "ValidationError":
        return "account" if _KEY_MISSING.search(text) is not None else "unfit"
    return "account" if _ACCOUNT_ERROR.fullmatch(name) is not None else None


def why_not(mail: ApiMail) -> str | None:
    """A JSON string holds UTF-8 only."""
    return None if is_utf8(mail.content) else "the message isn't UTF-8"


API = Api(
    form="raw",
    url="https://mandrillapp.com",
    request=request,
    judge=judge,
    recipients=10,  # more are always sent in the background, and the answer says nothing of rejections
    max_bytes=25_000_000,
    why_not=why_not,
)
