"""Parse a message's header section, normalise its line ends, and prepare it for sending.

The bytes are never serialised anew: fields are found where they stand, and changes are cut out of or put into the
content. `normalise` makes every line end CRLF; `parse` accepts any bytes. A line of the header section that is no field
and no continuation stays where it is, as a `Field` without a name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from relay.mail.address_list import addresses_in, is_well_formed
from relay.mail.header_text import decoded, without_folds
from relay.mail.reply import Reply

MAX_LINE_BYTES = 998
"""of a line without its end (RFC 5322 2.1.1, RFC 5321 4.5.3.1.6)"""
MAX_HEADER_BYTES = 262_144
MAX_FIELDS = 1_000
MAX_FIELD_BYTES = 32_768
"""of all fields of one name together, where the relay reads that field. These three limits hold at acceptance only."""
LARGE_HEAD_BYTES = 16_384
MAX_KEPT_CHARS = 1_000
"""of a Message-ID, in the store"""
MAX_AUTHORS = 100
"""addresses of all From fields that are read"""
MAX_RECEIVED = 50
"""RFC 5321 6.3: more trace fields than this is a loop"""

_FIELD = re.compile(rb"(?:([^\x00-\x20\x7f:]+)[ \t]*:)?([^\n]*(?:\n[ \t][^\n]*)*)(?:\n|\Z)")
# What may stand before the first field: an mbox separator, continuation lines with no field before them.
_BEFORE_FIELDS = re.compile(rb"(?:>?From [^\n]*\n)?(?:[ \t][^\n]*\n)*")
_FIELD_START = re.compile(rb"[^\x00-\x20\x7f:]+[ \t]*:")
_BARE_CR = re.compile(rb"\r(?!\n)")
_READ_FIELDS = re.compile(
    r"from|sender|reply-to|to|cc|bcc|subject|date|message-id|in-reply-to|references|mime-version|auto-submitted"
    r"|(?:resent|content|list|x-relay)-.*"
)
_SLICE_BYTES = 1_048_576
"""the piece of a large content that one step handles: each step holds the interpreter's lock"""


class Unacceptable(Exception):
    """The message is refused for good. `reply` is the client's."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(str(reply))
        self.reply = reply


class Field(NamedTuple):
    """One header field. `name` is lower-case ('' for a line that is no field); `value` is all that follows the colon,
    folding included, without the last line end; `start` and `end` are its place in the content, line end included."""

    name: str
    value: bytes
    start: int
    end: int


class Message(NamedTuple):
    """A message's bytes, and where its header section and body are."""

    content: bytes
    fields: tuple[Field, ...]
    head_end: int
    """offset behind the last field"""
    body_at: int
    """offset of the body: behind the blank line, or `head_end` where there is none"""


class Prepared(NamedTuple):
    """A message as the relay stores and sends it."""

    content: bytes
    message_id: str
    """one line with angle brackets: the app's own (MAX_KEPT_CHARS of it), or the added one"""


def parse(content: bytes, *, limited: bool = False) -> Message:
    """Find the fields and the body of any bytes. Raises Unacceptable only where the header section is `limited`."""
    if content[:2] == b"\r\n" or content[:1] == b"\n":
        return Message(content, (), 0, 1 if content[:1] == b"\n" else 2)
    before = _BEFORE_FIELDS.match(content)
    if _FIELD_START.match(content, before.end() if before else 0) is None:
        return Message(content, (), 0, 0)
    head_end, body_at, open_ended = _header_section(content)
    fields: list[Field] = []
    for found in _FIELD.finditer(content, 0, head_end):
        start, end = found.span()
        name = found[1]
        if start == end:
            break
        if name is None:
            if open_ended and fields and fields[-1].name:
                # Without a blank line, the first line that is no field begins the body.
                return Message(content, tuple(fields), start, start)
            name = b""
        if limited:
            _check_section(len(fields) + 1, end)
        value = found[2]
        fields.append(Field(name.lower().decode("latin-1"), value[:-1] if value[-1:] == b"\r" else value, start, end))
    if limited and head_end > MAX_FIELD_BYTES:
        _check_fields(fields)
    return Message(content, tuple(fields), head_end, body_at)


