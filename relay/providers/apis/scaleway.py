"""Scaleway Transactional Email: JSON.

Source: its API reference, its Python SDK, and "Transactional Email capabilities and limits". Each recipient has a mail
with an id of its own. Message-ID is Scaleway's: the app's is left out. Reply-To has no parameter and goes as a header
field. Recipients on its blocklist are accepted and fail later.
"""

from __future__ import annotations

import re
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, ApiRequest, Call, Found, Mailbox, Verdict
from relay.providers.apis.answers import by_status, for_each, is_success, json_of, named, rejection, text_of
from relay.providers.apis.making import as_object, base64_of, encoded, json_request, quoted, without_message_id
from relay.providers.apis.places import at_place, refused
from relay.providers.reading import dig, first, identifier, items, line

_REGION = "fr-par"
"""the only one that has this service"""
_LEAST_TEXT = 10
"""characters that subject, text and HTML need"""
_MOST_ATTACHMENTS = 10
_MOST_RECIPIENTS = 10
_ACCEPTED = ("new", "sending", "sent")
_FAILED = ("failed", "canceled")
_FLAGS = {"blocklisted": "5.7.1", "mailbox_not_found": "5.1.1", "hard_bounce": "5.0.0"}
_ACCOUNT = (
    "permissions_denied",
    "denied_authentication",
    "quotas_exceeded",
    "resource_not_found",
    "unknown_resource",
    "precondition_failed",  # the domain isn't checked yet, or is locked
)
_SENDER = re.compile(r"(?:from|project_id|region)(?:\W.*)?", re.DOTALL)
_OFFICE = "application/vnd.openxmlformats-officedocument"
# A ZIP needs the larger plan, so it isn't among them.
_TYPES = frozenset(
    "application/x-pkcs7-crl text/csv application/msword application/dwf application/x-dwf model/vnd.dwf"
    " application/acad application/autocad_dwg application/x-dwg image/vnd.dwg application/acad-template"
    " application/vnd.dwt application/x-dwt application/autocad_dxf application/dxf application/x-dxf image/vnd.dxf"
    " image/gif text/html text/calendar application/ics image/jpeg image/jpg audio/mpeg"
    " application/vnd.oasis.opendocument.spreadsheet application/x-pkcs7-certificates application/pkcs7-mime"
    " application/x-pkcs7-mime application/pkcs10 application/x-pkcs12 application/x-pkcs7-certreqresp"
    " application/pkcs7-signature application/x-pkcs7-signature application/pdf image/png image/svg+xml image/tiff"
    " text/plain audio/wav image/webp application/vnd.ms-excel application/xml text/xml"
    f" {_OFFICE}.wordprocessingml.document {_OFFICE}.spreadsheetml.template {_OFFICE}.spreadsheetml.sheet".split()
)
_NOT_ITS_OWN = frozenset(
    {"from", "to", "cc", "bcc", "subject", "sender", "return-path", "received", "dkim-signature", "date"}
)


def request(mail: ApiMail, call: Call) -> ApiRequest:
    """`POST /transactional-email/v1alpha1/regions/fr-par/emails`. The user name is the project's ID."""
    rebuilt = mail.rebuilt
    assert rebuilt is not None
    body: dict[str, Any] = {
        "project_id": call.credentials.username,
        "from": as_object(rebuilt.author),
        "to": [as_object(one) for one in rebuilt.to],
        "subject": rebuilt.subject,
    }
    if rebuilt.cc:
        body["cc"] = [as_object(one) for one in rebuilt.cc]
    if mail.bcc:
        body["bcc"] = [{"email": one} for one in mail.bcc]
    if rebuilt.text is not None:
        body["text"] = rebuilt.text
    if rebuilt.html is not None:
        body["html"] = rebuilt.html
    if rebuilt.attachments:
        body["attachments"] = [
            {"name": one.filename, "type": one.content_type, "content": base64_of(one.data)}
            for one in rebuilt.attachments
        ]
    # The API takes a header field's value as it is written.
    fields = [(field.name, encoded(field.value)) for field in without_message_id(rebuilt)]
    if rebuilt.reply_to:
        fields.append(("Reply-To", ", ".join(_shown(one) for one in rebuilt.reply_to)))
    if fields:
        body["additional_headers"] = [{"key": name, "value": value} for name, value in fields]
    path = f"{call.prefix}/transactional-email/v1alpha1/regions/{_REGION}/emails"
    return json_request(path, body, ("X-Auth-Token", call.credentials.key))


