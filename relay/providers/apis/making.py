"""What requests to HTTP APIs have in common: JSON bodies, addresses, header fields."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Iterator
from email.header import Header

from relay.providers.api import ApiRequest, Mailbox, Rebuilt
from relay.providers.webhook import Field

_MAX_WORD = 75
"""characters in an encoded word (RFC 2047 2)"""


def json_request(path: str, body: object, *fields: tuple[str, str]) -> ApiRequest:
    """A request whose body is JSON. `fields`: its header fields, but for those about JSON."""
    headers = (*fields, ("Content-Type", "application/json"), ("Accept", "application/json"))
    return ApiRequest(path, headers, json.dumps(body, ensure_ascii=False).encode())


def is_json_text(value: object) -> bool:
    """Whether a value can be written as JSON in UTF-8: escapes in JSON may make a half of a character."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def base64_of(data: bytes) -> str:
    """Data as a JSON string holds it."""
    return b64encode(data).decode()


def as_object(one: Mailbox) -> dict[str, str]:
    """`{"email", "name"}`; without a name the address alone."""
    return {"email": one.address, "name": one.name} if one.name else {"email": one.address}


def quoted(one: Mailbox) -> str:
    """`"Name" <address>`. The name is always quoted: its punctuation would divide a list."""
    name = one.name.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{name}" <{one.address}>' if name else one.address


def encoded(value: str) -> str:
    """A header field's value in ASCII, in encoded words (RFC 2047) where it isn't."""
    return value if value.isascii() else Header(value, "utf-8", _MAX_WORD).encode().replace("\n", "")


def without_message_id(rebuilt: Rebuilt) -> Iterator[Field]:
    """The message's other header fields, for an API that writes a Message-ID of its own."""
    return (field for field in rebuilt.headers if field.name.lower() != "message-id")
