"""Write a message from its parts: header fields, text, HTML, attachments. Pure.

The MIME structure is the standard library's. Header fields are written here: the library makes encoded words of a long
URL, which breaks List-Unsubscribe, and takes a tenth of a second for five hundred addresses.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import getaddresses
from hashlib import blake2b
from typing import NamedTuple

from relay.mail.address import parse_path
from relay.mail.body import Encoding, encoded_bytes, encoded_text
from relay.mail.header_text import encoded_words
from relay.mail.message import MAX_FIELD_BYTES, MAX_LINE_BYTES, parse

MAX_NAME_CHARS = 500
"""of a display name"""
_LINE_CHARS = 78
"""RFC 5322 2.1.1"""
_POLICY = SMTP.clone(cte_type="7bit")
"""bodies pass every server as they are, so that a signature stays valid"""
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")
_OWNED = re.compile(
    r"from|to|subject|bcc|mime-version|received|return-path|dkim-signature|(?:resent|content)-.*", re.IGNORECASE
)
"""fields that the relay or MIME writes"""
_ADDRESS_FIELDS = frozenset({"cc", "reply-to", "sender", "disposition-notification-to"})
# C0, DEL, C1, line and paragraph separators, changes of the writing direction, lone surrogates.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
_BEARS_ENCODED_WORD = re.compile(r"=\?.*\?=")
_MEDIA_TYPE = re.compile(r"([a-z0-9][a-z0-9!#$&^_.+-]{0,126})/([a-z0-9][a-z0-9!#$&^_.+-]{0,126})", re.IGNORECASE)
_COMPOSITE = frozenset({"multipart", "message"})
"""RFC 2046 5: what must not be encoded in base64, or has parts of its own"""


class NotComposable(Exception):
    """A field can't be written. `field` names it (`headers.X-A`, `to[3]`), the text says what is expected."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(f"{field}: {text}")
        self.field = field


class Mailbox(NamedTuple):
    """A display name ('' for none) and an address."""

    name: str
    address: str


class Attachment(NamedTuple):
    """A file."""

    filename: str
    content: bytes
    content_type: str


class Parts(NamedTuple):
    """What a message is made of. `text` and `html`: at least one of them."""

    author: Mailbox
    recipients: tuple[Mailbox, ...]
    subject: str | None
    text: str | None
    html: str | None
    headers: Mapping[str, str]
    attachments: tuple[Attachment, ...]


def mailbox(field: str, text: str) -> Mailbox:
    """`a@b` or `Name <a@b>`. Raises NotComposable."""
    checked_text(field, text)
    name, address = "", text.strip(" ")
    if address.endswith(">"):
        before, _, behind = address[:-1].rpartition("<")
        name, address = before.strip(" "), behind
        if len(name) > 2 * MAX_NAME_CHARS + 2:  # quoted, with a backslash before each character
            raise _long_name(field)
        if quoted := _QUOTED.fullmatch(name):
            name = re.sub(r"\\(.)", r"\1", quoted[1])
        elif set(name) & set('<>"'):
            raise NotComposable(field, "expected one address, such as a@example.com or Name <a@example.com>")
    if len(name) > MAX_NAME_CHARS:
        raise _long_name(field)
    try:
        mailbox_found, rest = parse_path(f"<{address}>")
    except ValueError:
        mailbox_found, rest = "", ""
    if mailbox_found != address or rest or "@" not in address:
        raise NotComposable(field, "expected one address, such as a@example.com or Name <a@example.com>")
    return Mailbox(name, address)


def _long_name(field: str) -> NotComposable:
    return NotComposable(field, f"the name is longer than {MAX_NAME_CHARS} characters")


def check_header_name(field: str, name: str) -> None:
    """Raises NotComposable for what is no name of a field, and for fields that the relay or MIME writes."""
    if not _FIELD_NAME.fullmatch(name):
        raise NotComposable(field, "expected the name of a header field, such as Reply-To")
    if _OWNED.fullmatch(name):
        raise NotComposable(field, "the relay writes this header field itself")


