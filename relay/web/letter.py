"""The JSON document of `POST /api/send`: read, checked, and made a message. Each error names the field."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from relay.mail.compose import (
    Attachment,
    Mailbox,
    NotComposable,
    Parts,
    check_header_name,
    checked_body,
    checked_text,
    checked_type,
    compose,
    mailbox,
    shown,
)
from relay.web.paced_json import MAX_VALUES, BadJson, RepeatedKey, TooManyValues, read_json

CLIENT = "X-Relay-Client"
MAX_FILENAME_CHARS = 200
MAX_ATTACHMENTS = 100
MAX_HEADERS = 100
MAILBOXES_PER_PAUSE = 50
DECODED_AT_ONCE = 65_536
"""characters of base64 that are decoded in one go, which holds the interpreter's lock"""
_KNOWN = ("from", "to", "subject", "text", "html", "headers", "attachments", "lane")
_KNOWN_OF_ATTACHMENT = ("filename", "content", "content_type")


class Unreadable(Exception):
    """The body is no JSON."""


class TooMany(Exception):
    """There are more recipients than a message may have."""


class Letter(NamedTuple):
    """A message with its envelope, as a request describes it."""

    sender: str
    recipients: tuple[str, ...]
    content: bytes
    lane: str | None


def letter_of(body: bytes, client: str | None, most_recipients: int, pause: Callable[[], None]) -> Letter:
    """The message that a JSON document describes. `client`: the request's X-Relay-Client. `pause` is called every now
    and then. Raises Unreadable, NotComposable, TooMany."""
    document = _document(body, pause)
    _known(document, _KNOWN, "")
    author = mailbox("from", _required(document, "from"))
    to = _recipients(document, most_recipients, pause)
    headers = _headers(document)
    if client is not None and CLIENT.lower() not in map(str.lower, headers):
        headers[CLIENT] = checked_text(CLIENT, client)
    pause()
    text, html = _optional(document, "text"), _optional(document, "html")
    if text is None and html is None:
        raise NotComposable("text", "text or html is required")
    parts = Parts(
        author=author,
        recipients=to,
        subject=_checked(document, "subject", checked_text),
        text=_checked(document, "text", checked_body),
        html=_checked(document, "html", checked_body),
        headers=headers,
        attachments=tuple(_attachments(document, pause)),
    )
    pause()
    content = compose(parts, pause)
    return Letter(author.address, tuple(one.address for one in to), content, _optional(document, "lane"))


def distinct(mailboxes: list[Mailbox], most: int) -> tuple[Mailbox, ...]:
    """Each address once, whatever the case of its domain. Raises TooMany."""
    found: dict[str, Mailbox] = {}
    for one in mailboxes:
        local, _, domain = one.address.rpartition("@")
        found.setdefault(f"{local}@{domain.lower()}", one)
        if len(found) > most:
            raise TooMany
    return tuple(found.values())


def _document(body: bytes, pause: Callable[[], None]) -> dict[str, Any]:
    try:
        document = read_json(body, pause)
    except BadJson:
        raise Unreadable from None
    except RepeatedKey:
        raise NotComposable("the body", "an object has a key twice") from None
    except TooManyValues:
        raise NotComposable("the body", f"there are more than {MAX_VALUES} values") from None
    if not isinstance(document, dict):
        raise NotComposable("the body", f"expected a JSON object, got {_kind(document)}")
    return document


