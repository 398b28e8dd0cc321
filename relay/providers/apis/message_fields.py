"""The header fields of a message that goes to an API as bytes, for APIs that read some of them in their own way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from email.errors import HeaderParseError
from email.header import decode_header, make_header

_END = re.compile(rb"(?:\A|\n)\r?\n")


def fields_of(content: bytes) -> Iterator[tuple[str, str]]:
    """Name in lower case and unfolded value of each top-level field. Bytes that aren't UTF-8 stand as surrogates."""
    end = _END.search(content)
    field = ""
    for line in (content if end is None else content[: end.start()]).split(b"\n"):
        text = line.removesuffix(b"\r").decode("utf-8", "surrogateescape")
        if text[:1] in (" ", "\t"):
            field += text
            continue
        if field:
            yield _parts(field)
        field = text
    if field:
        yield _parts(field)


def _parts(field: str) -> tuple[str, str]:
    name, _, value = field.partition(":")
    return name.strip(" \t").lower(), value.strip(" \t")


def decoded(value: str) -> str:
    """A field's value with its encoded words (RFC 2047) decoded; as it is where they can't be."""
    if "=?" not in value:
        return value
    try:
        return str(make_header(decode_header(value)))
    except (HeaderParseError, LookupError, ValueError):
        return value


def is_utf8(content: bytes) -> bool:
    """Whether the bytes can stand in a JSON string."""
    if content.isascii():
        return True
    try:
        content.decode()
    except UnicodeDecodeError:
        return False
    return True
