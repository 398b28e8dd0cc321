"""SendGrid's send API: POST /v3/mail/send. Source: twilio.com/docs/sendgrid, "Mail Send" and "Mail Send Errors"."""

from __future__ import annotations

import json
import secrets

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    Fields,
    address_object,
    address_objects,
    addresses,
    check_count,
    check_distinct,
    check_headers,
    expect_field,
    expect_post,
    from_base64,
    json_body,
)
from tests.support.esps.values import Fault, File, Mail, Mailbox, one_id

KEY = "SG.0123456789abcdefghijkl.0123456789abcdefghijklmnopqrstuvwxyzABCDEFG"
MOST = 1000
FORBIDDEN = ("x-sg-*", "received", "dkim-signature", "content-*")


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, "/v3/mail/send")
    expect_field(request, "authorization", f"Bearer {key}")
    body = json_body(request)
    personalizations = body.objects("personalizations")
    if len(personalizations) != 1:
        raise Fault(f"{len(personalizations)} personalizations: several are several mails")
    (person,) = personalizations
    to, cc, bcc = address_objects(person, ("to", "cc", "bcc"))
    if not to:
        raise Fault("a personalization without to")
    recipients = addresses(to, cc, bcc)
    check_count(recipients, MOST)
    check_distinct(recipients)
    author = address_object(body.need_nested("from"))
    text, html = _content(body)
    options = _options(body, person)
    headers = (*body.mapping("headers").items(), *person.mapping("headers").items())
    person.finish()
    mail = Mail(
        recipients=recipients,
        sender=author.address,
        sender_name=author.name,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=_reply_to(body),
        subject=body.line("subject") or "",
        text=text,
        html=html,
        headers=check_headers(headers, FORBIDDEN),
        attachments=tuple(_file(one) for one in body.objects("attachments")),
        ids=one_id(recipients, secrets.token_urlsafe(16)[:22]),
        options=options,
    )
    if not mail.subject:
        raise Fault("no subject")
    body.finish()
    return mail


def _reply_to(body: Fields) -> tuple[Mailbox, ...]:
    one = body.nested("reply_to")
    several = tuple(address_object(each) for each in body.objects("reply_to_list"))
    if one is not None and several:
        raise Fault("reply_to and reply_to_list")
    return (address_object(one),) if one is not None else several


def _content(body: Fields) -> tuple[str | None, str | None]:
    """text/plain first, text/html behind it."""
    found: dict[str, str] = {}
    for part in body.objects("content"):
        kind = part.need("type")
        if kind in found:
            raise Fault(f"{kind} stands twice")
        found[kind] = part.need("value")
        part.finish()
    if list(found) not in (["text/plain"], ["text/html"], ["text/plain", "text/html"]):
        raise Fault(f"content of {list(found)}: it is text/plain, then text/html")
    return found.get("text/plain"), found.get("text/html")


def _file(fields: Fields) -> File:
    content = from_base64(fields.take("content"), "content")
    found = File(fields.need("filename"), fields.text("type") or "", content)
    if fields.text("disposition") not in (None, "attachment", "inline"):
        raise Fault("disposition")
    fields.text("content_id")
    fields.finish()
    return found


def _options(body: Fields, person: Fields) -> dict[str, object]:
    custom = {**body.mapping("custom_args"), **person.mapping("custom_args")}
    if len(json.dumps(custom).encode()) > 10_000:
        raise Fault("custom_args beyond 10,000 bytes")
    categories = body.texts("categories")
    if len(categories) > 10 or len(set(categories)) != len(categories) or any(len(one) > 255 for one in categories):
        raise Fault("categories: at most 10, each once, of 255 characters")
    options: dict[str, object] = {
        "custom_args": custom,
        "categories": categories,
        "ip_pool_name": body.text("ip_pool_name"),
        "tracking_settings": _switches(body, "tracking_settings", ("click_tracking", "open_tracking")),
        "mail_settings": _switches(body, "mail_settings", ("sandbox_mode", "bypass_list_management")),
    }
    return options


def _switches(body: Fields, name: str, known: tuple[str, ...]) -> dict[str, bool | None]:
    """`{"click_tracking": {"enable": false}}` as names and flags."""
    settings = body.nested(name)
    if settings is None:
        return {}
    found: dict[str, bool | None] = {}
    for one in known:
        setting = settings.nested(one)
        if setting is not None:
            found[one] = setting.flag("enable")
            setting.flag("enable_text")
            setting.finish()
    settings.finish()
    return found


def accept(mail: Mail) -> Reply:
    """No body: the id is in the head. In the sandbox, 200 without an id."""
    settings = mail.options["mail_settings"]
    if settings.get("sandbox_mode"):
        return Reply(200)
    return Reply(202, b"", [("X-Message-Id", mail.ids[mail.recipients[0]])])


def without_id(mail: Mail) -> Reply:
    """Accepted, but the field with the id is missing."""
    return Reply(202)


def error(status: int, text: str, field: str | None = None) -> Reply:
    headers = [("X-RateLimit-Limit", "600"), ("X-RateLimit-Remaining", "0"), ("X-RateLimit-Reset", "1795953600")]
    body = {"errors": [{"message": text, "field": field, "help": None}]}
    return Reply(status, body, headers if status == 429 else ())
