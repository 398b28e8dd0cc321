"""DKIM's relaxed canonicalisation (RFC 6376 3.4.2, 3.4.4) of CRLF-ended content, in linear time.

dkimpy has the same rules, but its body pattern takes quadratic time on a run of blanks and works on the whole body
at once; the tests hold this module equal to it.
"""

from __future__ import annotations

import hashlib
import re

SLICE_BYTES = 131_072
_BLANKS = re.compile(rb"  +")


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """A header field as it is hashed, without the CRLF at its end. `name` is lower-case already."""
    if b"\n" in value:
        value = value.replace(b"\r\n", b"")
    if b"\t" in value:
        value = value.replace(b"\t", b" ")
    if b"  " in value:
        value = _BLANKS.sub(b" ", value)
    return name + b":" + value.strip(b" ")


def relaxed_lines(lines: bytes) -> bytes:
    """Whole body lines with blanks reduced; empty lines at the body's end are the caller's to leave out. The same
    object when nothing was to be done: base64 and most text."""
    if b"\t" in lines:
        lines = lines.replace(b"\t", b" ")
    elif b" " not in lines:
        return lines
    if b"  " in lines:
        lines = _BLANKS.sub(b" ", lines)
    if b" \r\n" in lines:
        lines = lines.replace(b" \r\n", b"\r\n")
    return lines[:-1] if lines.endswith(b" ") else lines


class BodyHash:
    """The SHA-256 of the relaxed body, made slice by slice so that a large one can share its thread with others.

    `while body.step(): ...` and then `digest()`, or `digest()` at once.
    """

    def __init__(self, content: bytes, body_at: int, slice_bytes: int = SLICE_BYTES) -> None:
        self._content = content
        self._slice_bytes = slice_bytes
        self._at = body_at
        self._hash = hashlib.sha256()
        self._empty = True
        self._line_ends = 0
        """CRLFs held back: they count only if something follows"""

    def step(self) -> bool:
        """Hash the next `slice_bytes` or so (whole lines). False when the body is done."""
        content, at = self._content, self._at
        if at >= len(content):
            return False
        end = len(content)
        if end - at > self._slice_bytes:
            end = content.find(b"\n", at + self._slice_bytes) + 1 or end
        self._add(relaxed_lines(content[at:end]))
        self._at = end
        return True

    def _add(self, lines: bytes) -> None:
        kept = lines.rstrip(b"\r\n")
        if kept:
            if self._line_ends:
                self._hash.update(b"\r\n" * self._line_ends)
                self._line_ends = 0
            self._hash.update(kept)
            self._empty = False
        self._line_ends += (len(lines) - len(kept)) // 2

    def digest(self) -> bytes:
        while self.step():
            pass
        result = self._hash.copy()
        if not self._empty:
            # RFC 6376 3.4.4: one line end closes the body; an empty body has none.
            result.update(b"\r\n")
        return result.digest()
