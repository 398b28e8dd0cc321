"""Reading what an ESP posts: JSON, forms, and single values of the expected type. Nothing here raises.

A value of another type than the expected one is None. Whatever is kept is printable, of one line and bounded, so it
may be stored and logged as it is.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Literal, TypeVar
from urllib.parse import parse_qsl

from relay.providers.webhook import Posted, Refused

MAX_EVENTS = 25_000
"""in one request; SendGrid posts at most 768 kB, which is some 2,000"""
_MAX_FIELDS = 1_000
_MAX_PART_HEAD = 2_000
_MAX_RECIPIENT = 320  # RFC 3696 3: 64 for the local part, 255 for the domain, and @
_MAX_REASON = 500
_MAX_ID = 200
_INT_DIGITS = 20
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\xa0\u2028\u2029\ud800-\udfff]+")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d)(?:\.(\d{1,6})\d{0,12})?\s?([Zz]|[+-]\d\d:?\d\d)?", re.ASCII
)
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,12})?", re.ASCII)
Fields = list[tuple[str, str]]
_Value = TypeVar("_Value")


class Unreadable:
    """What isn't JSON."""


UNREADABLE = Unreadable()


def _number(digits: str) -> int | str:
    """An integer; one of more digits than any ESP has stays text: Python refuses to read some of them."""
    return int(digits) if len(digits) <= _INT_DIGITS else digits


def read_json(text: bytes | str) -> object:
    """The value of a JSON text, or `UNREADABLE`. NaN and infinities are None; of duplicate keys the last counts."""
    try:
        if isinstance(text, bytes):
            text = text.decode("utf-8-sig")
        return json.loads(text, parse_int=_number, parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return UNREADABLE


def unreadable(esp: str) -> Refused:
    """The refusal of a body that is proved and isn't what the ESP posts."""
    return Refused(400, f"the request is proved, but its body isn't what {esp} posts")


def events_of(value: object) -> list[object] | None:
    """The events of a body that holds one, or a list of them. None: neither, or too many."""
    if isinstance(value, dict):
        return [value]
    return value if isinstance(value, list) and len(value) <= MAX_EVENTS else None


def read_form(posted: Posted) -> Fields | None:
    """The fields of a form, urlencoded or multipart, in their order. None: it is no form, or has too many fields.

    Bytes that aren't UTF-8 stand as surrogates.
    """
    content_type = posted.headers.get("content-type", "")
    try:
        if content_type.lower().startswith("multipart/form-data"):
            return _multipart(content_type, posted.body)
        text = posted.body.decode("ascii", "surrogateescape")
        return parse_qsl(text, keep_blank_values=True, errors="surrogateescape", max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None


def _multipart(content_type: str, body: bytes) -> Fields | None:
    """The fields of a multipart form (RFC 7578). Files are left out."""
    boundary = re.search(r'boundary="?([^";,\s]{1,70})', content_type)
    if boundary is None:
        return None
    parts = body.split(b"--" + boundary[1].encode("utf-8", "surrogateescape"), _MAX_FIELDS)
    fields: Fields = []
    for part in parts[1:]:
        head, gap, content = part.partition(b"\r\n\r\n")
        name = re.search(rb'\bname="([^"\r\n]{0,200})"', head[:_MAX_PART_HEAD])
        if gap and name is not None and b"filename=" not in head:
            content = content.removesuffix(b"\r\n")
            fields.append((name[1].decode("utf-8", "surrogateescape"), content.decode("utf-8", "surrogateescape")))
    return fields


def dig(value: object, *path: str | int) -> object:
    """The value that stands under these keys and places, or None."""
    for step in path:
        if isinstance(step, str) and isinstance(value, dict):
            value = value.get(step)
        elif isinstance(step, int) and isinstance(value, list) and -len(value) <= step < len(value):
            value = value[step]
        else:
            return None
    return value


def items(value: object) -> Iterator[object]:
    """The elements of a list; none of anything else."""
    if isinstance(value, list):
        yield from value


def first(values: Iterable[_Value | None]) -> _Value | None:
    """The first value that is known."""
    return next((value for value in values if value is not None), None)


def line(value: object, limit: int = _MAX_REASON) -> str | None:
    """A text as one line of at most `limit` characters. None: it is no text, or empty."""
    if not isinstance(value, str):
        return None
    # Cut first: the rest of a long text isn't worth a look.
    text = _UNPRINTABLE.sub(" ", value[: 4 * limit]).strip()
    return text[:limit].rstrip() or None


def reason(*values: object) -> str | None:
    """The first of the values that says something, as one line of at most 500 characters."""
    return first(line(value) for value in values)


def identifier(value: object) -> str | None:
    """An id, of at most 200 characters. A number is its digits. None: it is neither."""
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    return line(value, _MAX_ID)


def address(value: object) -> str | None:
    """A recipient's address, also out of `Name <address>`. None: it is none, or longer than 320 characters."""
    if not isinstance(value, str) or len(value) > 4 * _MAX_RECIPIENT:
        return None
    text = value.strip()
    if text.endswith(">") and "<" in text:
        text = text[text.rindex("<") + 1 : -1].strip()
    if len(text) > _MAX_RECIPIENT or "@" not in text or _UNPRINTABLE.search(text) is not None:
        return None
    return text if _quoted(text) or not set(text) & set(' <>,;"') else None


def _quoted(text: str) -> bool:
    """Whether the local part is a quoted string (RFC 5321 4.1.2), which may have any character in it."""
    return text.startswith('"') and '"@' in text


def first_address(value: object) -> str | None:
    """The address of a header such as To, where it has only one."""
    text = line(value, 2_000)
    if text is None:
        return None
    parts = [part for part in text.split(",") if "@" in part]  # a name may have a comma in it
    return address(text) or (address(parts[0]) if len(parts) == 1 else None)


def message_id(value: object) -> str | None:
    """A Message-ID with its angle brackets, whether the ESP leaves them out or not."""
    text = identifier(value)
    if text is None or " " in text or "@" not in text:
        return None
    return f"<{text.strip('<>')}>"


def seconds(value: object) -> float | None:
    """A time as seconds since the epoch, out of a number or its digits. Milliseconds are known by their size."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        return None
    number = float(value) / 1_000 if value >= 1e11 else float(value)
    return number if number < 1e11 else None


def moment(value: object) -> float | None:
    """A time as seconds since the epoch, out of RFC 3339 with any number of digits, or a number. No zone: UTC."""
    if not isinstance(value, str) or (parts := _RFC3339.fullmatch(value.strip()[:64])) is None:
        return seconds(value)
    date, clock, fraction, zone = parts.groups()
    zone = "+00:00" if zone is None or zone in "Zz" else zone
    try:
        when = datetime.fromisoformat(f"{date}T{clock}.{(fraction or '0').ljust(6, '0')}{zone}")
        return when.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        return None


def header(headers: object, name: str) -> str | None:
    """The value of a message's header field, as ESPs give it back: a list of names and values, or an object."""
    if isinstance(headers, Mapping):
        headers = [{"name": key, "value": value} for key, value in headers.items()]
    for field in items(headers):
        key, value = dig(field, "name"), dig(field, "value")
        if isinstance(key, str) and key.lower() == name and isinstance(value, str):
            return value
    return None


Truth = Literal[True, False, None]


def truth(value: object) -> Truth:
    """A JSON truth value, also as text or number."""
    if value in (True, 1, "1", "true", "True"):
        return True
    return False if value in (False, 0, "0", "false", "False") else None
