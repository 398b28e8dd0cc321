"""DKIM's relaxed canonicalisation (RFC 6376 3.4.2, 3.4.4) of CRLF-ended content, in linear time.

The tests compare it with dkimpy, which takes quadratic time on a run of blanks and needs the whole body at once.
"""

from __future__ import annotations

import hashlib
import re

SLICE_BYTES = 131_072
_NOT_AT_A_BREAK = re.compile(rb"[^ \t\r\n]")


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """A header field as it is hashed, without the CRLF at its end. `name` is lower-case."""
    if b"\n" in value:
        value = value.replace(b"\r\n", b"")
    if b"\t" in value:
        value = value.replace(b"\t", b" ")
    return name + b":" + _single_blanks(value).strip(b" ")


def _single_blanks(text: bytes) -> bytes:
    """Each run of blanks as one blank. Every pass halves the runs."""
    while b"  " in text:
        text = text.replace(b"  ", b" ")
    return text


def relaxed_lines(lines: bytes) -> bytes:
    """Whole body lines with blanks reduced; the same object where nothing changes, as for base64. The caller leaves out
    empty lines at the body's end."""
    if b"\t" in lines:
        lines = lines.replace(b"\t", b" ")
    elif b" " not in lines:
        return lines
    lines = _single_blanks(lines)
    if b" \r\n" in lines:
        lines = lines.replace(b" \r\n", b"\r\n")
    return lines[:-1] if lines.endswith(b" ") else lines


class BodyHash:
    """The SHA-256 of the relaxed body, made in slices so that a large body doesn't block its thread.

    `while body.step(): ...` and then `digest()`, or `digest()` at once.
    """

    def __init__(self, content: bytes, body_at: int, slice_bytes: int = SLICE_BYTES) -> None:
        self._content = content
        self._slice_bytes = slice_bytes
        self._at = body_at
        self._hash = hashlib.sha256()
        self._empty = True
        self._line_ends = 0
        """CRLFs that count only if more text follows"""

    def step(self) -> bool:
        """Hash about `slice_bytes` more. False at the end of the body."""
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
        """The next place where a slice may end: a line's end, in a long line a place without a blank or line end beside
        it. 0: only at the content's end."""
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
