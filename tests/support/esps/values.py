"""What the ESPs' mocks have in common: a mail as an ESP understood it, and ids."""

from __future__ import annotations

import email
import email.policy
import itertools
import secrets
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.utils import getaddresses
from typing import Any, NamedTuple

from tests.support.api_script import Header


class Fault(Exception):
    """The request isn't what the vendor's documentation asks for."""

    def __init__(self, text: str, status: int = 400) -> None:
        """`status`: what the vendor answers with."""
        super().__init__(text)
        self.status = status


class Mailbox(NamedTuple):
    address: str
    name: str = ""


class File(NamedTuple):
    """An attachment."""

    filename: str
    content_type: str
    data: bytes
    """decoded"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mail:
    """A mail as the ESP understood it."""

    recipients: tuple[str, ...]
    """of the envelope: all to whom it goes"""
    sender: str
    """the address in From"""
    subject: str = ""
    text: str | None = None
    html: str | None = None
    headers: tuple[Header, ...] = ()
    """JSON APIs: the fields asked for; raw ones: those of the message"""
    attachments: tuple[File, ...] = ()
    raw: bytes | None = None
    """the message, where the API takes one"""
    idempotency_key: str | None = None
    ids: Mapping[str, str] = field(default_factory=dict)
    """recipient to the id that the vendor's answer states for its mail; empty where it states none"""
    sender_name: str = ""
    to: tuple[Mailbox, ...] = ()
    cc: tuple[Mailbox, ...] = ()
    bcc: tuple[Mailbox, ...] = ()
    reply_to: tuple[Mailbox, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    """the vendor's other parameters, by their names: tags, metadata, stream, tracking, ..."""

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


def read_raw(raw: bytes, recipients: Sequence[str], *, ids: Mapping[str, str] | None = None, **more: Any) -> Mail:
    """A mail whose message the API takes as bytes."""
    message = email.message_from_bytes(raw, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    if not message.keys() or message.defects:
        raise Fault(f"no message: {message.defects or 'without header'}")
    if not message["From"]:
        raise Fault("a message without From")
    author = getaddresses([str(message["From"])])[0]
    parts = {kind: message.get_body((kind,)) for kind in ("plain", "html")}
    return Mail(
        recipients=tuple(recipients),
        sender=author[1],
        sender_name=author[0],
        subject=str(message["Subject"] or ""),
        text=str(parts["plain"].get_content()) if parts["plain"] is not None else None,
        html=str(parts["html"].get_content()) if parts["html"] is not None else None,
        headers=tuple((name, str(value)) for name, value in message.items()),
        attachments=tuple(
            File(part.get_filename() or "", part.get_content_type(), bytes(part.get_payload(decode=True) or b""))
            for part in message.iter_attachments()
        ),
        raw=raw,
        ids=ids or {},
        **more,
    )


def one_id(recipients: Iterable[str], identifier: str) -> dict[str, str]:
    """The same for each."""
    return dict.fromkeys(recipients, identifier)


def new_uuid() -> str:
    return str(uuid.uuid4())


def new_hex(digits: int) -> str:
    return secrets.token_hex(digits // 2)


_counter = itertools.count(1)


def new_number() -> int:
    """Past what a double holds exactly, as Mailjet's ids are."""
    return (1 << 56) + next(_counter)