def checked_text(field: str, text: str) -> str:
    """A text for a header field. Raises NotComposable where it is too long, or has line ends or other control
    characters."""
    # First of all: what comes next takes a second, and the interpreter's lock for long, with a text of megabytes.
    if len(text) > MAX_FIELD_BYTES:
        raise _large_field(field)
    if _UNSAFE.search(text):
        raise NotComposable(field, "line ends, control characters and lone surrogates can't stand here")
    return text


def checked_body(field: str, text: str) -> str:
    """A text for a body. Raises NotComposable where it has NUL or lone surrogates."""
    # Encoding it is faster than a regular expression, which holds the interpreter's lock.
    try:
        text.encode()
    except UnicodeEncodeError:
        raise NotComposable(field, "NUL and lone surrogates can't stand here") from None
    if "\0" in text:
        raise NotComposable(field, "NUL and lone surrogates can't stand here")
    return text


def checked_type(field: str, text: str) -> str:
    """The media type of an attachment, in lower case. Raises NotComposable."""
    found = _MEDIA_TYPE.fullmatch(text)
    if found is None or found[1].lower() in _COMPOSITE:
        raise NotComposable(field, "expected a media type without parameters, such as application/pdf")
    return text.lower()


def compose(parts: Parts, pause: Callable[[], None]) -> bytes:
    """The message with CRLF line ends, of ASCII but for addresses. The same parts make the same bytes. `pause` is
    called every now and then. Raises NotComposable."""
    fields = [
        _field("from", "From", [_mailbox(parts.author)], ","),
        _field("to", "To", [_mailbox(one) for one in parts.recipients], ","),
    ]
    if parts.subject is not None:
        fields.append(_text_field("subject", "Subject", parts.subject))
    for name, value in parts.headers.items():
        field = f"headers.{shown(name)}"
        check_header_name(field, name)
        fields.append(_text_field(field, name, value))
        pause()
    content = b"".join(fields) + _body(parts, pause)
    _check(content, ["from", "to", *([] if parts.subject is None else ["subject"]), *map(str.lower, parts.headers)])
    return content


def shown(name: str) -> str:
    """A name as an error shows it: what isn't a plain word may be anything, a code among it."""
    return name if len(name) <= 40 and name.isascii() and name.replace("-", "").replace("_", "").isalpha() else "?"


def field_of(field: str, name: str, value: str) -> bytes:
    """One unstructured header field, folded, with its line end. Raises NotComposable."""
    check_header_name(field, name)
    return _text_field(field, name, value)


def _text_field(field: str, name: str, value: str) -> bytes:
    checked_text(field, value)
    if value.isascii():
        # A text that looks like an encoded word is shown as what it would decode to, as in any mail.
        return _field(field, name, value.strip(" ").split(" "), "")
    if name.lower() in _ADDRESS_FIELDS:
        return _field(field, name, _named_addresses(field, value), ",")
    return _field(field, name, [encoded_words(value.strip().encode()).decode()], "")


def _named_addresses(field: str, value: str) -> list[str]:
    """The mailboxes of a list of addresses. In such a field only names can be encoded. Raises NotComposable."""
    try:
        addresses = getaddresses([value])
    except RecursionError:  # a thousand open parentheses
        raise NotComposable(field, "expected a list of addresses") from None
    found = [mailbox(field, f'"{_escaped(name)}" <{address}>') for name, address in addresses]
    if not all(one.address.isascii() for one in found):
        raise NotComposable(field, "an address beyond ASCII can stand in from and to only")
    return [_mailbox(one) for one in found]


def _field(field: str, name: str, pieces: Iterable[str], separator: str) -> bytes:
    """Fold at the blanks between pieces. Raises NotComposable where a piece is too long for a line, or all of them for
    a field."""
    lines = [f"{name}:"]
    for number, piece in enumerate(pieces):
        if number:
            lines[-1] += separator
        first = piece.partition("\r\n")[0]
        # A line of blanks only would end the header section in the eyes of old programs (RFC 5322 4.2).
        fits = len(lines[-1]) + 1 + len(first) + len(separator) <= _LINE_CHARS
        if fits or not piece or not lines[-1].strip(" ") or lines[-1] == f"{name}:":
            lines[-1] += f" {piece}"
        else:
            lines.append(f" {piece}")
        *whole, last = lines.pop().split("\r\n")
        lines += [*whole, last]
    data = "\r\n".join(lines).rstrip(" ").encode() + b"\r\n"
    if any(len(line) > MAX_LINE_BYTES for line in data.split(b"\r\n")):
        raise NotComposable(field, f"a word is too long for a line of {MAX_LINE_BYTES} bytes")
    if len(data) > MAX_FIELD_BYTES:
        raise _large_field(field)
    return data