def _check_section(fields: int, size_bytes: int) -> None:
    if size_bytes > MAX_HEADER_BYTES:
        raise Unacceptable(Reply(554, f"5.6.0 header section is larger than {MAX_HEADER_BYTES} bytes"))
    if fields > MAX_FIELDS:
        raise Unacceptable(Reply(554, f"5.6.0 more than {MAX_FIELDS} header fields"))


def _check_fields(fields: list[Field]) -> None:
    sizes: dict[str, int] = {}
    for field in fields:
        size = sizes[field.name] = sizes.get(field.name, 0) + len(field.value)
        if size > MAX_FIELD_BYTES and _READ_FIELDS.fullmatch(field.name):
            raise Unacceptable(Reply(554, f"5.6.0 a header field is larger than {MAX_FIELD_BYTES} bytes"))


def _header_section(content: bytes) -> tuple[int, int, bool]:
    """End of the header section, start of the body, and whether no blank line divides them."""
    blank = content.find(b"\n\r\n")
    bare = content.find(b"\n\n", 0, blank + 1 if blank >= 0 else len(content))
    if bare >= 0:
        return bare + 1, bare + 2, False
    if blank >= 0:
        return blank + 1, blank + 3, False
    return len(content), len(content), True


def has_large_head(content: bytes) -> bool:
    """Whether the header section is so large that parsing it would block the event loop too long."""
    return (
        len(content) > LARGE_HEAD_BYTES
        and content.find(b"\n\r\n", 0, LARGE_HEAD_BYTES) < 0
        and content.find(b"\n\n", 0, LARGE_HEAD_BYTES) < 0
    )


def first(message: Message, name: str) -> bytes | None:
    """The raw value of the first field of that (lower-case) name."""
    for field in message.fields:
        if field.name == name:
            return field.value
    return None


def subject(message: Message) -> str:
    """The subject as one decoded line, '' without one. It may hold a code: redact it before it is stored."""
    raw = first(message, "subject")
    return "" if raw is None else decoded(raw)


def from_addresses(message: Message) -> tuple[str, ...]:
    """The addresses of every From field, domains in lower case, MAX_AUTHORS at most. Encoded words are not decoded, so
    a display name can't pose as an address."""
    found: list[str] = []
    for field in message.fields:
        if field.name == "from":
            found += _author(field.value) if len(field.value) <= _AUTHOR_BYTES else _authors(field.value)
            if len(found) >= MAX_AUTHORS:
                break
    return tuple(found[:MAX_AUTHORS])


def has_clear_authors(message: Message) -> bool:
    """Whether all programs read the same addresses from the From fields as `from_addresses`."""
    return all(is_well_formed(without_folds(field.value)) for field in message.fields if field.name == "from")


_AUTHOR_BYTES = 1_000
_SIGNS = (b",", b"<", b">", b":", b";", b'"', b"(", b")", b"[", b"\\")
_MAX_SIGNS = 2_000


@lru_cache(maxsize=128)
def _author(value: bytes) -> list[str]:
    """Cached, since an app has few senders."""
    text = without_folds(value)
    # A quote that is never closed hides the address: then read again without quotes.
    return addresses_in(text) or addresses_in(text.replace('"', ""))


@lru_cache(maxsize=2)
def _authors(value: bytes) -> list[str]:
    """Cached, since they are read several times for one message. Empty for a value with more signs than a program
    writes: if only its beginning were read, a piece of a name could pose as an address."""
    return _author.__wrapped__(value) if sum(map(value.count, _SIGNS)) <= _MAX_SIGNS else []


def normalise(content: bytes) -> bytes:
    """The content with CRLF at every line's end, also the last; the same object where nothing changes.

    Raises Unacceptable for a NUL, and for a bare CR in the header section: as a line end it would make a header field
    that the author of the text never wrote.
    """
    content = _with_crlf(content, has_head=True) if len(content) <= _SLICE_BYTES else _large_with_crlf(content)
    if content and not content.endswith(b"\n"):
        content += b"\r\n"
    return content


