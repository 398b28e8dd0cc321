"""Take a message apart for an API that builds another one from JSON, where that one means the same.

What isn't carried is left to the upstreams that take the message's bytes. So each doubt is a no: a part that an API
can't express, and whatever two programs could read in two ways.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

from relay.mail.compose import shown
from relay.mail.exact import CannotRebuild, Value, body_bytes, body_text, unfolded, value_of, words_decoded
from relay.mail.mailboxes import author_of, mailboxes
from relay.mail.message import Field, Message, Unacceptable, parse
from relay.mail.mime import find_fence
from relay.providers.api import Attachment, Mailbox, Rebuilt, same
from relay.providers.webhook import Field as Header

__all__ = ["CannotRebuild", "carried_by", "rebuilt"]

MAX_PREAMBLE_BYTES = 200
MAX_PARTS = 100
"""of one multipart; only the first of them may be one itself, of two parts"""

_DROPPED = frozenset({"received", "return-path", "date", "mime-version", "content-length", "content-md5"})
"""traces, and what another message has anew"""
_ENTITY = frozenset({"content-type", "content-transfer-encoding", "content-disposition"})
_TEXTS_ON_CONTENT = frozenset({"content-language", "content-description"})
_ONCE = frozenset({
    "from", "sender", "reply-to", "to", "cc", "subject", "date", "message-id", "in-reply-to", "references",
    "mime-version", "return-path",
})  # fmt: skip
"""RFC 5322 3.6; and each Content-*"""
_NEVER = {
    "dkim-signature": "a signature in the header",
    "domainkey-signature": "a signature in the header",
    "bcc": "a Bcc field",
}
# RFC 2047 5: encoded words stand in text only. Here they stay as they are, and raw 8-bit text has no place.
_STRUCTURED = frozenset({
    "message-id", "in-reply-to", "references", "keywords", "auto-submitted", "authentication-results", "received-spf",
    "disposition-notification-to", "disposition-notification-options", "return-receipt-to", "errors-to",
    "mail-followup-to", "mail-reply-to", "original-message-id", "delivered-to", "x-original-to", "content-language",
    "feedback-id", "precedence", "importance", "priority", "x-priority", "autocrypt", "openpgp",
})  # fmt: skip
_PART_FIELDS = _ENTITY | _TEXTS_ON_CONTENT | {"mime-version", "content-length", "content-md5", "x-attachment-id"}
"""those that a part may have. All but _ENTITY are dropped: readers don't show them"""

_BLANK_FOLD = re.compile(rb"\n[ \t]++(?:\r|\Z)")
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")
"""RFC 2046 5.1.1"""
_UNWANTED = {
    "multipart/related": "inline parts (multipart/related)",
    "multipart/signed": "a signature (multipart/signed)",
    "multipart/encrypted": "an encrypted body",
    "multipart/report": "a report",
    "message/rfc822": "a message within the message",
    "message/delivery-status": "a delivery status",
    "text/calendar": "a calendar part",
    "application/pkcs7-mime": "an encrypted or signed body",
    "application/x-pkcs7-mime": "an encrypted or signed body",
    "application/pkcs7-signature": "a signature (S/MIME)",
    "application/x-pkcs7-signature": "a signature (S/MIME)",
    "application/pgp-encrypted": "an encrypted body",
    "application/pgp-signature": "a signature (OpenPGP)",
}
_FILE_PARAMETERS = frozenset({"name", "charset", "x-unix-mode", "x-mac-type", "x-mac-creator", "x-mac-hide-extension"})
_DISPOSITION_PARAMETERS = frozenset({"filename", "size", "creation-date", "modification-date", "read-date"})


def rebuilt(content: bytes) -> Rebuilt:
    """A message with CRLF line ends, in the terms of a JSON API. Raises CannotRebuild where something would be lost.

    Left out, as no part of what the message says: trace fields, MIME's fields, a Sender that is the author, and Date,
    in whose place the API sets the time of sending. An attachment's description, language, dates and size are left
    out too. Charsets and transfer encodings may change, since text and data are decoded.
    """
    # Programs differ in what they take for a line's end.
    if b"\0" in content or not content.count(b"\r\n") == content.count(b"\n") == content.count(b"\r"):
        raise CannotRebuild("NUL, or a line end that is not CRLF")
    message = _parsed(content, "the header section")
    fields = _single_fields(message)
    author = _author(fields)
    headers = tuple(_header(message, field) for field in message.fields if not _is_apart(field.name))
    body = _body(message, fields)
    if _is_blank(body.text) and _is_blank(body.html):
        raise CannotRebuild("no text")
    return Rebuilt(
        author=author,
        to=_addresses(fields, "to", "To"),
        cc=_addresses(fields, "cc", "Cc"),
        reply_to=_addresses(fields, "reply-to", "Reply-To"),
        subject=words_decoded(unfolded(fields["subject"].value)) if "subject" in fields else "",
        text=body.text,
        html=body.html,
        attachments=body.attachments,
        headers=headers,
    )


