"""Decode header text, MIME parameters and bodies without a guess: what two programs could read in two ways is an error.

`header_text` and `mime` read whatever comes, for a reader of logs. Here the text is sent again, in another message.
"""

from __future__ import annotations

import binascii
import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from relay.mail.header_text import is_charset

# Tab is a blank here. C0, DEL, C1, line and paragraph separators, lone surrogates (UTF-7).
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
# The C1 characters of ISO 8859-1 are letters in the eyes of programs that read it as windows-1252.
_NOT_IN_A_TEXT = re.compile(r"[\x00\r\x80-\x9f\ud800-\udfff]")
_WORD = re.compile(r"=\?([^?\s*]{1,40})(?:\*[^?\s]*)?\?([bBqQ])\?([^?\s]*)\?=")
_NO_QP_BYTE = re.compile(rb"=(?![0-9A-Fa-f]{2})")
# RFC 2045 6.7: a blank at a line's end is not of the text, and some programs keep it.
_BROKEN_QP = re.compile(rb"=(?!\r\n|[0-9A-Fa-f]{2})|[ \t](?:\r|\Z)|[^\x00-\x7f]")
_BLANKS = b" \t\r\n"

_NAME = r"[!#$%&'*+.^_`{|}~0-9A-Za-z-]+"
_VALUE_START = re.compile(rf" *({_NAME}(?:/{_NAME})?) *(?=;|\Z)")
# Unquoted values may have `=`, `/`, `:` and `?`: many programs don't quote a boundary.
_PARAMETER = re.compile(rf"""; *(?:({_NAME}) *= *(?:"((?:[^"\\]|\\.)*+)"|([^ ;"\\(),<>@\[\]]+)) *(?=;|\Z))?""")
_ESCAPED = re.compile(r"\\(.)")
_SECTION = re.compile(r"([^*]+)(?:\*(0|[1-9][0-9]{0,2}))?(\*)?")
"""RFC 2231: `name`, `name*`, `name*0`, `name*0*`"""
_NO_PERCENT_BYTE = re.compile(r"%(?![0-9A-Fa-f]{2})")


class CannotRebuild(Exception):
    """The message can't be taken apart, or not without a change of what it means. `reason` is one line and quotes
    nothing of the message but names of fields."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def unfolded(raw: bytes) -> str:
    """A raw field value without folds and outer blanks, each tab as a blank, encoded words as they are. Raises
    CannotRebuild for control characters, and for 8-bit bytes that aren't UTF-8."""
    try:
        text = raw.replace(b"\r\n", b"").replace(b"\t", b" ").decode().strip(" ")
    except UnicodeDecodeError:
        raise CannotRebuild("8-bit bytes in a field that are not UTF-8") from None
    return _without_controls(text)


def _without_controls(text: str) -> str:
    if not (text.isascii() and text.isprintable()) and _CONTROL.search(text):
        raise CannotRebuild("a control character in a field")
    return text


def words_decoded(text: str) -> str:
    """Unfolded text with its encoded words (RFC 2047) decoded. Raises CannotRebuild for a word that is broken, of an
    unknown charset or within another word, and for text that looks like an encoded word after it is decoded."""
    if "=?" not in text:
        return text
    out: list[str] = []
    pending: list[bytes] = []
    charset, last = "", 0
    for word in _WORD.finditer(text):
        start, end = word.span()
        # RFC 2047 5: blanks are around it. Some programs decode it everywhere, some don't.
        if (start and text[start - 1] != " ") or (end < len(text) and text[end] != " "):
            raise CannotRebuild("an encoded word within another word")
        between = text[last:start]
        # RFC 2047 6.2: blanks between two encoded words are not shown.
        adjacent = bool(pending) and not between.strip(" ")
        if not adjacent or word[1].lower() != charset:
            # Words of one charset are joined as bytes: a character is often split over two of them.
            out += [text_in(b"".join(pending), charset) if pending else "", "" if adjacent else between]
            pending, charset = [], word[1].lower()
        pending.append(_word_bytes(word[2], word[3]))
        last = end
    out += [text_in(b"".join(pending), charset) if pending else "", text[last:]]
    decoded = "".join(out)
    at = decoded.find("=?")
    if at >= 0 and decoded.find("?=", at + 2) >= 0:
        raise CannotRebuild("an encoded word that can't be decoded")
    return _without_controls(decoded)


def _word_bytes(encoding: str, payload: str) -> bytes:
    if not payload.isascii():
        raise CannotRebuild("8-bit bytes in an encoded word")
    data = payload.encode()
    if encoding in "bB":
        return _base64(data, "an encoded word of broken base64")
    if _NO_QP_BYTE.search(data):
        raise CannotRebuild("an encoded word of broken quoted-printable")
    return binascii.a2b_qp(data, header=True)