def _known(document: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in document:
        if key not in known:
            raise NotComposable(f"{place}{shown(key)}", f"unknown field; known are {', '.join(known)}")


def _required(document: dict[str, Any], key: str, place: str = "") -> str:
    value = _optional(document, key, place)
    if value is None:
        raise NotComposable(place + key, "this field is required")
    return value


def _optional(document: dict[str, Any], key: str, place: str = "") -> str | None:
    """null is as if the field weren't there."""
    value = document.get(key)
    if value is not None and not isinstance(value, str):
        raise NotComposable(place + key, f"expected a text, got {_kind(value)}")
    return value


def _checked(document: dict[str, Any], key: str, check: Callable[[str, str], str]) -> str | None:
    value = _optional(document, key)
    return None if value is None else check(key, value)


def _recipients(document: dict[str, Any], most: int, pause: Callable[[], None]) -> tuple[Mailbox, ...]:
    given = document.get("to")
    if isinstance(given, str):
        return (mailbox("to", given),)
    if not isinstance(given, list):
        got = "nothing" if given is None else _kind(given)
        raise NotComposable("to", f"expected an address or a list of addresses, got {got}")
    if not given:
        raise NotComposable("to", "expected at least one address")
    found: list[Mailbox] = []
    for number, one in enumerate(given):
        if not isinstance(one, str):
            raise NotComposable(f"to[{number}]", f"expected an address, got {_kind(one)}")
        found.append(mailbox(f"to[{number}]", one))
        if number % MAILBOXES_PER_PAUSE == MAILBOXES_PER_PAUSE - 1:
            pause()
    return distinct(found, most)


def _headers(document: dict[str, Any]) -> dict[str, str]:
    given = document.get("headers")
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise NotComposable("headers", f"expected an object of names and texts, got {_kind(given)}")
    if len(given) > MAX_HEADERS:
        raise NotComposable("headers", f"more than {MAX_HEADERS} header fields")
    headers: dict[str, str] = {}
    for name, value in given.items():
        field = f"headers.{shown(name)}"
        check_header_name(field, name)
        if name.lower() in map(str.lower, headers):
            raise NotComposable(field, "this name is given twice")
        if not isinstance(value, str):
            raise NotComposable(field, f"expected a text, got {_kind(value)}")
        headers[name] = checked_text(field, value)
    return headers


def _attachments(document: dict[str, Any], pause: Callable[[], None]) -> Iterator[Attachment]:
    given = document.get("attachments")
    if given is None:
        return
    if not isinstance(given, list):
        raise NotComposable("attachments", f"expected a list, got {_kind(given)}")
    if len(given) > MAX_ATTACHMENTS:
        raise NotComposable("attachments", f"more than {MAX_ATTACHMENTS} attachments")
    for number, one in enumerate(given):
        place = f"attachments[{number}]"
        if not isinstance(one, dict):
            raise NotComposable(place, f"expected an object, got {_kind(one)}")
        _known(one, _KNOWN_OF_ATTACHMENT, f"{place}.")
        filename = _required(one, "filename", f"{place}.")
        if not 0 < len(filename) <= MAX_FILENAME_CHARS:
            raise NotComposable(f"{place}.filename", f"expected 1 to {MAX_FILENAME_CHARS} characters")
        checked_text(f"{place}.filename", filename)
        kind = _optional(one, "content_type", f"{place}.")
        kind = "application/octet-stream" if kind is None else kind
        content = _decoded(f"{place}.content", _required(one, "content", f"{place}."), pause)
        yield Attachment(filename, content, checked_type(f"{place}.content_type", kind))


def _decoded(field: str, text: str, pause: Callable[[], None]) -> bytes:
    """The bytes of a text in base64 (RFC 4648 4), which may have line ends."""
    text = text.replace("\r", "").replace("\n", "")
    pieces = []
    try:
        for at in range(0, len(text), DECODED_AT_ONCE):
            piece = text[at : at + DECODED_AT_ONCE]
            pieces.append(binascii.a2b_base64(piece.encode("ascii"), strict_mode=True))
            # Padding ends the text.
            if piece.endswith("=") and at + DECODED_AT_ONCE < len(text):
                raise ValueError
            pause()
    except ValueError:
        raise NotComposable(field, "expected base64 with its padding") from None
    return b"".join(pieces)


def _kind(value: Any) -> str:
    match value:
        case bool():
            return "a boolean"
        case str():
            return "a text"
        case int() | float():
            return "a number"
        case list():
            return "a list"
        case None:
            return "null"
        case _:
            return "an object"
