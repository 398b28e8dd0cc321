"""Brevo v3: JSON, with idempotency keys. One messageId stands for all recipients of a request.

Source: its reference "Send a transactional email", its pages "Idempotency for batch emails" and "Rate limits". It knows
a key for 30 minutes by one page and for 15 by another. Message-ID isn't among the header fields that an app may set,
so it is left out. What django-anymail's documentation says of its treatment of names and header values is in here too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Mailbox, Rebuilt, Verdict
from relay.providers.apis.answers import accepted, by_status, is_success, json_of, rejection, retry_after_s, text_of
from relay.providers.apis.making import as_object, base64_of, encoded, json_request, without_message_id
from relay.providers.apis.places import refused
from relay.providers.reading import dig, identifier

_TAG, _CUSTOM = "x-mailin-tag", "x-mailin-custom"
_MAX_NAME = 70
_MAX_RECIPIENTS = 99
_SPECIALS = frozenset('()<>[]:;@\\,."')
_RESERVED = frozenset(
    {
        "accept",
        "api-key",
        "content-transfer-encoding",
        "content-type",
        "dkim-signature",
        "idempotencykey",
        "received",
        "return-path",
        "sender",
    }
)
_ATTACHED = (
    "xlsx xls ods docx docm doc csv pdf txt gif jpg jpeg png tif tiff rtf bmp cgm css shtml html htm zip xml ppt pptx"
    " tar ez ics mobi msg pub eps odt mp3 m4a m4v wma ogg flac wav aif aifc aiff mp4 mov avi mkv mpeg mpg wmv pkpass"
    " xlsm"
)
_EXTENSIONS = frozenset(_ATTACHED.split())
"""of files that may be attached; their type follows from it"""
_REPEATED = "duplicate_parameter"
_PROCESSED = "duplicate_request"
_ACCOUNT = (
    "unauthorized",
    "permission_denied",
    "account_under_validation",
    "not_enough_credits",
    "Insufficient credits",
    "Authentication failed",
    "api-key not found",
    "Domain does not exist",
    "DMARC policy requires domain authentication",
    "DNS records not properly configured",
)
_OF_SENDER = re.compile(r"\bsender\b", re.IGNORECASE)
_OF_RECIPIENT = re.compile(r"\bemail is not valid in (to|cc|bcc)\b", re.IGNORECASE)
"""it doesn't say which of the list"""


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /v3/smtp/email`."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    body: dict[str, Any] = {
        "sender": _mailbox(rebuilt.author),
        "to": [_mailbox(one) for one in rebuilt.to],
        "subject": rebuilt.subject,
    }
    if rebuilt.cc:
        body["cc"] = [_mailbox(one) for one in rebuilt.cc]
    if mail.bcc:
        body["bcc"] = [{"email": one} for one in mail.bcc]
    if rebuilt.reply_to:
        body["replyTo"] = _mailbox(rebuilt.reply_to[0])
    if rebuilt.text is not None:
        body["textContent"] = rebuilt.text
    if rebuilt.html is not None:
        body["htmlContent"] = rebuilt.html
    headers = {field.name: field.value for field in without_message_id(rebuilt)}
    if (custom := mail.steered(_CUSTOM)) is not None:
        headers["X-Mailin-custom"] = custom
    body["headers"] = headers | {"idempotencyKey": str(uuid5(NAMESPACE_OID, call.idempotency_key))}
    if tags := _tags(mail):
        body["tags"] = tags
    if rebuilt.attachments:
        body["attachment"] = [{"name": one.filename, "content": base64_of(one.data)} for one in rebuilt.attachments]
    return json_request(f"{call.prefix}/v3/smtp/email", body, ("api-key", call.credentials.key))


def _mailbox(one: Mailbox) -> dict[str, str]:
    # It drops a name that has both a special character and one beyond ASCII, unless it is encoded (RFC 2047).
    return as_object(one._replace(name=encoded(one.name)) if _is_dropped(one.name) else one)


def _is_dropped(name: str) -> bool:
    return not name.isascii() and not _SPECIALS.isdisjoint(name)


def _tags(mail: ApiMail) -> list[str]:
    return [tag for value in mail.steering.get(_TAG, ()) if (tag := value.strip())]


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """201 with `{messageId}`, or `{code, message}`."""
    body = json_of(answer)
    esp_id = identifier(dig(body, "messageId"))
    if is_success(answer):
        return accepted(answer, mail, esp_id, "no messageId in the answer")
    code, message = dig(body, "code"), dig(body, "message")
    text = text_of(answer, message, code)
    if answer.status == 429:
        return Verdict.of_all(mail, Found("throttled", text), retry_after_s(answer, now, "x-sib-ratelimit-reset"))
    if not 400 <= answer.status < 500:
        return by_status(answer, mail, text, now)
    if code == _REPEATED:
        # An earlier request with this key was taken: "the API returns an error and does not process the request".
        return Verdict.of_all(mail, Found("sent", esp_id or ""))
    if code == _PROCESSED:
        return Verdict.of_all(mail, Found("unknown", text))
    if code in _ACCOUNT or (isinstance(message, str) and _OF_SENDER.search(message)):
        return Verdict.of_all(mail, Found("account", text))
    if isinstance(message, str) and (named := _OF_RECIPIENT.search(message)) is not None:
        return _invalid(mail, named[1].lower(), text)
    return by_status(answer, mail, text, now)


def _invalid(mail: ApiMail, field: str, text: str) -> Verdict:
    """An address of that list is none. Of several it isn't known which, so another ESP has to say it."""
    listed: Sequence[str] = mail.bcc
    if field != "bcc" and mail.rebuilt is not None:
        listed = [one.address for one in (mail.rebuilt.to if field == "to" else mail.rebuilt.cc)]
    if len(mail.recipients) == 1:
        listed = mail.recipients
    if len(listed) != 1:
        return Verdict.of_all(mail, Found("unfit", text))
    return refused(mail, listed, rejection(text, "5.1.3"))


def why_not(mail: ApiMail) -> str | None:
    """Brevo wants To, a subject and a text, takes one Reply-To address, and header fields of ASCII."""
    rebuilt = mail.rebuilt
    if rebuilt is None:
        return None
    if not rebuilt.to:
        return "no address in To"
    if not rebuilt.subject:
        return "no subject"
    if not rebuilt.text and not rebuilt.html:
        return "the message has no text"
    if not all(map(str.isascii, mail.recipients)):
        return "an address isn't ASCII"
    if any(one.filename.rpartition(".")[2].lower() not in _EXTENSIONS for one in rebuilt.attachments):
        return "an attachment's name has no extension that Brevo knows"
    return _why_not_names(rebuilt) or _why_not_fields(mail, rebuilt)


def _why_not_names(rebuilt: Rebuilt) -> str | None:
    if len(rebuilt.reply_to) > 1:
        return "more than one address in Reply-To"
    names = [_mailbox(one).get("name", "") for one in (rebuilt.author, *rebuilt.to, *rebuilt.cc, *rebuilt.reply_to)]
    if any(len(name) > _MAX_NAME for name in names):
        return "a name is too long for Brevo"
    # In Reply-To an encoded name is shown as it is.
    if any(_is_dropped(one.name) for one in rebuilt.reply_to):
        return "the name in Reply-To has special characters and others beyond ASCII"
    return None


def _why_not_fields(mail: ApiMail, rebuilt: Rebuilt) -> str | None:
    names = [field.name.lower() for field in rebuilt.headers]
    custom = mail.steering.get(_CUSTOM, ())
    if len(set(names)) < len(names) or len(custom) > 1:
        return "a header field stands twice"
    # It sends such a value as raw UTF-8, in a message that isn't marked so; `\u` becomes one too.
    values = [*(field.value for field in rebuilt.headers), *custom]
    return None if all(one.isascii() and "\\u" not in one for one in values) else "a header field isn't ASCII"


def allows_header(name: str) -> bool:
    """Message-ID is allowed, and left out."""
    return name not in _RESERVED


API = Api(
    form="json",
    url="https://api.brevo.com",
    request=request,
    judge=judge,
    recipients=_MAX_RECIPIENTS,
    max_bytes=20_000_000,
    why_not=why_not,
    allows_header=allows_header,
    steering=frozenset({_TAG, _CUSTOM}),
    idempotent_s=900.0,
)
