"""Strict mocks of the ESPs' send APIs, each read off its vendor's documentation and independent of the relay.

async with ApiServer(esp := Esp("resend")) as server:
    ...
    assert esp.mails[0].recipients == ("ann@example.net",)
    assert esp.faults == server.faults == []

A module has `KEY`, `read(request, key=KEY)`, which raises Fault, `accept(mail)`, `error(status, text)`, and a function
for each of the vendor's traps: `Esp("mandrill", answer=mandrill.queued)`.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Protocol

from tests.support.api_script import Action, Reply, Request
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
from tests.support.esps.values import Fault, File, Mail, Mailbox

__all__ = [
    "VENDORS", "Esp", "Fault", "File", "Mail", "Mailbox", "brevo", "graph", "leadpush", "mailgun", "mailjet",
    "mandrill", "postmark", "resend", "scaleway", "sendgrid", "ses", "sparkpost",
]  # fmt: skip


class Vendor(Protocol):
    """What each module has."""

    KEY: str

    def read(self, request: Request, *, key: str) -> Mail: ...
    def accept(self, mail: Mail) -> Reply: ...
    def error(self, status: int, text: str) -> Reply: ...


class Repeat(Protocol):
    """The answer to an idempotency key that is known. `same`: the body is the first one's too."""

    def __call__(self, first: Reply, *, same: bool) -> Reply: ...


Answer = Callable[[Mail], Reply | Action]
VENDORS: dict[str, Vendor] = {
    "brevo": brevo,
    "graph": graph,
    "leadpush": leadpush,
    "mailgun": mailgun,
    "mailjet": mailjet,
    "mandrill": mandrill,
    "postmark": postmark,
    "resend": resend,
    "scaleway": scaleway,
    "sendgrid": sendgrid,
    "ses": ses,
    "sparkpost": sparkpost,
}
REPEATS: dict[str, Repeat] = {"brevo": brevo.repeat, "resend": resend.repeat}


class Esp:
    """An ESP that answers as documented: give it to an ApiServer as what responds."""

    def __init__(self, name: str, *, key: str | None = None, prefix: str = "", answer: Answer | None = None) -> None:
        """`prefix`: path before the vendor's own. `answer`: instead of the module's `accept`."""
        self.vendor = VENDORS[name]
        self.key = self.vendor.KEY if key is None else key
        self.prefix = prefix
        self.answer: Answer = answer or self.vendor.accept
        self.mails: list[Mail] = []
        """taken: answered with 2xx, each once however often it was repeated"""
        self.refused: list[Mail] = []
        """read without a fault, but not answered with 2xx"""
        self.repeats: list[Mail] = []
        """came with an idempotency key that was known"""
        self.faults: list[str] = []
        self._name = name
        self._known: dict[str, tuple[bytes, Reply]] = {}

    def __call__(self, request: Request) -> Reply | Action:
        try:
            mail = self._read(request)
        except Fault as exc:
            self.faults.append(str(exc))
            return self.vendor.error(exc.status, str(exc))
        key = mail.idempotency_key
        if key is not None and key in self._known:
            return self._again(mail, key, request.body)
        reply = self.answer(mail)
        if not isinstance(reply, Reply) or not 200 <= reply.status < 300:
            self.refused.append(mail)
            return reply
        self.mails.append(mail)
        if key is not None:
            self._known[key] = (request.body, reply)
        return reply

    def _again(self, mail: Mail, key: str, body: bytes) -> Reply:
        first, reply = self._known[key]
        self.repeats.append(mail)
        if body != first:
            self.faults.append("an idempotency key with another body than the first")
        return REPEATS[self._name](reply, same=body == first)

    def _read(self, request: Request) -> Mail:
        if not request.path.startswith(self.prefix):
            raise Fault(f"the path {request.path} without {self.prefix}", 404)
        request = dataclasses.replace(request, path=request.path.removeprefix(self.prefix))
        if self._name == "ses":
            return ses.read(request, key=self.key, now=time.time())
        return self.vendor.read(request, key=self.key)
