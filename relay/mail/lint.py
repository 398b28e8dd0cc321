"""Check a message, before it is sent, for what hurts a one-time code on its way to the inbox."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relay.mail.address import domain_of
from relay.mail.message import Message, from_addresses, over_long_line, parse, subject
from relay.mail.mime import Part, leaves
from relay.mail.redact import MAX_TEXT, redact

GMAIL_CLIPS_AT_BYTES = 102_400
ONLY_ONCE = ("date", "from", "sender", "reply-to", "to", "cc", "message-id", "in-reply-to", "references", "subject")
"""RFC 5322 3.6"""

_BARE_CR = re.compile(rb"\r(?!\n)")
_BARE_LF = re.compile(rb"(?<!\r)\n")
_LINK = re.compile(r"https?://(?:[^\s/@\"'<>]{0,200}@)?([^\s/:?#\"'<>\])]{1,253})", re.IGNORECASE)
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "gov", "net", "org"})


@dataclass(frozen=True, slots=True)
class LintFinding:
    """`rule` is a stable name; `text` describes the mistake and its remedy, and shows no code."""

    rule: str
    text: str


def lint(content: bytes) -> tuple[LintFinding, ...]:
    """Every finding, in the order of the message. Raises Unacceptable where the header section exceeds a limit."""
    message = parse(content, limited=True)
    parts = tuple(leaves(message))
    return (*_framing(content), *_header(message), *_body(parts), *_links(message, parts))


def _framing(content: bytes) -> Iterator[LintFinding]:
    if b"\0" in content:
        yield LintFinding("nul", "a NUL byte: the relay refuses the message")
    if _BARE_CR.search(content):
        yield LintFinding("bare-cr", "a CR without LF: refused in the header section, rewritten in the body")
    # Unix stores messages with LF only; a mixture is a mistake of the program.
    if b"\r\n" in content and _BARE_LF.search(content):
        yield LintFinding("bare-lf", "LF without CR beside CRLF: the line ends are mixed")
    if over_long_line(_BARE_LF.sub(b"\r\n", content)):
        yield LintFinding("long-line", "a line over 998 octets (RFC 5322 2.1.1): relays break or refuse it")


def _header(message: Message) -> Iterator[LintFinding]:
    names = [field.name for field in message.fields]
    if "" in names or message.head_end == message.body_at < len(message.content):
        yield LintFinding("header", "a line in the header section that is no field: the message can't be signed")
    if not from_addresses(message):
        yield LintFinding("from", "no From address: nothing to align DKIM and DMARC with")
    for name, title in (("date", "Date"), ("message-id", "Message-ID")):
        if name not in names:
            yield LintFinding(name, f"no {title}: the relay adds one, but the app then can't refer to it")
    about = subject(message)[:MAX_TEXT]
    if not about:
        yield LintFinding("subject", "no subject")
    for name in ONLY_ONCE:
        if names.count(name) > 1:
            yield LintFinding("twice", f"{name} occurs {names.count(name)} times (RFC 5322 3.6): mailboxes reject that")
    if any(not field.value.isascii() for field in message.fields):
        yield LintFinding("8bit-header", "unencoded 8-bit text in the header: use RFC 2047 words")
    if "auto-submitted" not in names:
        yield LintFinding(
            "auto-submitted", "no Auto-Submitted: auto-generated (RFC 3834): out-of-office replies come back"
        )
    shown = redact(about)
    if shown != about:
        yield LintFinding("code-in-subject", f"the subject shows on locked screens; the log keeps it as {shown!r}")


def _body(parts: tuple[Part, ...]) -> Iterator[LintFinding]:
    kinds = [part.kind for part in parts]
    if "text/plain" not in kinds:
        yield LintFinding("no-text", "no text/plain part: watches, screen readers and spam filters look for it")
    elif not any(part.text.strip() for part in parts if part.kind == "text/plain"):
        yield LintFinding("empty-text", "the text/plain part is empty")
    for part in parts:
        if part.body.isascii():
            continue
        if part.encoding not in ("8bit", "binary"):
            yield LintFinding("8bit-encoding", f"8-bit bytes in a {part.kind} part not declared as 8bit")
        if part.charset is None and part.kind.startswith("text/"):
            yield LintFinding("8bit-charset", f"8-bit bytes in a {part.kind} part without a charset: read as anything")
    if any(part.kind == "text/html" and len(part.body) > GMAIL_CLIPS_AT_BYTES for part in parts):
        yield LintFinding("clipped", "an HTML part over 102,400 bytes: Gmail cuts it off")


def _links(message: Message, parts: tuple[Part, ...]) -> Iterator[LintFinding]:
    senders = [domain_of(address) for address in from_addresses(message)]
    hosts = {
        host.lower().rstrip(".")
        for part in parts
        if part.kind in ("text/plain", "text/html")
        for host in _LINK.findall(part.text)
    }
    hosts.discard("www.w3.org")  # the DTD and name space of an HTML mail are names, not links
    foreign = sorted(host for host in hosts if not any(_related(host, sender) for sender in senders))
    if senders and foreign:
        yield LintFinding("foreign-link", f"links to other domains than the sender's: {', '.join(foreign[:5])}")


def _related(host: str, sender: str) -> bool:
    """Whether both seem to be below one registered domain. There is no list of public suffixes here."""
    labels = sender.split(".")
    keep = 3 if len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL else 2
    registered = ".".join(labels[-keep:])
    return host == registered or host.endswith(f".{registered}")
