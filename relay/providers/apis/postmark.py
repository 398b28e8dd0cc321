"""Postmark: JSON. One MessageID stands for all recipients of a request; its webhooks have the same.

Source: its pages "Email API", "API overview" (error codes) and "Send with SMTP", and its support article on error 300.
It has no idempotency keys. It replaces Message-ID, so that field goes along only where the app asks by X-PM-KeepID.
"""

from __future__ import annotations

import re
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Mailbox, Rebuilt, Verdict
from relay.providers.apis.answers import by_status, is_success, json_of, named, rejection, text_of
from relay.providers.apis.making import base64_of, json_request, quoted
from relay.providers.apis.places import refused
from relay.providers.reading import dig, identifier
from relay.providers.webhook import Field

_STREAM, _TAG, _KEEP_ID = "x-pm-message-stream", "x-pm-tag", "x-pm-keepid"
_OPENS, _LINKS = "x-pm-trackopens", "x-pm-tracklinks"
_METADATA = "x-pm-metadata-"
_MAX_METADATA = 10
_MAX_BODY_BYTES = 5_000_000
_REFUSED_FIELDS = ("sender", "return-path", "received", "dkim-signature")
_SWITCHES = {"true": True, "false": False}
# What its servers take for an address; the support article has both patterns.
_ADDRESS = re.compile(r"[a-z0-9.!#$%&'`*+\-/=^_{}|~]+@[a-z0-9.-]+", re.IGNORECASE | re.ASCII)
_ACCOUNT = ("10", "400", "401", "405", "412", "413")
"""token; sender signature unknown or not confirmed; not allowed to send; account pending or barred"""
_INACTIVE, _INVALID, _MAINTENANCE = "406", "300", "100"
_LISTED = re.compile(r"inactive addresses:(.*?)(?:\.\s+Inactive recipients|\Z)", re.DOTALL)
_OF_RECIPIENT = re.compile(r"\s*(?:Invalid|Error\s+parsing)\s+'(?:To|Cc|Bcc)'", re.IGNORECASE)
_OF_SENDER = re.compile(r"\s*(?:Invalid|Error\s+parsing)\s+'From'", re.IGNORECASE)


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /email`."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    body: dict[str, Any] = {"From": quoted(rebuilt.author), "Subject": rebuilt.subject}
    lists = {"To": rebuilt.to, "Cc": rebuilt.cc, "Bcc": [Mailbox(one) for one in mail.bcc], "ReplyTo": rebuilt.reply_to}
    body |= {name: ", ".join(map(quoted, boxes)) for name, boxes in lists.items() if boxes}
    if rebuilt.text is not None:
        body["TextBody"] = rebuilt.text
    if rebuilt.html is not None:
        body["HtmlBody"] = rebuilt.html
    if headers := _headers(rebuilt, mail):
        body["Headers"] = headers
    if rebuilt.attachments:
        body["Attachments"] = [
            {"Name": one.filename, "Content": base64_of(one.data), "ContentType": one.content_type}
            for one in rebuilt.attachments
        ]
    body |= _settings(mail)
    if metadata := _metadata(rebuilt):
        body["Metadata"] = {field.name[len(_METADATA) :]: field.value for field in metadata}
    return json_request(f"{call.prefix}/email", body, ("X-Postmark-Server-Token", call.credentials.key))


def _metadata(rebuilt: Rebuilt) -> list[Field]:
    """Each key has a field of its own, so `steering` can't list them."""
    return [field for field in rebuilt.headers if field.name.lower().startswith(_METADATA)]


def _headers(rebuilt: Rebuilt, mail: ApiMail) -> list[dict[str, str]]:
    keeps_id = _keeps_id(mail)
    found = [
        {"Name": field.name, "Value": field.value}
        for field in rebuilt.headers
        if not field.name.lower().startswith(_METADATA) and (keeps_id or field.name.lower() != "message-id")
    ]
    return [*found, {"Name": "X-PM-KeepID", "Value": "true"}] if keeps_id else found


def _keeps_id(mail: ApiMail) -> bool:
    return (mail.steered(_KEEP_ID) or "").strip().lower() == "true"


def _settings(mail: ApiMail) -> dict[str, Any]:
    """The fields for what the app set in header fields."""
    texts = {"MessageStream": mail.steered(_STREAM), "Tag": mail.steered(_TAG), "TrackLinks": mail.steered(_LINKS)}
    found: dict[str, Any] = {name: value.strip() for name, value in texts.items() if value is not None}
    opens = _SWITCHES.get((mail.steered(_OPENS) or "").strip().lower())
    return {name: value for name, value in found.items() if value} | ({} if opens is None else {"TrackOpens": opens})


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{MessageID, ErrorCode, Message}`. The status isn't enough: 200 may leave recipients out."""
    body = json_of(answer)
    code, message = identifier(dig(body, "ErrorCode")), dig(body, "Message")
    text = text_of(answer, message)
    # While delivery is delayed, the answer has no code.
    if is_success(answer) and (code in (None, "0") or dig(body, "MessageID") is not None):
        return _accepted(answer, mail, body)
    if not 200 <= answer.status < 500 or code is None:
        return by_status(answer, mail, text, now)
    if code == _INACTIVE:
        gone = named(mail, message)
        return refused(mail, gone or mail.recipients, rejection(text, "5.7.1"))
    if code == _INVALID and isinstance(message, str):
        gone = named(mail, message) or (mail.recipients if len(mail.recipients) == 1 else ())
        if gone and _OF_RECIPIENT.match(message):
            return refused(mail, gone, rejection(text, "5.1.3"))
        if _OF_SENDER.match(message):
            return Verdict.of_all(mail, Found("account", text))
    if code in _ACCOUNT:
        return Verdict.of_all(mail, Found("account", text))
    if code == _MAINTENANCE:
        return Verdict.of_all(mail, Found("unavailable", text))
    return by_status(answer._replace(status=422) if is_success(answer) else answer, mail, text, now)


