"""Set and remove header fields of a message, for the upstream that it goes out by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from relay.mail.header_text import without_folds
from relay.mail.message import Message, parse
from relay.providers.webhook import Field as TextField

FOLD_AT = 78
"""RFC 5322 2.1.1: the length that a line should have at most"""
Setting = tuple[str, str | None]
"""a field's name and its value; None removes the field"""


def with_fields(content: bytes, settings: Sequence[Setting]) -> bytes:
    """The content with each field set in the place of the first of its name, or behind all others. Of several fields of
    that name none but the new one stays. The same object where nothing changes."""
    for name, value in settings:
        content = _set(parse(content), name, value)
    return content


def with_field(message: Message, field: TextField) -> bytes:
    """The content with the field in the place of the first of its name, or behind all others; further ones of that name
    stay."""
    content, line = message.content, folded(field.name, field.value)
    same = [one for one in message.fields if one.name == field.name.lower()]
    start, end = (same[0].start, same[0].end) if same else (message.head_end, message.head_end)
    return b"".join((content[:start], line, content[end:]))


def taken_out(content: bytes, names: frozenset[str]) -> tuple[bytes, Mapping[str, tuple[str, ...]]]:
    """The content without the fields of these names (lower case), and the values that they had, unfolded."""
    message = parse(content)
    found: dict[str, tuple[str, ...]] = {}
    pieces, at = [], 0
    for field in message.fields:
        if field.name in names:
            found[field.name] = (*found.get(field.name, ()), without_folds(field.value).strip())
            pieces.append(content[at : field.start])
            at = field.end
    return (content, found) if not found else (b"".join([*pieces, content[at:]]), found)


def _set(message: Message, name: str, value: str | None) -> bytes:
    content = message.content
    same = [one for one in message.fields if one.name == name.lower()]
    if value is None and not same:
        return content
    line = b"" if value is None else folded(name, value)
    if not message.fields:
        # A message that begins with its body: a blank line divides them.
        return line + (content if content.startswith((b"\r\n", b"\n")) else b"\r\n" + content)
    if not same:
        return b"".join((content[: message.head_end], line, content[message.head_end :]))
    pieces, at = [content[: same[0].start], line], same[0].end
    for field in same[1:]:
        pieces.append(content[at : field.start])
        at = field.end
    return b"".join([*pieces, content[at:]])


def folded(name: str, value: str) -> bytes:
    """The field with its line end, folded at spaces where a line becomes too long."""
    lines, line = [], f"{name}:"
    for piece in value.split(" "):
        if len(line) + 1 + len(piece) > FOLD_AT and not line.endswith(":") and piece:
            lines.append(line)
            line = f" {piece}"
        else:
            line += f" {piece}"
    return "\r\n".join([*lines, line]).encode("utf-8", "surrogateescape") + b"\r\n"