def normalised(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """`normalise`, of a content that comes in pieces. The first one holds the header section. Raises as it does."""
    held, has_head, ended = b"", True, True
    for piece in pieces:
        piece, held = (held + piece[:-1], b"\r") if piece.endswith(b"\r") else (held + piece, b"")
        if piece:
            yield _with_crlf(piece, has_head=has_head)
            has_head, ended = False, piece.endswith(b"\n")
    if held:
        yield _with_crlf(held, has_head=has_head)
    elif not ended:
        yield b"\r\n"


def _large_with_crlf(content: bytes) -> bytes:
    pieces: list[bytes] = []
    at, changed = 0, False
    while at < len(content):
        end = at + _SLICE_BYTES
        if content[end - 1 : end + 1] == b"\r\n":
            end -= 1
        piece = content[at:end]
        # A header section longer than the first piece is refused for its size.
        pieces.append(_with_crlf(piece, has_head=at == 0))
        changed |= pieces[-1] is not piece
        at = end
    return b"".join(pieces) if changed else content


def _with_crlf(content: bytes, *, has_head: bool) -> bytes:
    pairs = content.count(b"\r\n")
    if b"\0" in content:
        raise Unacceptable(Reply(554, "5.6.0 NUL in the message"))
    if content.count(b"\n") != pairs:
        content = content.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
        pairs = content.count(b"\r\n")
    if content.count(b"\r") != pairs:
        blank = -2 if content[:2] == b"\r\n" else content.find(b"\r\n\r\n")
        head = content if blank == -1 else content[: blank + 2]
        if has_head and _BARE_CR.search(head):
            raise Unacceptable(Reply(554, "5.6.0 bare CR in the header section"))
        content = content.replace(b"\r\n", b"\n").replace(b"\r", b"\n").replace(b"\n", b"\r\n")
    return content


def prepare(message: Message, *, trace: bytes, date: bytes, message_id: str) -> Prepared:
    """Put `trace` (see `received`) on top, a missing Date and Message-ID below it, and remove Bcc, Resent-Bcc and
    X-Relay-*. Nothing else changes. `message_id` has angle brackets, `date` is made by `rfc5322_date`.

    Fields are added on top, so that they come before any malformed line, and because DKIM (RFC 6376 5.4.2) picks fields
    from the bottom up: signatures of others stay valid. Raises Unacceptable when the message is in a loop.
    """
    names = [field.name for field in message.fields]
    if names.count("received") > MAX_RECEIVED:
        raise Unacceptable(Reply(554, "5.4.6 too many hops"))
    added = [trace]
    if "date" not in names:
        added.append(b"Date: " + date + b"\r\n")
    own_id = first(message, "message-id")
    if own_id is None:
        added.append(b"Message-ID: " + message_id.encode() + b"\r\n")
    content = memoryview(message.content)  # so a large content is copied once
    # Below a leading line that is no field: if it is folded, it would continue our field.
    at = next((field.start for field in message.fields if field.name), 0)
    pieces: list[bytes | memoryview] = [content[:at], *added]
    for field in message.fields:
        if field.name in ("bcc", "resent-bcc") or field.name.startswith("x-relay-"):
            pieces.append(content[at : field.start])
            at = field.end
    if message.head_end == message.body_at < len(content):
        pieces += [content[at : message.head_end], b"\r\n"]
        at = message.head_end
    pieces.append(content[at:])
    return Prepared(b"".join(pieces), message_id if own_id is None else decoded(own_id)[:MAX_KEPT_CHARS])


def over_long_line(content: bytes, limit: int = MAX_LINE_BYTES) -> bool:
    """Whether a line of CRLF-ended content is longer than `limit` octets without its end."""
    at, size = 0, len(content)
    while size - at > limit:
        end = content.rfind(b"\n", at, at + limit + 2)
        if end < 0:
            return True
        at = end + 1
    return False