def _accepted(answer: Answer, mail: ApiMail, body: object) -> Verdict:
    """`Message OK, but will not deliver to these inactive addresses: ...` leaves out those of its suppression list."""
    esp_id, message = identifier(dig(body, "MessageID")), dig(body, "Message")
    if esp_id is None or identifier(dig(body, "ErrorCode")) not in (None, "0"):
        return Verdict.of_all(mail, Found("unknown", text_of(answer, "no acceptance in the answer")))
    listed = _LISTED.search(message[:10_000]) if isinstance(message, str) else None
    gone = named(mail, listed[1]) if listed is not None else ()
    suppressed, sent = rejection(text_of(answer, message), "5.7.1"), Found("sent", esp_id)
    return Verdict(tuple(suppressed if one in gone else sent for one in mail.recipients))


def why_not(mail: ApiMail) -> str | None:
    """Postmark wants a text, and addresses of its own grammar: it would call others invalid."""
    rebuilt = mail.rebuilt
    if rebuilt is None:
        return None
    boxes = (rebuilt.author, *rebuilt.to, *rebuilt.cc, *rebuilt.reply_to)
    if not all(map(_ADDRESS.fullmatch, (*(one.address for one in boxes), *mail.recipients))):
        return "an address has characters that Postmark doesn't take"
    if not rebuilt.text and not rebuilt.html:
        return "the message has no text"
    if max(len((one or "").encode()) for one in (rebuilt.text, rebuilt.html)) > _MAX_BODY_BYTES:
        return "a text of the message is too long for Postmark"
    keys = [field.name.lower() for field in _metadata(rebuilt)]
    if len(keys) > _MAX_METADATA or len(set(keys)) < len(keys):
        return "X-PM-Metadata fields are too many, or two have one name"
    opens = mail.steered(_OPENS)
    if any(len(set(values)) > 1 for values in mail.steering.values()) or (
        opens is not None and opens.strip().lower() not in _SWITCHES
    ):
        return "an X-PM field can't be read"
    return None


def allows_header(name: str) -> bool:
    """Message-ID is allowed, and left out where the app doesn't ask to keep it."""
    return name not in _REFUSED_FIELDS


API = Api(
    form="json",
    url="https://api.postmarkapp.com",
    request=request,
    judge=judge,
    recipients=50,
    max_bytes=10_000_000,
    why_not=why_not,
    allows_header=allows_header,
    steering=frozenset({_STREAM, _TAG, _KEEP_ID, _OPENS, _LINKS}),
)
