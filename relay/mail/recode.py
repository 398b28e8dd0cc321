"""Re-encode a message for a server without 8BITMIME or SMTPUTF8 (RFC 2045 6, RFC 6152 3).

Only the parts with 8-bit bytes or over-long lines change, and their header fields. A part with somebody else's
signature never changes, since the signature would break: it goes as it is, or not at all.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from relay.mail.header_ascii import Unencodable, ascii_value
from relay.mail.header_text import charset_of, decoded
from relay.mail.message import Field, Message, first, over_long_line, parse
from relay.mail.mime import content_type, find_fence

__all__ = ["Form", "Unencodable", "has_utf8_head", "recoded"]

Form = Literal["as it is", "ASCII head", "7bit"]
"""What a server accepts: 8BITMIME and raw UTF-8 in header fields; 8BITMIME; ASCII only"""

MAX_DEPTH = 20
MAX_PARTS = 1_000
"""parts of all levels together; a message with more is left alone"""
SLICE_BYTES = 262_144
"""a large body is encoded in pieces of about this size: each step holds the interpreter's lock"""
_SIGNATURES = frozenset({"dkim-signature", "domainkey-signature", "arc-message-signature", "arc-seal"})
_NOT_BASE64 = re.compile(rb"[^A-Za-z0-9+/=\s]")
_LINE_END = re.compile(rb"\n")
_NOT_IN_QP = re.compile(rb"[^=]{2}|\n")
"""a place outside of an encoded byte"""


def recoded(content: bytes, form: Form) -> bytes:
    """`content` (CRLF-ended) in that form, with over-long lines of bodies re-encoded where possible. The same object
    where nothing changes. Raises Unencodable where the form is impossible; never for `as it is`."""
    if content.isascii():
        form = "as it is"
    if form == "as it is" and not over_long_line(content):
        return content
    message = parse(content)
    if _SIGNATURES.intersection(field.name for field in message.fields):
        if form == "as it is":
            return content
        raise Unencodable("signed by another")
    if form == "ASCII head":
        return recoded(_with_ascii_fields(message) + content[message.head_end :], "as it is")
    return _entity(content, _Need(form == "7bit", iter(range(MAX_PARTS))), ())


def has_utf8_head(content: bytes) -> bool:
    """Whether raw 8-bit bytes are in the header section."""
    return not content[: parse(content).head_end].isascii()


@dataclass(frozen=True, slots=True)
class _Need:
    """What must change: over-long lines, and with `seven_bit` also 8-bit bytes."""

    seven_bit: bool
    left: Iterator[int]
    """one item for each further part that is allowed"""
    depth: int = 0

    def applies_to(self, body: bytes) -> bool:
        return (self.seven_bit and not body.isascii()) or over_long_line(body)

    def kept(self, data: bytes, why: str) -> bytes:
        """Keep what can't be re-encoded, unless it has forbidden 8-bit bytes: most servers carry an over-long line."""
        if self.seven_bit and not data.isascii():
            raise Unencodable(why)
        return data


def _entity(content: bytes, need: _Need, fences: tuple[bytes, ...], default: str = "text/plain") -> bytes:
    """A message or a part (RFC 2045 2.4) within multiparts of the boundaries `fences`."""
    if next(need.left, None) is None:
        return need.kept(content, "too many parts")
    message = parse(content)
    body = content[message.body_at :]
    encoding = decoded(first(message, "content-transfer-encoding") or b"").strip().lower()
    if not need.applies_to(body):
        if not need.seven_bit:
            return content
        return (
            _with_ascii_fields(message, "7bit" if encoding in ("8bit", "binary") else None)
            + content[message.head_end :]
        )
    names = [field.name for field in message.fields]
    if _SIGNATURES.intersection(names) or need.depth > MAX_DEPTH:
        return need.kept(content, "signed by another, or nested too deep")
    if names.count("content-type") > 1 or names.count("content-transfer-encoding") > 1:
        return need.kept(content, "its type is declared twice")
    kind, parameters = content_type(message)
    if "content-type" not in names:
        kind = default
    inner = replace(need, depth=need.depth + 1)
    if kind == "multipart/signed" or (kind.startswith("message/") and not _may_be_encoded(kind)):
        return need.kept(content, f"{kind} is never re-encoded")
    if not kind.startswith("multipart/") and kind != "message/rfc822":
        return _leaf(message, encoding, need, fences)
    if encoding not in ("", "7bit", "8bit", "binary"):
        return need.kept(content, f"{kind} with an encoding of its own")
    if kind == "message/rfc822":
        new_body = _entity(body, inner, fences)
    else:
        inside = "message/rfc822" if kind == "multipart/digest" else "text/plain"
        new_body = _multipart(body, parameters.get("boundary", "").encode(), inner, fences, inside)
    # RFC 2045 6.4: a composite has no encoding of its own.
    return _rebuilt(message, "7bit" if need.seven_bit and encoding else None, need) + new_body


def _may_be_encoded(kind: str) -> bool:
    """RFC 2046 5.2.1: message/rfc822 through its parts; RFC 6532 3.7, RFC 6533 6: message/global and the like as a
    whole. Partial messages, pointers to bodies and delivery statuses are 7bit by definition."""
    return kind == "message/rfc822" or kind.startswith("message/global")


