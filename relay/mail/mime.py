"""Find the MIME parts of a message. Depth and number are bounded; nothing raises, whatever the nesting."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from relay.mail.header_text import decode_charset, decoded, text_of
from relay.mail.message import Message, first, parse

MAX_PARTS = 100
MAX_DEPTH = 8

_TYPE = re.compile(r"\s*([\w.+-]+/[\w.+-]+)")
_PARAMETER = re.compile(r';\s{0,9}([\w-]{1,40})\*?\s{0,9}=\s{0,9}(?:"((?:[^"\\]|\\.)*)"?|([^\s;"]+))')


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf. `kind` is lower-case, as `text/html`; `charset` is None without a declaration; `body` is encoded."""

    kind: str
    charset: str | None
    encoding: str
    body: bytes

    @property
    def text(self) -> str:
        """The body decoded, as far as possible."""
        data = self.body
        if self.encoding == "quoted-printable":
            data = binascii.a2b_qp(data)
        elif self.encoding == "base64":
            data = _decoded_base64(data)
        # A program that declares US-ASCII, the default, and sends 8-bit text means another charset.
        if self.charset is None or self.charset.lower() == "us-ascii":
            return text_of(data)
        return decode_charset(data, self.charset)


def _decoded_base64(data: bytes) -> bytes:
    """As far as it is whole: a part that was cut short, as the head of a large message is, counts too."""
    for cut in (data, data + b"==", data.rstrip()[:-1]):
        with suppress(binascii.Error):
            return binascii.a2b_base64(cut)
    return b""


def leaves(message: Message) -> Iterator[Part]:
    """The leaf parts in order, at most MAX_PARTS of them, MAX_DEPTH deep. A part at that depth is one leaf."""
    waiting = [(message, 0)]
    found = 0
    while waiting and found < MAX_PARTS:
        current, depth = waiting.pop()
        kind, parameters = content_type(current)
        boundary = parameters.get("boundary", "")
        if kind.startswith("multipart/") and boundary and depth < MAX_DEPTH:
            waiting += [(part, depth + 1) for part in reversed(_parts(current, boundary.encode()))]
            continue
        found += 1
        encoding = decoded(first(current, "content-transfer-encoding") or b"").lower()
        yield Part(kind, parameters.get("charset"), encoding, current.content[current.body_at :])


def content_type(message: Message) -> tuple[str, dict[str, str]]:
    """`text/plain` and its parameters (names lower-case); RFC 2045 5.2's default where none is declared."""
    value = decoded(first(message, "content-type") or b"")
    kind = _TYPE.match(value)
    if kind is None:
        return "text/plain", {}
    parameters = {name.lower(): quoted or plain for name, quoted, plain in _PARAMETER.findall(value)}
    return kind[1].lower(), parameters


class Fence(NamedTuple):
    """A line that divides parts: its start and end, line end included, and whether it is the closing one."""

    start: int
    end: int
    closing: bool


_REST_OF_FENCE = re.compile(rb"(--)?[ \t]*+\r?(?:\n|\Z)")


def find_fence(body: bytes, boundary: bytes, at: int = 0) -> Fence | None:
    """The first fence at the start of a line, from `at` on. `boundary` isn't empty."""
    mark = b"--" + boundary
    is_at_start = body.startswith(mark, at)
    while is_at_start or (at := body.find(b"\n" + mark, at) + 1):
        is_at_start = False
        rest = _REST_OF_FENCE.match(body, at + len(mark))
        if rest is not None:
            return Fence(at, rest.end(), rest[1] is not None)
    return None


def _parts(message: Message, boundary: bytes) -> list[Message]:
    body = message.content[message.body_at :]
    found: list[Message] = []
    fence = find_fence(body, boundary)
    while fence is not None and not fence.closing and len(found) < MAX_PARTS:
        following = find_fence(body, boundary, fence.end)
        # The line end before a fence belongs to the fence (RFC 2046 5.1.1). A message cut short has no closing one.
        end = following.start if following is not None else len(body)
        part = body[fence.end : end]
        found.append(parse(part.removesuffix(b"\n").removesuffix(b"\r") if following is not None else part))
        fence = following
    return found
