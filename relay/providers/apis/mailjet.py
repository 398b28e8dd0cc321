"""Mailjet, Send API v3.1: JSON. Each recipient has an id of its own in the answer.

Source: its guide "Send API v3.1", its reference "Send emails", its page "Custom headers" of the SMTP relay. It has no
idempotency keys. It writes a Message-ID of its own and refuses ours, so that field is left out.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Mailbox, Verdict, same
from relay.providers.apis.answers import by_status, is_success, json_of, rejection, text_of
from relay.providers.apis.making import base64_of, is_json_text, json_request, without_message_id
from relay.providers.apis.message_fields import is_utf8
from relay.providers.apis.places import at_place, refused
from relay.providers.reading import UNREADABLE, address, dig, first, identifier, items, line, read_json

_RESERVED = frozenset(
    {
        "authentication-results",
        "delivered-to",
        "dkim-signature",
        "domainkey-status",
        "list-id",
        "received",
        "received-spf",
        "return-path",
        "sender",
        "user-agent",
        "x-csa-complaints",
        "x-feedback-id",
        "x-mailer",
        "x-mailjet-debug",
        "x-mailjet-segmentation",
        "x-mj-errormessage",
        "x-mj-mid",
        "x-mj-statisticscontactslistid",
        "x-mj-workflowid",
    }
)
_MAX_RECIPIENTS = 50
_YES, _NO = ("1", "true", "yes", "y"), ("0", "false", "no", "n")
_TRACKING = {"0": "disabled", "1": "enabled"}
_SENDER = re.compile(r"(?:From|Sender)(?:\.Email)?", re.ASCII)
# Of a message's own status, not of the response's: it may be one of several.
_ACCOUNT = ("401", "402", "403")
_NOT_AUTHORIZED = "send-0008"
"""the sender isn't one of the account's"""


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /v3.1/send`, with one message."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    message: dict[str, Any] = {"From": _mailbox(rebuilt.author), "Subject": rebuilt.subject}
    lists = {"To": rebuilt.to, "Cc": rebuilt.cc, "Bcc": [Mailbox(one) for one in mail.bcc]}
    message |= {name: [_mailbox(one) for one in boxes] for name, boxes in lists.items() if boxes}
    if rebuilt.reply_to:
        message["ReplyTo"] = _mailbox(rebuilt.reply_to[0])
    if rebuilt.text is not None:
        message["TextPart"] = rebuilt.text
    if rebuilt.html is not None:
        message["HTMLPart"] = rebuilt.html
    if headers := {field.name: field.value for field in without_message_id(rebuilt)}:
        message["Headers"] = headers
    if rebuilt.attachments:
        message["Attachments"] = [
            {"ContentType": one.content_type, "Filename": one.filename, "Base64Content": base64_of(one.data)}
            for one in rebuilt.attachments
        ]
    message |= _settings(mail) or {}
    proof = base64_of(call.credentials.key.encode())
    return json_request(f"{call.prefix}/v3.1/send", {"Messages": [message]}, ("Authorization", f"Basic {proof}"))


def _mailbox(one: Mailbox) -> dict[str, str]:
    return {"Email": one.address, "Name": one.name} if one.name else {"Email": one.address}


def _settings(mail: ApiMail) -> dict[str, Any] | None:
    """The fields for what the app set in header fields. None: one can't be read, or has no field beside a text."""
    found: dict[str, Any] = {}
    for name, values in mail.steering.items():
        texts = {value.strip() for value in values} - {""}
        if name not in _FIELDS or not texts:
            continue
        field, read = _FIELDS[name]
        made = read(texts.pop())
        if made is None or texts:
            return None
        found[field] = made
    return found


def _text(value: str) -> object:
    return value


def _flag(value: str) -> object:
    return True if value.lower() in _YES else False if value.lower() in _NO else None


def _number(value: str) -> object:
    return int(value) if re.fullmatch(r"\d{1,9}", value, re.ASCII) else None


def _tracking(value: str) -> object:
    known = _TRACKING.get(value, value)
    return known if known in ("account_default", "disabled", "enabled") else None


def _variables(value: str) -> object:
    known = read_json(value)
    return known if isinstance(known, dict) and is_json_text(known) else None


def _reporting(value: str) -> object:
    known = read_json(value)
    if known is UNREADABLE:
        reported = address(value)
        return {"Email": reported} if reported is not None else None
    return known if isinstance(known, dict) and is_json_text(known) else None


def _deliver(value: str) -> object:
    return True if value.lower() == "deliver" else _flag(value)


def _never(_value: str) -> object:
    """With a template, the API takes no text."""
    return None


