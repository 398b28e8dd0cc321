"""Mails for the tests of Brevo, Mailjet, Postmark and SendGrid, and what their JSON APIs have in common."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from relay.providers.api import Answer, Api, ApiMail, Attachment, Call, Credentials, Mailbox, Rebuilt, Verdict
from relay.providers.webhook import Field

ANN, BEN, EVE = "ann@example.org", "Ben@example.net", "eve@example.com"
ALL = (ANN, BEN, EVE)
NOW = 1_772_366_405.0
KEY = "0f1e2d3c-token"
CALL = Call(Credentials(key=KEY), "api.example", "/proxy", NOW, "01JD8Z2W3X4Y5Z6A7B8C9DAEBF.1")
PDF = Attachment("Übersicht.pdf", "application/pdf", b"\x00\xff%PDF")
NAMES = ["Ann", "Ünal", 'Ann "the" Bee', "Bee, Ann", "back\\slash", "日本, 語", "O'Neil (home)"]

REBUILT = Rebuilt(
    author=Mailbox("otp@example.com", "Bank"),
    to=(Mailbox(ANN, "Ann"),),
    cc=(Mailbox(BEN),),
    reply_to=(),
    subject="Dein Code: 123456 – gültig",
    text="123456\nGrüße\n",
    html="<p>123456</p>",
    attachments=(),
    headers=(),
)
ALONE = REBUILT._replace(cc=())
LEAST = ALONE._replace(author=Mailbox("otp@example.com"), to=(Mailbox(ANN),), subject="Code", text="1\n", html=None)


def mail_of(
    rebuilt: Rebuilt = REBUILT, recipients: Sequence[str] = ALL, steering: Mapping[str, Sequence[str]] | None = None
) -> ApiMail:
    """A mail that the relay would give to an API."""
    fields = {name: tuple(values) for name, values in (steering or {}).items()}
    return ApiMail("01JD", "bounce@example.com", tuple(recipients), "otp@example.com", fields, b"", rebuilt)


def answer_of(status: int, body: object = None, headers: Mapping[str, str] | None = None) -> Answer:
    """A response; `body` is JSON unless it is bytes or None."""
    return Answer(status, headers or {}, body if isinstance(body, bytes | None) else json.dumps(body).encode())


def fields(**values: str) -> tuple[Field, ...]:
    """Header fields; `_` stands for a dash."""
    return tuple(Field(name.replace("_", "-"), value) for name, value in values.items())


def body_of(
    api: Api, mail: ApiMail, path: str, proof: tuple[str, str], *, call: Call = CALL, secret: str = KEY
) -> dict[str, Any]:
    """The body of the request, which has this path and proof, and `secret` in its header fields only."""
    assert api.why_not(mail) is None
    request = api.request(mail, call)
    assert request.path == path
    assert request.headers == (proof, ("Content-Type", "application/json"), ("Accept", "application/json"))
    assert secret.encode() not in request.body
    body = json.loads(request.body)
    assert isinstance(body, dict)
    return body


def judged_by(
    api: Api, status: int, body: object, mail: ApiMail | None = None, headers: Mapping[str, str] | None = None
) -> Verdict:
    return api.judge(answer_of(status, body, headers), mail or mail_of(), NOW)


def kinds(verdict: Verdict) -> list[str]:
    return [one.kind + (f" {one.status}" if one.status else "") for one in verdict.found]
