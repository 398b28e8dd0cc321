"""The parts of a message, read where they lie. Bounded in depth and number; never raises, whatever the nesting."""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from relay.mail.message import Message, Unacceptable, first, parse
from relay.mail.words import decode_charset, decoded

MAX_PARTS = 100
MAX_DEPTH = 8

_TYPE = re.compile(r"\s*([\w.+-]+/[\w.+-]+)")
_PARAMETER = re.compile(r';\s{0,9}([\w-]{1,40})\*?\s{0,9}=\s{0,9}(?:"((?:[^"\\]|\\.)*)"?|([^\s;"]+))')


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf. `kind` as `text/html`, lower-case; `charset` None where not declared; `body` still encoded."""

    kind: str
    charset: str | None
    encoding: str
    body: bytes

    @property
    def text(self) -> str:
        """The body decoded as far as it can be."""
        data = self.body
        if self.encoding == "quoted-printable":
            data = binascii.a2b_qp(data)
        elif self.encoding == "base64":
            try:
                data = binascii.a2b_base64(data)
            except binascii.Error:
                return ""
        return decode_charset(data, self.charset or "utf-8")


def leaves(message: Message) -> Iterator[Part]:
    """The leaf parts in order, at most MAX_PARTS of them and MAX_DEPTH deep; what lies deeper is one part."""
    waiting = [(message, 0)]
    found = 0
    while waiting and found < MAX_PARTS:
        current, depth = waiting.pop()
        kind, parameters = content_type(current)
        boundary = parameters.get("boundary", "")
        if kind.startswith("multipart/") and boundary and depth < MAX_DEPTH:
            waiting += [(part, depth + 1) for part in reversed(_parts(current, boundary))]
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


def _parts(message: Message, boundary: str) -> list[Message]:
    fence = re.compile(rb"^--" + re.escape(boundary.encode()) + rb"(--)?[ \t]*\r?$", re.MULTILINE)
    body = message.content[message.body_at :]
    found: list[Message] = []
    start: int | None = None
    # A message cut short has no closing fence: then its end is one.
    for line in chain(fence.finditer(body), (None,)):
        if start is not None and len(found) < MAX_PARTS:
            # The line end before a fence belongs to the fence (RFC 2046 5.1.1).
            part = body[start : line.start()].removesuffix(b"\n").removesuffix(b"\r") if line else body[start:]
            try:
                found.append(parse(part))
            except Unacceptable:
                break
        if line is None or line[1]:
            break
        start = line.end() + 1
    return found