def carried_by(rebuilt: Rebuilt, allows_header: Callable[[str], bool], recipients: Sequence[str]) -> str | None:
    """Why an API can't carry the message to these envelope recipients; None: it can. `allows_header` is asked with the
    name of a field in lower case. The reason quotes nothing of the message but names of fields."""
    if not recipients:
        return "no recipient"
    # A JSON API sends to each address that it is to show.
    wanted = {same(one) for one in recipients}
    if any(same(one.address) not in wanted for one in (*rebuilt.to, *rebuilt.cc)):
        return "an address in To or Cc that is no recipient"
    seen: set[str] = set()
    for field in rebuilt.headers:
        name = field.name.lower()
        if not allows_header(name):
            return f"a field {shown(field.name)} that the API can't set"
        # Most APIs take an object, which has each name once.
        if name in seen:
            return f"more than one field {shown(field.name)}"
        seen.add(name)
    return None


def _parsed(content: bytes, where: str) -> Message:
    """A message or a part whose header section all programs read alike."""
    try:
        message = parse(content, limited=True)
    except Unacceptable:
        raise CannotRebuild(f"too much in {where}") from None
    if message.head_end == message.body_at < len(content):
        raise CannotRebuild(f"no blank line behind {where}")
    if message.head_end and _BLANK_FOLD.search(content, 0, message.head_end):
        raise CannotRebuild(f"a line of blanks in {where}")
    for field in message.fields:
        # RFC 5322 4.5: blanks before the colon are obsolete.
        at = field.start + len(field.name)
        if not field.name or not field.name.isascii() or content[at : at + 1] != b":":
            raise CannotRebuild(f"a line in {where} that is no field")
    return message


def _single_fields(message: Message) -> dict[str, Field]:
    """The fields that may stand once, by name."""
    found: dict[str, Field] = {}
    for field in message.fields:
        name = field.name
        if name in _NEVER:
            raise CannotRebuild(_NEVER[name])
        if name.startswith("arc-"):
            raise CannotRebuild("a signature in the header")
        if name.startswith("resent-"):
            raise CannotRebuild("a resent message")
        if name not in _ONCE and not name.startswith("content-"):
            continue
        if name in found:
            raise CannotRebuild(f"more than one field {shown(name)}")
        found[name] = field
    return found


def _is_apart(name: str) -> bool:
    """Whether a field of the message is no header of Rebuilt."""
    return name in _DROPPED or name in _ENTITY or name in ("from", "sender", "reply-to", "to", "cc", "subject")


def _header(message: Message, field: Field) -> Header:
    written = message.content[field.start : field.start + len(field.name)].decode()
    if field.name.startswith("content-") and field.name not in _TEXTS_ON_CONTENT:
        raise CannotRebuild(f"a field {shown(written)} that an API can't set")
    value = unfolded(field.value)
    if field.name not in _STRUCTURED and not field.name.startswith("list-"):
        return Header(written, words_decoded(value))
    if not value.isascii():
        raise CannotRebuild(f"8-bit bytes in a field {shown(written)}")
    return Header(written, value)


def _author(fields: dict[str, Field]) -> Mailbox:
    if "from" not in fields:
        raise CannotRebuild("no From")
    authors = author_of(fields["from"].value, "From")
    if len(authors) != 1:
        raise CannotRebuild("more than one author")
    if "sender" in fields:
        senders = author_of(fields["sender"].value, "Sender")
        if [same(one.address) for one in senders] != [same(authors[0].address)]:
            raise CannotRebuild("a Sender that is not the author")
    return authors[0]


def _addresses(fields: dict[str, Field], name: str, field: str) -> tuple[Mailbox, ...]:
    return mailboxes(fields[name].value, field) if name in fields else ()


class _Body(NamedTuple):
    text: str | None
    html: str | None
    attachments: tuple[Attachment, ...] = ()


class _Entity(NamedTuple):
    """A message or a part (RFC 2045 2.4)."""

    kind: Value
    encoding: str
    disposition: Value | None
    body: bytes


def _body(message: Message, fields: dict[str, Field]) -> _Body:
    whole = _entity(message, fields)
    if whole.kind.main != "multipart/mixed":
        return _texts(whole)
    first, *others = _parts(whole)
    return _texts(first)._replace(attachments=tuple(map(_attachment, others)))


def _entity(message: Message, fields: dict[str, Field]) -> _Entity:
    kind, disposition = fields.get("content-type"), fields.get("content-disposition")
    encoding = fields.get("content-transfer-encoding")
    return _Entity(
        # RFC 2045 5.2
        Value("text/plain", {}) if kind is None else value_of(kind.value, "Content-Type"),
        "" if encoding is None else unfolded(encoding.value).lower(),
        None if disposition is None else value_of(disposition.value, "Content-Disposition"),
        message.content[message.body_at :],
    )


