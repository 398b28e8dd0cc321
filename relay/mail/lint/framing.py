"""Mistakes in the bytes: line ends, line lengths, encodings, the header section."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.mail.header_text import is_charset
from relay.mail.lint.mail import Mail
from relay.mail.lint.rules import LintFinding, found
from relay.mail.message import over_long_line
from relay.mail.mime import Part, content_type

ONLY_ONCE = ("date", "from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject")
"""RFC 5322 3.6"""

_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")


def framing(mail: Mail) -> Iterator[LintFinding]:
    content = mail.message.content
    if b"\0" in content:
        yield found("nul")
    if _BARE_CR.search(content):
        yield found("bare-cr")
    # Unix stores messages with LF only; a mixture is a mistake of the program.
    if b"\r\n" in content and _BARE_LF.search(content):
        yield found("bare-lf")
    if over_long_line(_BARE_LF.sub(b"\r\n", content)):
        yield found("long-line")
    message = mail.message
    if "" in mail.names or message.head_end == message.body_at < len(content):
        yield found("header")
    for name in ONLY_ONCE:
        number = mail.names.count(name)
        if number > 1:
            yield found("twice", name=name.title(), number=number)
    if any(not one.value.isascii() for one in message.fields):
        yield found("8bit-header")
    if mail.is_broken:
        yield found("multipart", kind=content_type(message)[0][:60])
        return
    for part in mail.parts:
        yield from _encoding(part)
        if part.charset is not None and part.kind.startswith("text/") and not is_charset(part.charset):
            yield found("charset", charset=part.charset[:40], kind=part.kind)


def _encoding(part: Part) -> Iterator[LintFinding]:
    if part.body.isascii():
        return
    if part.encoding not in ("8bit", "binary"):
        yield found("8bit-encoding", kind=part.kind)
    if part.charset in (None, "us-ascii") and part.kind.startswith("text/"):
        yield found("8bit-charset", kind=part.kind)