def _large_field(field: str) -> NotComposable:
    return NotComposable(field, f"the header field would be larger than {MAX_FIELD_BYTES} bytes")


def _mailbox(one: Mailbox) -> str:
    if not one.name:
        return one.address
    if not one.name.isascii() or _BEARS_ENCODED_WORD.search(one.name):
        return f"{encoded_words(one.name.encode()).decode()} <{one.address}>"
    # Folding between the words of a quoted name would be right, but some programs keep the line end.
    name = one.name if _ATOMS.fullmatch(one.name) else f'"{_escaped(one.name)}"'
    return f"{name} <{one.address}>"


def _escaped(name: str) -> str:
    """As it stands in a quoted string (RFC 5322 3.2.4)."""
    return name.replace("\\", "\\\\").replace('"', '\\"')


def _body(parts: Parts, pause: Callable[[], None]) -> bytes:
    """The MIME header fields, a blank line, and the body."""
    texts = [(kind, text) for kind, text in (("plain", parts.text), ("html", parts.html)) if text is not None]
    bodies = [encoded_text(text, pause) for _, text in texts]
    bodies += [encoded_bytes(one.content, pause) for one in parts.attachments]
    digest = blake2b(digest_size=12)
    for body in bodies:
        digest.update(b"%d," % len(body.content))
        digest.update(body.content)
    # A hash in the place of a random number: a request that is sent again makes the same message.
    mark = digest.hexdigest()
    leaves = [
        _leaf(f"text/{kind}", body.encoding, _place(mark, n))
        for n, ((kind, _), body) in enumerate(zip(texts, bodies, strict=False))
    ]
    for one, body in zip(parts.attachments, bodies[len(texts) :], strict=True):
        leaves.append(_leaf(one.content_type, body.encoding, _place(mark, len(leaves)), one.filename))
    message = leaves[0] if len(texts) == 1 else _multipart("alternative", f"=_1_{mark}", leaves[:2])
    if parts.attachments:
        message = _multipart("mixed", f"=_0_{mark}", [message, *leaves[len(texts) :]])
    message["MIME-Version"] = "1.0"
    # The library writes the structure only: it would hold the interpreter's lock while it wrote a large body.
    structure = message.as_bytes()
    pieces: list[bytes] = []
    for number, body in enumerate(bodies):
        before, _, structure = structure.partition(_place(mark, number).encode() + b"\r\n")
        pieces += [before, body.content]
    return b"".join([*pieces, structure])


def _place(mark: str, number: int) -> str:
    """What stands for a body until it is put in."""
    return f"=_body_{number}_{mark}"


def _leaf(kind: str, encoding: Encoding, body: str, filename: str | None = None) -> EmailMessage:
    part = EmailMessage(policy=_POLICY)
    part["Content-Type"] = f'{kind}; charset="utf-8"' if filename is None else kind
    part["Content-Transfer-Encoding"] = encoding
    if filename is not None:
        part.add_header("Content-Disposition", "attachment", filename=filename)
    part.set_payload(f"{body}\n")
    return part


def _multipart(kind: str, boundary: str, parts: list[EmailMessage]) -> EmailMessage:
    whole = EmailMessage(policy=_POLICY)
    whole["Content-Type"] = f'multipart/{kind}; boundary="{boundary}"'
    whole.set_payload([*parts])
    return whole


def _check(content: bytes, names: list[str]) -> None:
    """The last safeguard: the header section has the fields that were wanted, and MIME's. Raises NotComposable."""
    found = [field.name for field in parse(content).fields]
    if [name for name in found if not name.startswith("content-") and name != "mime-version"] != names:
        raise NotComposable("headers", "these fields can't be written as a header section")
