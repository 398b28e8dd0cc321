"""X-Original-To: the recipients of a message that goes to another address instead."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.mail.header_text import encoded

_CONTINUATIONS = re.compile(rb"(?:[ \t][^\n]*\n)*")


def original_to(addresses: Sequence[str]) -> bytes:
    """The header field with all addresses, one a line (RFC 5322 2.2.3), in ASCII: another one becomes an encoded
    word."""
    return b"X-Original-To: " + b",\r\n ".join(map(encoded, addresses)) + b"\r\n"


def with_field(parts: Sequence[bytes], field: bytes) -> Sequence[bytes]:
    """The parts of a content with the field on top, where it is no part of what is signed. A first line that is folded
    stays above it: it would continue our field."""
    first = parts[0]
    at = found.end() if (found := _CONTINUATIONS.match(first)) else 0
    return [field, *parts] if at == 0 else [first[:at], field, first[at:], *parts[1:]]
