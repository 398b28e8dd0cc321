"""Mailjet's send API: POST /v3.1/send. Source: dev.mailjet.com, "Send API v3.1" and "Errors"."""

from __future__ import annotations

from typing import Any

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    Fields,
    address_object,
    address_objects,
    addresses,
    basic,
    check_body,
    check_count,
    check_headers,
    expect_field,
    expect_post,
    from_base64,
    json_body,
)
from tests.support.esps.values import Fault, File, Mail, Mailbox, new_number, new_uuid

KEY = "0123456789abcdef0123456789abcdef:fedcba9876543210fedcba9876543210"
MOST = 50
FORBIDDEN = (
    "date", "message-id", "return-path", "delivered-to", "received", "received-spf", "authentication-results",
    "dkim-signature", "domainkey-status", "list-id", "user-agent", "x-mailer", "x-feedback-id", "x-csa-complaints",
    "x-mj-*", "x-mailjet-*",
)  # fmt: skip
EMAIL = {"email": "Email", "name": "Name"}
TRACKING = (None, "account_default", "disabled", "enabled")


def read(request: Request, *, key: str = KEY) -> Mail:
    """`key`: KEY:SECRET. Raises Fault."""
    expect_post(request, "/v3.1/send")
    user, _, secret = key.partition(":")
    expect_field(request, "authorization", basic(user, secret))
    body = json_body(request)
    messages = body.objects("Messages")
    if len(messages) != 1:
        raise Fault(f"{len(messages)} Messages: several are several mails")
    (one,) = messages
    author = address_object(one.need_nested("From"), **EMAIL)
    to, cc, bcc = address_objects(one, ("To", "Cc", "Bcc"), **EMAIL)
    if not to:
        raise Fault("To is missing")
    recipients = addresses(to, cc, bcc)
    check_count(recipients, MOST)
    reply_to = one.nested("ReplyTo")
    text, html = one.text("TextPart"), one.text("HTMLPart")
    check_body(text, html)
    mail = Mail(
        recipients=recipients,
        sender=author.address,
        sender_name=author.name,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=() if reply_to is None else (address_object(reply_to, **EMAIL),),
        subject=one.line("Subject", empty=True) or "",
        text=text,
        html=html,
        headers=check_headers(one.mapping("Headers").items(), FORBIDDEN),
        attachments=tuple(_file(each) for each in one.objects("Attachments")),
        ids={each: str(new_number()) for each in recipients},
        options={"SandboxMode": body.flag("SandboxMode"), **_options(one)},
    )
    one.finish()
    body.finish()
    return mail


def _file(fields: Fields) -> File:
    content = from_base64(fields.take("Base64Content"), "Base64Content")
    found = File(fields.need("Filename"), fields.need("ContentType"), content)
    fields.finish()
    return found


def _options(one: Fields) -> dict[str, object]:
    options: dict[str, object] = {
        name: one.text(name) for name in ("CustomID", "EventPayload", "CustomCampaign", "TrackOpens", "TrackClicks")
    }
    if options["TrackOpens"] not in TRACKING or options["TrackClicks"] not in TRACKING:
        raise Fault("TrackOpens, TrackClicks")
    return options


def accept(mail: Mail) -> Reply:
    """An id for each recipient; MessageID is a number."""
    message: dict[str, Any] = {"Status": "success", "CustomID": mail.options["CustomID"] or ""}
    for name, boxes in (("To", mail.to), ("Cc", mail.cc), ("Bcc", mail.bcc)):
        message[name] = [_state(mail, one) for one in boxes]
    return Reply(200, {"Messages": [message]})


def _state(mail: Mail, box: Mailbox) -> dict[str, object]:
    identifier = int(mail.ids[box.address])
    href = f"https://api.mailjet.com/v3/REST/message/{identifier}"
    return {"Email": box.address, "MessageUUID": new_uuid(), "MessageID": identifier, "MessageHref": href}


def refused(
    mail: Mail, code: str = "mj-0013", text: str = "is an invalid email address.", about: str = "To[0].Email"
) -> Reply:
    """The message's own error, by default of its first recipient. send-0008 with `From`: the sender is refused."""
    status = 403 if code == "send-0008" else 400
    found = {**_error(status, text, code), "ErrorRelatedTo": [about]}
    return Reply(status, {"Messages": [{"Status": "error", "Errors": [found]}]})


def failed_inside_of_200(mail: Mail) -> Reply:
    """Status `error` under a 200."""
    return Reply(200, refused(mail).body)


def error(status: int, text: str) -> Reply:
    """An error of the whole request."""
    return Reply(status, _error(status, text, {401: "mj-0001", 429: "mj-0029"}.get(status, "mj-0002")))


def _error(status: int, text: str, code: str) -> dict[str, object]:
    return {"ErrorIdentifier": new_uuid(), "ErrorCode": code, "StatusCode": status, "ErrorMessage": text}