def _base64(data: bytes, reason: str) -> bytes:
    try:
        return binascii.a2b_base64(data, strict_mode=True)
    except binascii.Error:
        raise CannotRebuild(reason) from None


def text_in(data: bytes, charset: str) -> str:
    """Bytes of that charset as text. Raises CannotRebuild for an unknown one, and where the bytes aren't valid."""
    if not is_charset(charset):
        raise CannotRebuild("an unknown charset")
    try:
        return data.decode(charset)
    except (UnicodeError, LookupError):
        raise CannotRebuild("bytes that are not in the declared charset") from None


def body_bytes(body: bytes, encoding: str) -> bytes:
    """A body without its transfer encoding (in lower case). Raises CannotRebuild for a broken or unknown one."""
    match encoding:
        case "" | "7bit" | "8bit" | "binary":
            return body
        case "base64":
            return _base64(body.translate(None, _BLANKS), "broken base64")
        case "quoted-printable":
            if _BROKEN_QP.search(body):
                raise CannotRebuild("broken quoted-printable")
            return binascii.a2b_qp(body)
        case _:
            raise CannotRebuild("an unknown transfer encoding")


def body_text(data: bytes, charset: str) -> str:
    """A decoded body as text whose lines end with LF. Raises CannotRebuild for another charset than the declared one,
    NUL, a bare CR, and what windows-1252 programs read as letters."""
    # In UTF-16 and UTF-32 even plain letters have NUL bytes, and readers differ in the byte order.
    if b"\0" in data:
        raise CannotRebuild("NUL in a text")
    text = text_in(data, charset)
    if "\r" in text:
        text = text.replace("\r\n", "\n")
    if ("\r" in text or not text.isascii()) and _NOT_IN_A_TEXT.search(text):
        raise CannotRebuild("a control character in a text")
    return text


class Value(NamedTuple):
    """A structured field's value, such as `text/plain; charset=utf-8`."""

    main: str
    """in lower case"""
    parameters: dict[str, str]
    """names in lower case; RFC 2231 and RFC 2047 decoded"""


def value_of(raw: bytes, field: str) -> Value:
    """Content-Type or Content-Disposition. Raises CannotRebuild for what isn't in the form of RFC 2045 5.1, names a
    parameter twice, or is encoded wrongly. `field` is for the reason."""
    text = unfolded(raw)
    start = _VALUE_START.match(text)
    if start is None:
        raise CannotRebuild(f"a malformed {field}")
    at = start.end()
    found: dict[str, str] = {}
    while at < len(text):
        one = _PARAMETER.match(text, at)
        if one is None:
            raise CannotRebuild(f"a malformed {field}")
        at = one.end()
        if one[1] is None:
            continue
        name = one[1].lower()
        if name in found:
            raise CannotRebuild(f"a {field} that names a parameter twice")
        found[name] = one[3] if one[2] is None else _ESCAPED.sub(r"\1", one[2])
    return Value(start[1].lower(), _parameters(found, field))


def _parameters(found: dict[str, str], field: str) -> dict[str, str]:
    if not any("*" in name for name in found):
        return {name: words_decoded(value) for name, value in found.items()}
    plain: dict[str, str] = {}
    sections: dict[str, dict[int, tuple[str, bool]]] = {}
    for name, value in found.items():
        parts = _SECTION.fullmatch(name)
        if parts is None:
            raise CannotRebuild(f"a malformed {field}")
        if parts[2] is None and parts[3] is None:
            plain[name] = words_decoded(value)
            continue
        # `name*` is one section, as `name*0*` alone is.
        number, of_name = int(parts[2] or 0), sections.setdefault(parts[1], {})
        if number in of_name:
            raise CannotRebuild(f"a {field} that names a parameter twice")
        of_name[number] = value, parts[3] is not None
    # RFC 6266 4.3: where a program wrote both forms, the plain one is for old readers.
    return plain | {name: _joined(of_name, field) for name, of_name in sections.items()}


def _joined(sections: dict[int, tuple[str, bool]], field: str) -> str:
    """RFC 2231 3 and 4."""
    charset, pieces = "us-ascii", list[bytes]()
    for number in range(len(sections)):
        value, is_encoded = sections.get(number, ("", False))
        if number not in sections or not value.isascii() or (is_encoded and _NO_PERCENT_BYTE.search(value)):
            raise CannotRebuild(f"a {field} with a broken parameter")
        if number == 0 and is_encoded:
            charset, quote, rest = value.partition("'")
            _language, quote_too, value = rest.partition("'")
            if not (quote and quote_too):
                raise CannotRebuild(f"a {field} with a broken parameter")
        pieces.append(unquote_to_bytes(value) if is_encoded else value.encode())
    return _without_controls(text_in(b"".join(pieces), charset or "us-ascii"))
