"""Decode header fields to readable text: unfolded, RFC 2047 words decoded, one line without control characters."""

from __future__ import annotations

import binascii
import re
from encodings.aliases import aliases

# A closed list of mail's charsets: Python looks any other name up as a module and keeps each miss for ever, and `idna`
# and `punycode` take quadratic time.
_CHARSETS = (frozenset(aliases) | frozenset(aliases.values()) | {"koi8_u", "cp874", "utf_8_sig"}) - {
    "base64_codec", "bz2_codec", "hex_codec", "quopri_codec", "uu_codec", "zlib_codec", "rot_13", "mbcs",
    "base64", "base_64", "bz2", "hex", "quopri", "quoted_printable", "quotedprintable", "uu", "zip", "zlib", "rot13",
    "ansi", "dbcs", "idna", "punycode", "unicode_escape", "raw_unicode_escape",
}  # fmt: skip
_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?]*)\?=")
MAX_WORDS = 1_000
"""encoded words of one value; the text behind them is dropped"""
# C0, DEL, C1, line and paragraph separators, changes of a terminal's writing direction, lone surrogates (UTF-7).
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]+")
_PLAIN = re.compile(rb"[\x20-\x7e]*")
_WORD_BYTES = 45
"""60 characters of base64: an encoded word has 75 at most (RFC 2047 2)"""


def one_line(text: str) -> str:
    """`text` with each run of control characters as one blank, trimmed."""
    if text.isascii() and text.isprintable():
        return text.strip()
    return _UNPRINTABLE.sub(" ", text).strip()


def text_of(raw: bytes) -> str:
    """8-bit header bytes as text: UTF-8 where they are valid UTF-8, else Latin-1."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


def without_folds(raw: bytes) -> str:
    """A raw field value as text without CR and LF, encoded words as they are."""
    return text_of(raw).replace("\r", "").replace("\n", "")


def decoded(raw: bytes) -> str:
    """A raw field value as one line of text, without CR, LF, NUL and other controls, even encoded ones."""
    if b"=?" not in raw:
        return raw.decode("ascii").strip() if _PLAIN.fullmatch(raw) else one_line(_unfolded(raw))
    return one_line(_decode_words(_unfolded(raw)))


def _unfolded(raw: bytes) -> str:
    return text_of(raw.replace(b"\r\n", b"").replace(b"\n", b""))


def _decode_words(text: str) -> str:
    out: list[str] = []
    charset, last = "", 0
    pending: list[bytes] = []
    for number, word in enumerate(_WORD.finditer(text)):
        if number == MAX_WORDS:
            text = text[:last]
            break
        between = text[last : word.start()]
        same = word[1].lower() == charset and not between.strip()
        if not same:
            # Words of one charset are joined as bytes: a character is often split over two of them.
            out.append(decode_charset(b"".join(pending), charset))
            pending, charset = [], word[1].lower()
            # RFC 2047 6.2: blanks between two encoded words are not shown.
            if between.strip() or last == 0:
                out.append(between)
        pending.append(_word_bytes(word[2], word[3]))
        last = word.end()
    out += [decode_charset(b"".join(pending), charset), text[last:]]
    return "".join(out)


def _word_bytes(encoding: str, payload: str) -> bytes:
    data = payload.encode()
    if encoding in "qQ":
        return binascii.a2b_qp(data, header=True)
    try:
        return binascii.a2b_base64(data + b"===")
    except binascii.Error:
        return data


def decode_charset(data: bytes, charset: str) -> str:
    """Bytes as text; as `text_of` where the charset is unknown."""
    return data.decode(_codec(charset), "replace") if is_charset(charset) else text_of(data)


def is_charset(name: str) -> bool:
    """Whether mail in a charset of this name can be read."""
    return _codec(name) in _CHARSETS


def _codec(charset: str) -> str:
    return charset.lower().replace("-", "_").replace(" ", "_")


def encoded(text: str) -> bytes:
    """One line of text as an unstructured header value; beyond ASCII in folded RFC 2047 words."""
    data = one_line(text).encode()
    return data if data.isascii() else encoded_words(data)


def encoded_words(data: bytes) -> bytes:
    """Text of any charset as RFC 2047 words, folded."""
    charset, at, words = charset_of(data), 0, []
    while at < len(data):
        end = min(at + _WORD_BYTES, len(data))
        while charset == b"utf-8" and end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1  # RFC 2047 5: a character is never divided
        words.append(b"=?%b?B?%b?=" % (charset, binascii.b2a_base64(data[at:end], newline=False)))
        at = end
    return b"\r\n ".join(words)


def charset_of(data: bytes) -> bytes:
    """The charset to declare for 8-bit text of unknown origin (RFC 1428 3): UTF-8 where it is valid UTF-8."""
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return b"unknown-8bit"
    return b"utf-8"
