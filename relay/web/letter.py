"""The JSON document of `POST /api/send`: read, checked, and made a message. Each error names the field."""

from __future__ import annotations

import binascii
from collections.abc import Callable, Iterator
from json.decoder import JSONArray, JSONDecoder, JSONObject  # type: ignore[attr-defined]
from json.scanner import py_make_scanner  # type: ignore[attr-defined]
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
)

CLIENT = "X-Relay-Client"
MAX_FILENAME_CHARS = 200
MAX_ATTACHMENTS = 100
MAX_HEADERS = 100
MAX_VALUES = 20_000
"""of a document"""
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
    document = _document(body)
    _known(document, _KNOWN, "")
    author = mailbox("from", _required(document, "from"))
    to = _recipients(document, most_recipients)
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


def _document(body: bytes) -> dict[str, Any]:
    try:
        document = _decoded_json(body.decode())
    except (ValueError, RecursionError):
        raise Unreadable from None
    if not isinstance(document, dict):
        raise NotComposable("the body", f"expected a JSON object, got {_kind(document)}")
    return document


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """RFC 8259 4: of a repeated key, each program sees another value."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotComposable("the body", "an object has a key twice")
    return found


def _refuse_constant(_: str) -> Any:
    raise ValueError("NaN and Infinity are no JSON")


def _decoded_json(text: str) -> Any:
    """By the library's scanner in Python, which lets other threads run: the one in C holds the interpreter's lock to
    the end. Raises ValueError, RecursionError; NotComposable where there are too many values."""
    left = MAX_VALUES

    def counted(scan: Callable[[str, int], Any]) -> Callable[[str, int], Any]:
        def scan_one(text: str, at: int) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise NotComposable("the body", f"there are more than {MAX_VALUES} values")
            return scan(text, at)

        return scan_one

    decoder: Any = JSONDecoder(object_pairs_hook=_without_repeated_keys, parse_constant=_refuse_constant)
    decoder.parse_array = lambda at, scan, *more: JSONArray(at, counted(scan), *more)
    decoder.parse_object = lambda at, strict, scan, *more: JSONObject(at, strict, counted(scan), *more)
    decoder.scan_once = py_make_scanner(decoder)
    return decoder.decode(text)


def _known(document: dict[str, Any], known: tuple[str, ...], place: str) -> None:
    for key in document:
        if key not in known:
            raise NotComposable(f"{place}{_shown(key)}", f"unknown field; known are {', '.join(known)}")


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


def _recipients(document: dict[str, Any], most: int) -> tuple[Mailbox, ...]:
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
        field = f"headers.{_shown(name)}"
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
        filename = checked_text(f"{place}.filename", _required(one, "filename", f"{place}."))
        if not 0 < len(filename) <= MAX_FILENAME_CHARS:
            raise NotComposable(f"{place}.filename", f"expected 1 to {MAX_FILENAME_CHARS} characters")
        kind = _optional(one, "content_type", f"{place}.") or "application/octet-stream"
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


def _shown(key: str) -> str:
    """A key as an error shows it: what isn't a plain word may be anything, a code among it."""
    return key if len(key) <= 40 and key.isascii() and key.replace("-", "").replace("_", "").isalpha() else "?"