def _part(content: bytes) -> _Entity:
    message = _parsed(content, "a part's header section")
    fields: dict[str, Field] = {}
    for field in message.fields:
        name = field.name
        if name == "content-id":
            raise CannotRebuild("an inline part (Content-ID)")
        if name not in _PART_FIELDS:
            raise CannotRebuild(f"a part with a field {shown(name)}")
        if name in fields:
            raise CannotRebuild(f"a part with more than one field {shown(name)}")
        fields[name] = field
    return _entity(message, fields)


def _parts(whole: _Entity) -> list[_Entity]:
    """The parts of a multipart, one at least."""
    if whole.encoding not in ("", "7bit", "8bit", "binary"):
        raise CannotRebuild("a multipart with an encoding of its own")
    boundary = whole.kind.parameters.get("boundary", "")
    # RFC 2045 defines no charset for a multipart, but some programs write one.
    if not _BOUNDARY.fullmatch(boundary) or not whole.kind.parameters.keys() <= {"boundary", "charset"}:
        raise CannotRebuild("a multipart without a plain boundary, or with unknown parameters")
    if whole.disposition is not None:
        _check_inline(whole.disposition)
    mark, body = boundary.encode(), whole.body
    fence = find_fence(body, mark)
    if fence is None:
        raise CannotRebuild("a multipart without parts")
    # RFC 2046 5.1.1: readers ignore it. Many programs write "This is a multi-part message in MIME format." there.
    if len(body[: fence.start].strip()) > MAX_PREAMBLE_BYTES:
        raise CannotRebuild("text before the first part")
    found: list[_Entity] = []
    while not fence.closing:
        start = fence.end
        fence = find_fence(body, mark, start)
        if fence is None:
            raise CannotRebuild("a multipart that is cut short")
        if len(found) == MAX_PARTS:
            raise CannotRebuild(f"more than {MAX_PARTS} parts")
        # The line end before a fence belongs to the fence (RFC 2046 5.1.1).
        found.append(_part(body[start : fence.start].removesuffix(b"\r\n")))
    if not found:
        raise CannotRebuild("a multipart without parts")
    if body[fence.end :].strip():
        raise CannotRebuild("text behind the last part")
    return found


def _texts(entity: _Entity) -> _Body:
    """Text, HTML, or both as alternatives."""
    match entity.kind.main:
        case "text/plain":
            return _Body(_text(entity), None)
        case "text/html":
            return _Body(None, _text(entity))
        case "multipart/alternative":
            parts = _parts(entity)
            if [one.kind.main for one in parts] != ["text/plain", "text/html"]:
                raise CannotRebuild("alternatives other than text and then HTML")
            return _Body(_text(parts[0]), _text(parts[1]))
        case kind:
            raise CannotRebuild(_UNWANTED.get(kind, "a body that is neither text nor HTML"))


def _text(entity: _Entity) -> str:
    parameters = entity.kind.parameters
    # RFC 3676: flowed text is shown with other line ends than it has.
    if parameters.get("format", "fixed").lower() != "fixed" or not parameters.keys() <= {"charset", "format"}:
        raise CannotRebuild("flowed text, or a text with unknown parameters")
    if entity.disposition is not None:
        _check_inline(entity.disposition)
    return body_text(body_bytes(entity.body, entity.encoding), parameters.get("charset", "us-ascii"))


def _check_inline(disposition: Value) -> None:
    if disposition.main != "inline" or disposition.parameters:
        raise CannotRebuild("a text that is an attachment")


def _attachment(entity: _Entity) -> Attachment:
    kind, parameters = entity.kind
    disposition = entity.disposition
    if kind in _UNWANTED or kind.startswith(("multipart/", "message/")):
        raise CannotRebuild(_UNWANTED.get(kind, "parts within parts"))
    if disposition is None:
        filename = "" if kind.startswith("text/") else parameters.get("name", "")
    elif disposition.main == "attachment" and disposition.parameters.keys() <= _DISPOSITION_PARAMETERS:
        filename = disposition.parameters.get("filename") or parameters.get("name", "")
    else:
        raise CannotRebuild("an inline part, or one of an unknown disposition")
    if not filename or "/" not in kind:
        raise CannotRebuild("a part that is neither the text nor a named attachment")
    # `method` of a calendar, `smime-type` and the like say what a reader does with the file.
    if not parameters.keys() <= _FILE_PARAMETERS:
        raise CannotRebuild("an attachment with unknown parameters")
    if parameters.get("charset", "utf-8").lower() not in ("utf-8", "us-ascii"):
        raise CannotRebuild("an attached text in a charset that an API can't name")
    return Attachment(filename, kind, body_bytes(entity.body, entity.encoding))


def _is_blank(text: str | None) -> bool:
    return not text or text.isspace()
