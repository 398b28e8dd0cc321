"""DKIM's relaxed canonicalisation (RFC 6376 3.4.2, 3.4.4) of CRLF-ended content, in linear time.

dkimpy has the same rules, but its body pattern takes quadratic time on a run of blanks and works on the whole body
at once; the tests hold this module equal to it.
"""

from __future__ import annotations

import hashlib
import re

SLICE_BYTES = 131_072
_NOT_AT_A_BREAK = re.compile(rb"[^ \t\r\n]")


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """A header field as it is hashed, without the CRLF at its end. `name` is lower-case already."""
    if b"\n" in value:
        value = value.replace(b"\r\n", b"")
    if b"\t" in value:
        value = value.replace(b"\t", b" ")
    return name + b":" + _single_blanks(value).strip(b" ")


def _single_blanks(text: bytes) -> bytes:
    """Each run of blanks as one: every pass halves them."""
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def relaxed_lines(lines: bytes) -> bytes:
    """Whole body lines with blanks reduced; empty lines at the body's end are the caller's to leave out. The same
    object when nothing was to be done: base64 and most text."""
    if b"\t" in lines:
        lines = lines.replace(b"\t", b" ")
    elif b" " not in lines:
        return lines
    lines = _single_blanks(lines)
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
        """Hash the next `slice_bytes` or so. False when the body is done."""
        content, at = self._content, self._at
        if at >= len(content):
            return False
        end = len(content)
        if end - at > self._slice_bytes:
            end = self._break_behind(at + self._slice_bytes) or end
        self._add(relaxed_lines(content[at:end]))
        self._at = end
        return True

    def _break_behind(self, at: int) -> int:
        """Where a slice may end: at a line's end, in a long line at a place that no blanks or line ends are at. 0: at
        the content's end only."""
        line_end = self._content.find(b"\n", at, at + self._slice_bytes)
        if line_end >= 0:
            return line_end + 1
        found = _NOT_AT_A_BREAK.search(self._content, at)
        return found.end() if found is not None else 0

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
