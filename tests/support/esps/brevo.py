"""Brevo's send API: POST /v3/smtp/email. Source: developers.brevo.com, "Send a transactional email", "Idempotency for
batch emails" and "Rate limits"."""

from __future__ import annotations

import re
import uuid
from email.header import decode_header, make_header

from tests.support.api_script import Header, Reply, Request
from tests.support.esps.reading import (
    Fields,
    address_object,
    address_objects,
    addresses,
    check_body,
    check_count,
    check_headers,
    expect_field,
    expect_post,
    from_base64,
    json_body,
)
from tests.support.esps.values import Fault, File, Mail, Mailbox, new_hex, one_id

KEY = "xkeysib-" + "0123456789abcdef" * 4 + "-0123456789abcdef"
MOST = 99
MAX_NAME = 70
STANDARD = ("date", "message-id", "sender", "return-path", "received", "dkim-signature", "resent-*")
"""Standard fields aren't supported; In-Reply-To and References are no fields that Brevo sets."""
FILE_NAME = re.compile(
    r".*\.(xlsx|xls|ods|docx|docm|doc|csv|pdf|txt|gif|jpg|jpeg|png|tif|tiff|rtf|bmp|cgm|css|shtml|html|htm|zip|xml|ppt"
    r"|pptx|tar|ez|ics|mobi|msg|pub|eps|odt|mp3|m4a|m4v|wma|ogg|flac|wav|aif|aifc|aiff|mp4|mov|avi|mkv|mpeg|mpg|wmv"
    r"|pkpass|xlsm)",
    re.IGNORECASE,
)
"""Of attachments."""


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, "/v3/smtp/email")
    expect_field(request, "api-key", key)
    body = json_body(request)
    author = address_object(body.need_nested("sender"))
    to, cc, bcc = address_objects(body, ("to", "cc", "bcc"))
    if not to:
        raise Fault("to is missing")
    recipients = addresses(to, cc, bcc)
    check_count(recipients, MOST)
    reply_to = body.nested("replyTo")
    answers = () if reply_to is None else (address_object(reply_to),)
    _check_names((author, *to, *cc, *bcc, *answers))
    text, html = body.text("textContent"), body.text("htmlContent")
    check_body(text, html)
    headers = body.mapping("headers")
    idempotency_key = _idempotency_key(headers)
    mail = Mail(
        recipients=recipients,
        sender=author.address,
        sender_name=_shown(author).name,
        to=tuple(_shown(one) for one in to),
        cc=tuple(_shown(one) for one in cc),
        bcc=tuple(_shown(one) for one in bcc),
        reply_to=tuple(_shown(one) for one in answers),
        subject=body.line("subject") or "",
        text=text,
        html=html,
        headers=_headers(headers),
        attachments=tuple(_file(one) for one in body.objects("attachment")),
        idempotency_key=idempotency_key,
        ids=one_id(recipients, f"<202611291200.{new_hex(12)}@smtp-relay.mailin.fr>"),
        options={"tags": body.texts("tags")},
    )
    if not mail.subject:
        raise Fault("subject is missing")
    body.finish()
    return mail


def _idempotency_key(headers: dict[str, str]) -> str | None:
    """Takes it out of the mail's header fields, where it stands in the request."""
    value = headers.pop("idempotencyKey", None)
    if value is None:
        return None
    try:
        uuid.UUID(value)
    except ValueError as exc:
        raise Fault("idempotencyKey is no UUID") from exc
    return value


def _headers(headers: dict[str, str]) -> tuple[Header, ...]:
    """As Brevo sends them: names in Title-Case. A value that is not ASCII would go out as raw 8-bit."""
    for name, value in headers.items():
        if not value.isascii():
            raise Fault(f"the field {name} is not ASCII")
    return check_headers([(name.title(), value) for name, value in headers.items()], STANDARD)


def _shown(box: Mailbox) -> Mailbox:
    """As a reader sees it: an encoded word in a name goes out as it is."""
    return box._replace(name=str(make_header(decode_header(box.name))))


def _check_names(boxes: tuple[Mailbox, ...]) -> None:
    """A name that is not ASCII and has a special character (RFC 5322 3.2.3) is dropped in silence."""
    for one in boxes:
        if len(one.name) > MAX_NAME:
            raise Fault(f"a name beyond {MAX_NAME} characters")
        if not one.name.isascii() and re.search(r'[()<>\[\]:;@\\,."]', one.name):
            raise Fault(f"a name that Brevo would drop: {one.name}")


def _file(fields: Fields) -> File:
    found = File(fields.need("name"), "", from_base64(fields.take("content"), "content"))
    if not FILE_NAME.fullmatch(found.filename):
        raise Fault(f"an attachment of an unsupported kind: {found.filename}")
    fields.finish()
    return found


def accept(mail: Mail) -> Reply:
    return Reply(201, {"messageId": mail.ids[mail.recipients[0]]})


def duplicate(mail: Mail | None = None) -> Reply:
    """The idempotency key was used in the last 30 minutes: the mail isn't sent again."""
    return Reply(400, {"code": "duplicate_parameter", "message": "Request with this idempotencyKey already exists"})


def repeat(first: Reply, *, same: bool) -> Reply:
    """The answer to a key that is known, whatever the body."""
    return duplicate()


def limited(mail: Mail, after_s: int = 1) -> Reply:
    headers = [
        ("x-sib-ratelimit-limit", "1000"),
        ("x-sib-ratelimit-remaining", "0"),
        ("x-sib-ratelimit-reset", str(after_s)),
    ]
    return Reply(429, {"code": "too_many_requests", "message": "Too many requests"}, headers)


def error(status: int, text: str) -> Reply:
    codes = {401: "unauthorized", 403: "permission_denied", 404: "document_not_found", 405: "method_not_allowed"}
    return Reply(status, {"code": codes.get(status, "invalid_parameter"), "message": text})
