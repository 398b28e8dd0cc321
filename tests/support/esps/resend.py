"""Resend's send API: POST /emails. Source: resend.com/docs, "Send Email", "Idempotency Keys" and "Errors"."""

from __future__ import annotations

import re

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    Fields,
    addresses,
    check_body,
    check_headers,
    expect_field,
    expect_post,
    from_base64,
    json_body,
    mailbox,
)
from tests.support.esps.values import Fault, File, Mail, Mailbox, new_uuid, one_id

KEY = "re_12345678_abcdefghijklmnopqrstuvwx"
MOST = 50
TAG = re.compile(r"[A-Za-z0-9_-]{1,256}")


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, "/emails")
    if not request.values("authorization"):
        raise Fault("Missing API Key", 401)
    expect_field(request, "authorization", f"Bearer {key}", 403)
    if not request.header("user-agent"):
        raise Fault("a request without User-Agent", 403)
    body = json_body(request)
    author = mailbox(body.need("from"), "from")
    to, cc, bcc, reply_to = (_list(body, name) for name in ("to", "cc", "bcc", "reply_to"))
    if not 1 <= len(to) <= MOST or len(cc) > MOST or len(bcc) > MOST:
        raise Fault("to has 1 to 50 addresses", 422)
    recipients = addresses(to, cc, bcc)
    text, html = body.text("text"), body.text("html")
    check_body(text, html)
    mail = Mail(
        recipients=recipients,
        sender=author.address,
        sender_name=author.name,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=reply_to,
        subject=body.line("subject") or "",
        text=text,
        html=html,
        headers=check_headers(body.mapping("headers").items()),
        attachments=tuple(_file(one) for one in body.objects("attachments")),
        idempotency_key=_idempotency_key(request),
        ids=one_id(recipients, new_uuid()),
        options={"tags": _tags(body)},
    )
    if not mail.subject:
        raise Fault("Missing `subject` field.", 422)
    body.finish()
    return mail


def _list(body: Fields, name: str) -> tuple[Mailbox, ...]:
    """A string or a list of strings, an address each."""
    value = body.take(name)
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list) or not values or not all(isinstance(one, str) for one in values):
        raise Fault(f"{name} is no address and no list of addresses", 422)
    return tuple(mailbox(str(one), name) for one in values)


def _idempotency_key(request: Request) -> str | None:
    values = request.values("idempotency-key")
    if values and (len(values) > 1 or not 1 <= len(values[0]) <= 256 or not values[0].isascii()):
        raise Fault("Idempotency-Key: 1 to 256 characters, once")
    return values[0] if values else None


def _tags(body: Fields) -> dict[str, str]:
    tags: dict[str, str] = {}
    for one in body.objects("tags"):
        name, value = one.need("name"), one.need("value")
        one.finish()
        if not TAG.fullmatch(name) or not TAG.fullmatch(value) or name in tags:
            raise Fault(f"the tag {name}={value}", 422)
        tags[name] = value
    return tags


def _file(fields: Fields) -> File:
    """A file without a name is dropped in silence, so that the name is needed."""
    content = from_base64(fields.take("content"), "content")
    found = File(fields.need("filename"), fields.text("content_type") or "", content)
    fields.text("content_id")
    fields.finish()
    return found


def accept(mail: Mail) -> Reply:
    return Reply(200, {"id": mail.ids[mail.recipients[0]]})


def repeat(first: Reply, *, same: bool) -> Reply:
    """The answer to a key that is known: the first answer, if the body is the same too."""
    if same:
        return first
    return refuse(
        409,
        "invalid_idempotent_request",
        "This idempotency key has been used on a request with a different payload.",
    )


def in_flight(mail: Mail) -> Reply:
    """The first request with that key has no answer yet."""
    return refuse(
        409, "concurrent_idempotent_requests", "Another request with the same idempotency key is in progress."
    )


def limited(mail: Mail, name: str = "rate_limit_exceeded", after_s: int = 1) -> Reply:
    """`name`: or `daily_quota_exceeded`, `monthly_quota_exceeded`."""
    headers = [("ratelimit-limit", "5"), ("ratelimit-remaining", "0"), ("ratelimit-reset", str(after_s))]
    return refuse(429, name, "Too many requests.", [*headers, ("retry-after", str(after_s))])


def refuse(status: int, name: str, text: str, headers: list[tuple[str, str]] | None = None) -> Reply:
    return Reply(status, {"statusCode": status, "name": name, "message": text}, headers or [])


def error(status: int, text: str) -> Reply:
    names = {401: "missing_api_key", 403: "invalid_api_key", 404: "not_found", 405: "method_not_allowed"}
    return refuse(status, names.get(status, "validation_error"), text)
