"""Postmark's send API: POST /email. Source: postmarkapp.com/developer, "Email API"."""

from __future__ import annotations

from tests.support.api_script import Reply, Request
from tests.support.esps.reading import (
    Fields,
    addresses,
    check_body,
    check_count,
    check_headers,
    expect_field,
    expect_post,
    from_base64,
    json_body,
    mailbox,
    mailboxes,
)
from tests.support.esps.values import Fault, File, Mail, Mailbox, new_uuid, one_id

KEY = "0f1e2d3c-4b5a-6978-8796-a5b4c3d2e1f0"
MOST = 50
MAX_BODY_BYTES = 5 << 20
OWN_FIELDS = ("x-pm-message-stream", "x-pm-tag", "x-pm-metadata-*", "x-pm-track*")
"""What the SMTP server reads from the header: the API has parameters for it."""
INACTIVE = "Inactive recipients are ones that have generated a hard bounce or a spam complaint."


def read(request: Request, *, key: str = KEY) -> Mail:
    """Raises Fault."""
    expect_post(request, "/email")
    expect_field(request, "x-postmark-server-token", key)
    expect_field(request, "accept", "application/json", 400)
    body = json_body(request)
    author = mailbox(body.need("From"), "From")
    to, cc, bcc = (_list(body, name) for name in ("To", "Cc", "Bcc"))
    recipients = addresses(to, cc, bcc)
    check_count(recipients, MOST)
    text, html = body.text("TextBody"), body.text("HtmlBody")
    check_body(text, html)
    if any(len((one or "").encode()) > MAX_BODY_BYTES for one in (text, html)):
        raise Fault("a body beyond 5 MB", 422)
    mail = Mail(
        recipients=recipients,
        sender=author.address,
        sender_name=author.name,
        to=to,
        cc=cc,
        bcc=bcc,
        reply_to=_list(body, "ReplyTo"),
        subject=body.line("Subject", empty=True) or "",
        text=text,
        html=html,
        headers=check_headers(_headers(body), OWN_FIELDS),
        attachments=tuple(_file(one) for one in body.objects("Attachments")),
        ids=one_id(recipients, new_uuid()),
        options=_options(body),
    )
    body.finish()
    return mail


def _list(body: Fields, name: str) -> tuple[Mailbox, ...]:
    value = body.text(name)
    return () if value is None else mailboxes(value, name)


def _headers(body: Fields) -> list[tuple[str, str]]:
    found = []
    for one in body.objects("Headers"):
        found.append((one.need("Name"), one.text("Value", empty=True) or ""))
        one.finish()
    return found


def _file(fields: Fields) -> File:
    found = File(fields.need("Name"), fields.need("ContentType"), from_base64(fields.take("Content"), "Content"))
    fields.text("ContentID")
    fields.finish()
    return found


def _options(body: Fields) -> dict[str, object]:
    metadata = body.mapping("Metadata")
    if len(metadata) > 10 or any(len(name) > 20 or len(value) > 80 for name, value in metadata.items()):
        raise Fault("Metadata: at most 10 pairs, names of 20 and values of 80 characters", 422)
    links = body.text("TrackLinks")
    if links not in (None, "None", "HtmlAndText", "HtmlOnly", "TextOnly"):
        raise Fault(f"TrackLinks {links}", 422)
    options: dict[str, object] = {
        "Tag": body.line("Tag"),
        "Metadata": metadata,
        "MessageStream": body.line("MessageStream"),
        "TrackOpens": body.flag("TrackOpens"),
        "TrackLinks": links,
    }
    return options


def accept(mail: Mail, message: str = "OK") -> Reply:
    to = {"To": ", ".join(one.address for one in mail.to)} if mail.to else {}
    return Reply(
        200,
        {
            **to,
            "SubmittedAt": "2026-11-29T12:00:00.1234567Z",
            "MessageID": mail.ids[mail.recipients[0]],
            "ErrorCode": 0,
            "Message": message,
        },
    )


def delayed(mail: Mail) -> Reply:
    """Accepted all the same."""
    return accept(mail, "Message accepted, but delivery may be delayed.")


def inactive(mail: Mail, *dead: str) -> Reply:
    """Some recipients had a hard bounce before: 200 while others get the mail, 422 with code 406 if none does."""
    listed = ", ".join(one.lower() for one in dead)
    if {one.lower() for one in dead} >= {one.lower() for one in mail.recipients}:
        return error(
            422,
            "You tried to send to recipient(s) that have been marked as inactive. "
            f"Found inactive addresses: {listed}. {INACTIVE}",
            406,
        )
    return accept(mail, f"Message OK, but will not deliver to these inactive addresses: {listed}. {INACTIVE}")


def error(status: int, text: str, code: int | None = None) -> Reply:
    """`code`: Postmark's own: 10 the token, 300 the mail, 400 and 401 the sender, 405 no credits, 406, 412, 413,
    100 maintenance."""
    if code is None:
        code = {401: 10, 429: 429, 503: 100}.get(status, 300)
    return Reply(422 if status == 400 else status, {"ErrorCode": code, "Message": text})
