"""Requests as each vendor documents them, made by hand: a mail from shop@example.com to Ann, and to Bob as Bcc."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

from botocore.auth import SigV4Auth  # type: ignore[import-untyped,unused-ignore]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped,unused-ignore]
from botocore.credentials import Credentials  # type: ignore[import-untyped,unused-ignore]

from tests.support.api_script import Request
from tests.support.esps import (
    brevo,
    graph,
    leadpush,
    mailgun,
    mailjet,
    mandrill,
    postmark,
    resend,
    scaleway,
    sendgrid,
    ses,
    sparkpost,
)

RAW = (
    b"From: Shop <shop@example.com>\r\nTo: Ann <ann@example.net>\r\nSubject: 123456 is your code\r\n"
    b"Message-ID: <1@example.com>\r\n\r\nYour code: 123456\r\n"
)
TEXT = RAW.decode()
HEADERS = {"X-Ref": "1"}
SUBJECT, BODY = "123456 is your code", "Your code: 123456\n"
FILE = base64.b64encode(b"%PDF").decode()


def request(path: str, body: bytes, **fields: str) -> Request:
    headers = [("host", "localhost:1"), ("content-length", str(len(body))), ("user-agent", "test")]
    headers += [(name.replace("_", "-"), value) for name, value in fields.items()]
    return Request("POST", path, headers, body, 0, 0.0, 0.0)


def as_json(path: str, value: object, **fields: str) -> Request:
    return request(path, json.dumps(value).encode(), content_type="application/json", **fields)


Body = dict[str, Any]
BODIES: dict[str, Body] = {
    "postmark": {
        "From": '"Shop, Inc." <shop@example.com>',
        "To": "Ann <ann@example.net>",
        "Bcc": "bob@example.net",
        "Subject": SUBJECT,
        "TextBody": BODY,
        "Headers": [{"Name": "X-Ref", "Value": "1"}],
        "Attachments": [{"Name": "a.pdf", "Content": FILE, "ContentType": "application/pdf"}],
        "Metadata": {"id": "1"},
        "MessageStream": "codes",
        "TrackOpens": False,
        "TrackLinks": "None",
    },
    "sendgrid": {
        "personalizations": [
            {"to": [{"email": "ann@example.net", "name": "Ann"}], "bcc": [{"email": "bob@example.net"}]}
        ],
        "from": {"email": "shop@example.com", "name": "Shop, Inc."},
        "subject": SUBJECT,
        "content": [{"type": "text/plain", "value": BODY}],
        "headers": HEADERS,
        "attachments": [{"content": FILE, "type": "application/pdf", "filename": "a.pdf"}],
        "custom_args": {"id": "1"},
        "tracking_settings": {"click_tracking": {"enable": False}},
    },
    "resend": {
        "from": '"Shop, Inc." <shop@example.com>',
        "to": ["Ann <ann@example.net>"],
        "bcc": "bob@example.net",
        "subject": SUBJECT,
        "text": BODY,
        "headers": HEADERS,
        "attachments": [{"filename": "a.pdf", "content": FILE}],
        "tags": [{"name": "id", "value": "1"}],
    },
    "brevo": {
        "sender": {"email": "shop@example.com", "name": "Shop, Inc."},
        "to": [{"email": "ann@example.net", "name": "Ann"}],
        "bcc": [{"email": "bob@example.net"}],
        "subject": SUBJECT,
        "textContent": BODY,
        "headers": {**HEADERS, "idempotencyKey": "4b9c7f3e-0d5b-4c8e-9f5a-0a1b2c3d4e5f"},
        "attachment": [{"name": "a.pdf", "content": FILE}],
    },
    "mailjet": {
        "Messages": [
            {
                "From": {"Email": "shop@example.com", "Name": "Shop, Inc."},
                "To": [{"Email": "ann@example.net", "Name": "Ann"}],
                "Bcc": [{"Email": "bob@example.net"}],
                "Subject": SUBJECT,
                "TextPart": BODY,
                "Headers": HEADERS,
                "Attachments": [{"ContentType": "application/pdf", "Filename": "a.pdf", "Base64Content": FILE}],
                "CustomID": "1",
            }
        ]
    },
    "scaleway": {
        "project_id": "01234567-89ab-cdef-0123-456789abcdef",
        "from": {"email": "shop@example.com", "name": "Shop, Inc."},
        "to": [{"email": "ann@example.net", "name": "Ann"}],
        "bcc": [{"email": "bob@example.net"}],
        "subject": SUBJECT,
        "text": BODY,
        "additional_headers": [{"key": "X-Ref", "value": "1"}],
        "attachments": [{"name": "a.pdf", "type": "application/pdf", "content": FILE}],
    },
    "leadpush": {
        "from": "shop@example.com",
        "to": ["ann@example.net"],
        "bcc": ["bob@example.net", "ANN@example.net"],
        "subject": SUBJECT,
        "text": BODY,
        "headers": HEADERS,
    },
    "sparkpost": {
        "options": {"transactional": True, "perform_substitutions": False},
        "recipients": [{"address": {"email": "ann@example.net"}}, {"address": {"email": "bob@example.net"}}],
        "content": {"email_rfc822": TEXT},
    },
    "mandrill": {
        "key": mandrill.KEY,
        "raw_message": TEXT,
        "from_email": "shop@example.com",
        "to": ["ann@example.net", "bob@example.net"],
        "async": False,
    },
    "ses": {
        "Content": {"Raw": {"Data": base64.b64encode(RAW).decode()}},
        "Destination": {"ToAddresses": ["ann@example.net", "bob@example.net"]},
        "EmailTags": [{"Name": "id", "Value": "1"}],
    },
}
HEADS: dict[str, tuple[str, dict[str, str]]] = {
    "postmark": ("/email", {"x_postmark_server_token": postmark.KEY, "accept": "application/json"}),
    "sendgrid": ("/v3/mail/send", {"authorization": f"Bearer {sendgrid.KEY}"}),
    "resend": ("/emails", {"authorization": f"Bearer {resend.KEY}", "idempotency_key": "one"}),
    "brevo": ("/v3/smtp/email", {"api_key": brevo.KEY}),
    "mailjet": ("/v3.1/send", {"authorization": "Basic " + base64.b64encode(mailjet.KEY.encode()).decode()}),
    "scaleway": (scaleway.PATH, {"x_auth_token": scaleway.KEY}),
    "leadpush": ("/v1/emails", {"authorization": f"Bearer {leadpush.KEY}", "accept": "application/json"}),
    "sparkpost": ("/api/v1/transmissions", {"authorization": sparkpost.KEY}),
    "mandrill": ("/api/1.0/messages/send-raw.json", {}),
}


def form(*parts: tuple[str, str | bytes]) -> Request:
    """A request to Mailgun; bytes are a file."""
    body = b""
    for name, value in parts:
        filename = '; filename="message.eml"' if isinstance(value, bytes) else ""
        head = f'--b-1\r\nContent-Disposition: form-data; name="{name}"{filename}\r\n\r\n'
        body += head.encode() + (value if isinstance(value, bytes) else value.encode()) + b"\r\n"
    key = base64.b64encode(f"api:{mailgun.KEY}".encode()).decode()
    fields = {"authorization": f"Basic {key}", "content_type": "multipart/form-data; boundary=b-1"}
    return request("/v3/mg.example.com/messages.mime", body + b"--b-1--\r\n", **fields)


def signed(body: Body, path: str = ses.PATH) -> Request:
    """A request to SES, signed by botocore as of now."""
    access_key_id, secret, region = ses.KEY.split(" ")
    data = json.dumps(body).encode()
    aws = AWSRequest("POST", f"http://localhost:1{path}", {"content-type": "application/json"}, data)
    SigV4Auth(Credentials(access_key_id, secret), "ses", region).add_auth(aws)
    date, authorization = aws.headers["X-Amz-Date"], aws.headers["Authorization"]
    fields = {"content_type": "application/json", "x_amz_date": date, "authorization": authorization}
    return request(path, data, **fields)


def good(name: str, change: Callable[[Body], object] = lambda _: None) -> Request:
    """What the vendor takes, its body changed."""
    if name == "mailgun":
        return form(("to", "ann@example.net, bob@example.net"), ("message", RAW), ("o:tracking", "no"), ("v:id", "1"))
    if name == "graph":
        raw = base64.b64encode(RAW.replace(b"\r\nSubject", b"\r\nBcc: bob@example.net\r\nSubject"))
        fields = {"authorization": f"Bearer {graph.KEY}", "content_type": "text/plain"}
        return request("/v1.0/users/shop@example.com/sendMail", raw, **fields)
    body = json.loads(json.dumps(BODIES[name]))
    change(body)
    if name == "ses":
        return signed(body)
    path, fields = HEADS[name]
    return as_json(path, body, **fields)


def put(*path: str | int, to: object) -> Callable[[Body], None]:
    """Sets one value inside of a body."""

    def change(body: Any) -> None:
        for one in path[:-1]:
            body = body[one]
        body[path[-1]] = to

    return change
