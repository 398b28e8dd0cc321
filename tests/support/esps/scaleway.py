"""Scaleway TEM's send API: POST /transactional-email/v1alpha1/regions/fr-par/emails. Source:
scaleway.com/en/developers, "Transactional Email API", and the official SDK."""

from __future__ import annotations

import uuid

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
from tests.support.esps.values import Fault, File, Mail, new_uuid

PATH = "/transactional-email/v1alpha1/regions/fr-par/emails"
KEY = "01234567-89ab-cdef-0123-456789abcdef"
MOST = 10
MAX_BYTES = 2 << 20
SHORTEST = 10
"""characters of subject, text and html"""


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, PATH)
    expect_field(request, "x-auth-token", key)
    if len(request.body) > MAX_BYTES:
        raise Fault("a mail beyond 2 MB")
    body = json_body(request)
    author = address_object(body.need_nested("from"))
    to, cc, bcc = address_objects(body, ("to", "cc", "bcc"))
    recipients = addresses(to, cc, bcc)
    check_count(recipients, MOST)
    subject, text, html = body.line("subject") or "", body.text("text"), body.text("html")
    check_body(text, html)
    for name, value in (("subject", subject), ("text", text), ("html", html)):
        if value is not None and len(value) < SHORTEST:
            raise Fault(f"{name} has fewer than {SHORTEST} characters")
    project_id = body.need("project_id")
    try:
        uuid.UUID(project_id)
    except ValueError as exc:
        raise Fault("project_id is no UUID") from exc
    mail = Mail(
        recipients=recipients,
        sender=author.address,
        sender_name=author.name,
        to=to,
        cc=cc,
        bcc=bcc,
        subject=subject,
        text=text,
        html=html,
        headers=check_headers(_headers(body), allowed=frozenset({"reply-to"})),
        attachments=tuple(_file(one) for one in body.objects("attachments")),
        ids={one: new_uuid() for one in recipients},
        options={"project_id": project_id},
    )
    body.finish()
    return mail


def _headers(body: Fields) -> list[Header]:
    found = []
    for one in body.objects("additional_headers"):
        found.append((one.need("key"), one.need("value")))
        one.finish()
    return found


def _file(fields: Fields) -> File:
    found = File(fields.need("name"), fields.need("type"), from_base64(fields.take("content"), "content"))
    fields.finish()
    return found


def accept(mail: Mail) -> Reply:
    """A state for each recipient. Blocked ones look the same, and fail later."""
    return Reply(200, {"emails": [_state(mail, one) for one in mail.recipients]})


def _state(mail: Mail, recipient: str) -> dict[str, object]:
    kinds = {one.address: kind for kind, boxes in (("to", mail.to), ("cc", mail.cc)) for one in boxes}
    return {
        "id": mail.ids[recipient],
        "message_id": f"<{mail.ids[recipient]}@tem.scaleway.com>",
        "project_id": mail.options["project_id"],
        "mail_from": mail.sender,
        "mail_rcpt": recipient,
        "rcpt_type": kinds.get(recipient, "bcc"),
        "subject": mail.subject,
        "created_at": "2026-11-29T12:00:00.123456Z",
        "updated_at": "2026-11-29T12:00:00.123456Z",
        "status": "new",
        "status_details": None,
        "try_count": 0,
        "last_tries": [],
        "flags": [],
    }


def error(status: int, text: str) -> Reply:
    if status in (401, 403):
        return Reply(status, {"message": "authentication is denied", "type": "denied_authentication"})
    if status == 429:
        return Reply(429, {"message": "quota exceeded for this resource", "type": "quotas_exceeded"})
    details = [{"argument_name": "email", "help_message": text, "reason": "constraint"}]
    return Reply(status, {"details": details, "message": "invalid argument(s)", "type": "invalid_arguments"})
