"""Leadpush's send API: POST /v1/emails. Source: leadpush.io/docs, "Send an email", and the official SDKs."""

from __future__ import annotations

import re

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    address,
    check_body,
    check_count,
    check_headers,
    expect_field,
    expect_post,
    json_body,
)
from tests.support.esps.values import Fault, Mail, Mailbox, new_hex, new_uuid

KEY = "lp_0123456789abcdefghijklmnopqrstuvwxyz"
MOST = 50
NAME = re.compile(r"[A-Za-z0-9-]+")


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, "/v1/emails")
    expect_field(request, "authorization", f"Bearer {key}")
    expect_field(request, "accept", "application/json", 400)
    body = json_body(request)
    author = address(body.take("from"), "from")
    to, bcc = ([Mailbox(address(one, name)) for one in body.texts(name)] for name in ("to", "bcc"))
    everyone: dict[str, str] = {}
    for one in (*to, *bcc):
        everyone.setdefault(one.address.lower(), one.address)  # an address that stands twice gets one mail
    recipients = tuple(everyone.values())
    check_count(recipients, MOST)
    text, html = body.text("text"), body.text("html")
    check_body(text, html)
    headers = body.mapping("headers")
    if not all(NAME.fullmatch(name) for name in headers):
        raise Fault("field names have only letters, digits and hyphens", 422)
    reply_to = body.text("reply_to")
    mail = Mail(
        recipients=recipients,
        sender=author,
        to=tuple(to),
        bcc=tuple(bcc),
        reply_to=() if reply_to is None else (Mailbox(address(reply_to, "reply_to")),),
        subject=body.line("subject") or "",
        text=text,
        html=html,
        headers=check_headers(headers.items(), ("x-leadpush-send-id",)),
        ids={each: new_uuid() for each in recipients},
    )
    if not mail.subject:
        raise Fault("subject is missing", 422)
    body.finish()
    return mail


def accept(mail: Mail) -> Reply:
    """202 and an id for each recipient. Suppression is looked at later."""
    to = {one.address for one in mail.to}
    messages = [
        {
            "uuid": mail.ids[one],
            "recipient": one,
            "type": "to" if one in to else "bcc",
            "from": mail.sender,
            "status": "pending",
        }
        for one in mail.recipients
    ]
    return Reply(202, {"data": {"accepted": True, "message_count": len(messages), "messages": messages}})


def accept_as_before(mail: Mail) -> Reply:
    """The answer of the older documentation: one id for all."""
    data = {
        "send_group_id": new_hex(24),
        "to_count": len(mail.to),
        "bcc_count": len(mail.bcc),
        "total_recipient_count": len(mail.recipients),
    }
    return Reply(202, {"data": data})


def error(status: int, text: str) -> Reply:
    """Laravel's shapes: 422 names the fields."""
    if status in (400, 422):
        return Reply(422, {"message": text, "errors": {"to": [text]}})
    return Reply(status, {"message": {401: "unauthorized"}.get(status, text)})