def _shown(one: Mailbox) -> str:
    """An address in a header field, with its name quoted or encoded."""
    return quoted(one) if one.name.isascii() else f"{encoded(one.name)} <{one.address}>"


def judge(answer: Answer, mail: ApiMail, now: float) -> Verdict:
    """`{"emails": [{id, mail_rcpt, status}]}`, or `{type, message, details}`."""
    body = json_of(answer)
    if is_success(answer):
        return Verdict(tuple(_found(answer, one) for one in for_each(mail, dig(body, "emails"), "mail_rcpt")))
    kind, message = identifier(dig(body, "type")), identifier(dig(body, "message"))
    details = list(items(dig(body, "details")))[:20]
    said = [first((line(dig(one, "help_message")), line(dig(one, "reason")))) for one in details]
    words = ": ".join(one for one in (message, first(said), first(_arguments(details))) if one is not None)
    text = text_of(answer, words, kind)
    if kind in _ACCOUNT:
        return Verdict.of_all(mail, Found("account", text))
    if answer.status in (400, 422):
        if any(_SENDER.fullmatch(name) for name in _arguments(details)):
            return Verdict.of_all(mail, Found("account", text))
        at = [place for name in _arguments(details) if (place := at_place(mail, name)) is not None]
        if gone := at or named(mail, words):
            return refused(mail, gone, rejection(text, "5.1.3"))
    return by_status(answer, mail, text, now)


def _found(answer: Answer, one: object) -> Found:
    """What became of one recipient."""
    status, esp_id = dig(one, "status"), identifier(dig(one, "id"))
    if status in _ACCEPTED and esp_id is not None:
        return Found("sent", esp_id)
    text = text_of(answer, dig(one, "status_details"), status, "no id for this recipient")
    if status in _FAILED:
        flag = next((flag for flag in items(dig(one, "flags")) if isinstance(flag, str) and flag in _FLAGS), "")
        return rejection(text, _FLAGS.get(flag, "5.0.0"))
    return Found("unknown", text)


def _arguments(details: list[object]) -> list[str]:
    """The parameters that the ESP finds fault with, such as `to.0.email`."""
    return [name for one in details if (name := line(dig(one, "argument_name"), 100)) is not None]


def why_not(mail: ApiMail) -> str | None:
    """Texts that Scaleway finds too short, attachments that it doesn't take, addresses that it breaks."""
    rebuilt = mail.rebuilt
    if rebuilt is None:
        return None
    if not rebuilt.to:
        return "no address in To"
    if len(mail.recipients) > _MOST_RECIPIENTS:
        return f"more than {_MOST_RECIPIENTS} recipients"
    if rebuilt.text is None and rebuilt.html is None:
        return "neither text nor HTML"
    for name, text in (("subject", rebuilt.subject), ("text", rebuilt.text), ("HTML", rebuilt.html)):
        if text is not None and len(text.strip()) < _LEAST_TEXT:
            return f"Scaleway wants a {name} of at least {_LEAST_TEXT} characters"
    if len(rebuilt.attachments) > _MOST_ATTACHMENTS:
        return f"more than {_MOST_ATTACHMENTS} attachments"
    if any(one.content_type.lower() not in _TYPES for one in rebuilt.attachments):
        return "an attachment of a type that Scaleway doesn't take"
    shown = (rebuilt.author, *rebuilt.to, *rebuilt.cc, *rebuilt.reply_to)
    if not all(one.isascii() for one in (*(box.address for box in shown), *mail.recipients)):
        return "an address beyond ASCII"
    return None


def allows_header(name: str) -> bool:
    """Fields that the API sets itself, or that tell of the transport, can't be set."""
    return name not in _NOT_ITS_OWN and not name.startswith(("resent-", "arc-"))


API = Api(
    form="json",
    url="https://api.scaleway.com",
    request=request,
    judge=judge,
    recipients=_MOST_RECIPIENTS,
    max_bytes=2_000_000,
    why_not=why_not,
    allows_header=allows_header,
)