_FIELDS: dict[str, tuple[str, Callable[[str], object]]] = {
    "x-mj-customid": ("CustomID", _text),
    "x-mj-eventpayload": ("EventPayload", _text),
    "x-mj-monitoringcategory": ("MonitoringCategory", _text),
    "x-mj-templatelanguage": ("TemplateLanguage", _flag),
    "x-mj-templateid": ("TemplateID", _never),
    "x-mj-templateerrorreporting": ("TemplateErrorReporting", _reporting),
    "x-mj-templateerrordeliver": ("TemplateErrorDeliver", _deliver),
    "x-mj-vars": ("Variables", _variables),
    "x-mailjet-campaign": ("CustomCampaign", _text),
    "x-mailjet-deduplicatecampaign": ("DeduplicateCampaign", _flag),
    "x-mailjet-prio": ("Priority", _number),
    "x-mailjet-trackopen": ("TrackOpens", _tracking),
    "x-mailjet-trackclick": ("TrackClicks", _tracking),
}
"""The API's field for each header field, and how the value is read"""


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{Messages: [{Status, To, Cc, Bcc}]}` or `{Messages: [{Status, Errors}]}`, or one error of the whole request."""
    body = json_of(answer)
    message = dig(body, "Messages", 0)
    errors = list(items(dig(message, "Errors")))[:100]
    if is_success(answer) and (not errors or dig(message, "Status") == "success"):
        return _accepted(answer, mail, message)
    text = text_of(answer, first(line(dig(one, "ErrorMessage")) for one in (*errors, body)))
    if errors and 200 <= answer.status < 500 and answer.status != 429:
        if any(_blames_account(one) for one in errors):
            return Verdict.of_all(mail, Found("account", text))
        if gone := _named_by(errors, mail):
            return refused(mail, gone, rejection(text, "5.1.3"))
        if is_success(answer):
            return Verdict.of_all(mail, Found("unfit", text))
    return by_status(answer, mail, text, now)


def _accepted(answer: Answer, mail: ApiMail, message: object) -> Verdict:
    listed = [one for name in ("To", "Cc", "Bcc") for one in items(dig(message, name))]
    ids = {email.lower(): _id_of(one) for one in listed if isinstance(email := dig(one, "Email"), str)}
    if dig(message, "Status") != "success":
        ids = {}
    unknown = Found("unknown", text_of(answer, "no id for the recipient in the answer"))
    found = [ids.get(same(one)) for one in mail.recipients]
    return Verdict(tuple(unknown if one is None else Found("sent", one) for one in found))


def _id_of(one: object) -> str | None:
    """The UUID, which events have as Message_GUID, and behind it the number that Mailjet's other pages ask for."""
    uuid, number = identifier(dig(one, "MessageUUID")), identifier(dig(one, "MessageID"))
    return f"{uuid} ({number})" if uuid and number else uuid or number


def _blames_account(error: object) -> bool:
    related = [one for one in items(dig(error, "ErrorRelatedTo")) if isinstance(one, str)]
    return (
        dig(error, "ErrorCode") == _NOT_AUTHORIZED
        or identifier(dig(error, "StatusCode")) in _ACCOUNT
        or any(_SENDER.fullmatch(one) for one in related)
    )


def _named_by(errors: Sequence[object], mail: ApiMail) -> set[str]:
    """The recipients whose places in the request the errors name, such as `To[0].Email`."""
    found = {at_place(mail, one) for error in errors for one in items(dig(error, "ErrorRelatedTo"))}
    known = {same(one) for one in mail.recipients}
    return {one for one in found if one is not None and same(one) in known}


def why_not(mail: ApiMail) -> str | None:
    """Mailjet wants To and a text, takes one Reply-To address, and names each header field once."""
    rebuilt = mail.rebuilt
    if rebuilt is None:
        return None
    if not rebuilt.to:
        return "no address in To"
    if len(rebuilt.reply_to) > 1:
        return "more than one address in Reply-To"
    if not rebuilt.text and not rebuilt.html:
        return "the message has no text"
    names = [field.name.lower() for field in rebuilt.headers]
    if len(set(names)) < len(names):
        return "a header field stands twice"
    if not all(map(str.isascii, mail.recipients)):
        return "an address isn't ASCII"
    if not all(one.filename for one in rebuilt.attachments):
        return "an attachment has no name"
    # It labels such an attachment as UTF-8, whatever it is.
    if not all(is_utf8(one.data) for one in rebuilt.attachments if one.content_type.startswith("text/")):
        return "a text that is attached isn't UTF-8"
    return "a header field that steers Mailjet can't be set in its API" if _settings(mail) is None else None


def allows_header(name: str) -> bool:
    """Message-ID is allowed, and left out."""
    return name not in _RESERVED


API = Api(
    form="json",
    url="https://api.mailjet.com",
    request=request,
    judge=judge,
    recipients=_MAX_RECIPIENTS,
    max_bytes=15_000_000,
    why_not=why_not,
    allows_header=allows_header,
    steering=frozenset(_FIELDS),
)