def _multipart(body: bytes, boundary: bytes, need: _Need, fences: tuple[bytes, ...], default: str) -> bytes:
    fence = find_fence(body, boundary) if boundary else None
    if fence is None:
        return need.kept(body, "a multipart without parts")
    inside = (*fences, boundary)
    pieces = [need.kept(body[: fence.start], "8-bit text before the first part")]
    while fence is not None and not fence.closing:
        pieces.append(body[fence.start : fence.end])
        at = fence.end
        fence = find_fence(body, boundary, at)
        # The line end before a fence belongs to the fence (RFC 2046 5.1.1). A message cut short has no closing fence.
        part = body[at : fence.start] if fence is not None else body[at:]
        end = b"\r\n" if part.endswith(b"\r\n") else b""
        pieces += [_entity(part.removesuffix(b"\r\n"), need, inside, default), end]
    if fence is not None:
        pieces.append(need.kept(body[fence.start :], "8-bit text behind the last part"))
    return b"".join(pieces)


def _leaf(message: Message, encoding: str, need: _Need, fences: tuple[bytes, ...]) -> bytes:
    content = message.content
    body = content[message.body_at :]
    match encoding:
        case "" | "7bit" | "8bit" | "binary":
            name, encoded = _encoded(body, fences)
        case "quoted-printable":
            # Its lines can't simply be wrapped again: they may hold encoded line ends.
            name, encoded = "base64", _base64(b"".join(map(binascii.a2b_qp, _slices(body, _NOT_IN_QP))))
        case "base64" if not any(map(_NOT_BASE64.search, _slices(body, _LINE_END))):
            text = b"".join(piece.translate(None, _SPACE) for piece in _slices(body, _LINE_END))
            name, encoded = "base64", in_lines(text)
        case _:
            return need.kept(content, "an encoding that is unknown or invalid")
    return _rebuilt(message, name, need, body) + encoded


def _encoded(data: bytes, fences: tuple[bytes, ...]) -> tuple[str, bytes]:
    """The encoding that is probably shorter. Base64 also where a soft line break makes a line that ends the part."""
    eight_bit = sum(len(piece) - len(piece.translate(None, _EIGHT_BIT)) for piece in _slices(data, _LINE_END))
    if eight_bit * 6 <= len(data):
        encoded = _quoted_printable(data)
        if not any(find_fence(encoded, fence) for fence in fences):
            return "quoted-printable", encoded
    return "base64", _base64(data)


_EIGHT_BIT = bytes(range(128, 256))
_SPACE = b" \t\r\n\x0b\x0c"


def _slices(data: bytes, end: re.Pattern[bytes]) -> Iterator[bytes]:
    """`data` in pieces of SLICE_BYTES or more, each ending at a match of `end` where one comes within as many again."""
    at = 0
    while at < len(data):
        found = end.search(data, at + SLICE_BYTES, at + 2 * SLICE_BYTES)
        stop = found.end() if found is not None else min(at + 2 * SLICE_BYTES - 1, len(data))
        yield data[at:stop]
        at = stop


def _quoted_printable(data: bytes) -> bytes:
    """CRLF-ended lines, encoded."""
    pieces: list[bytes] = []
    for piece in _slices(data, _LINE_END):
        if pieces and not pieces[-1].endswith(b"\n"):
            pieces.append(b"=\r\n")  # a soft line break within a very long line
        encoded = binascii.b2a_qp(piece)
        pieces.append(encoded if b"\n" in piece else encoded.replace(b"\n", b"\r\n"))
    return b"".join(pieces)


def _base64(data: bytes) -> bytes:
    step = SLICE_BYTES // 3 * 3
    return in_lines(
        b"".join(binascii.b2a_base64(data[at : at + step], newline=False) for at in range(0, len(data), step))
    )


def in_lines(text: bytes) -> bytes:
    """Base64 in lines of 76 characters (RFC 2045 6.8)."""
    pieces = (text[at : at + _LINES_CHARS] for at in range(0, len(text), _LINES_CHARS))
    return b"".join(b"".join([piece[at : at + 76] + b"\r\n" for at in range(0, len(piece), 76)]) for piece in pieces)


_LINES_CHARS = SLICE_BYTES // 76 * 76


def _rebuilt(message: Message, encoding: str | None, need: _Need, body: bytes | None = None) -> bytes:
    """The header section with its blank line, declaring `encoding` (None: as before). `body`, before encoding, decides
    the type of a leaf that declares none."""
    names = {field.name for field in message.fields}
    added = b""
    if need.depth == 0 and "mime-version" not in names:
        added += b"MIME-Version: 1.0\r\n"
    if body is not None and "content-type" not in names:
        charset = b"us-ascii" if body.isascii() else charset_of(body)
        added += b"Content-Type: text/plain; charset=%b\r\n" % charset
    if encoding is not None and "content-transfer-encoding" not in names:
        added += b"Content-Transfer-Encoding: %b\r\n" % encoding.encode()
    head = _with_ascii_fields(message, encoding, every=need.seven_bit)
    return head + (b"" if head.endswith(b"\n") or not head else b"\r\n") + added + b"\r\n"


def _with_ascii_fields(message: Message, encoding: str | None = None, *, every: bool = True) -> bytes:
    """The header section with that encoding instead of its own, and with `every` field in ASCII."""
    content = message.content
    pieces, at = [], 0
    for field in message.fields:
        new = _new_value(field, encoding, every=every)
        if new is not None:
            name = content[field.start : field.end].partition(b":")[0]
            pieces += [content[at : field.start], name, b":", new, b"\r\n"]
            at = field.end
    head = b"".join([*pieces, content[at : message.head_end]])
    if every and not head.isascii():
        raise Unencodable("8-bit bytes in a malformed header section")
    return head


def _new_value(field: Field, encoding: str | None, *, every: bool) -> bytes | None:
    if encoding is not None and field.name == "content-transfer-encoding":
        return b" " + encoding.encode()
    return ascii_value(field.name, field.value) if every and not field.value.isascii() else None
