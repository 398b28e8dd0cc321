"""Write delivery status notifications: which outcomes are reported (RFC 3461), and the report (RFC 3464, RFC 6533)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from relay.mail.address import xtext_decode
from relay.mail.codes.masking import MASK
from relay.mail.dsn_returned import quoted_printable, returned_part
from relay.mail.envelope import Envelope, Notify, Recipient
from relay.mail.header_text import decoded, one_line
from relay.mail.message import MAX_KEPT_CHARS, MAX_LINE_BYTES, Message, first, parse, subject
from relay.mail.redact import redact, redact_reply
from relay.mail.reply import is_own
from relay.mail.trace import rfc5322_date

Kind = Literal["failed", "expired", "delayed", "relayed"]


@dataclass(frozen=True, slots=True)
class RecipientReport:
    """The outcome of one recipient, as a notification reports it."""

    recipient: Recipient
    kind: Kind
    """`relayed`: handed to an upstream that sends no success reports (RFC 3461 6.2.3)"""
    reply: str | None = None
    """the last reply, the upstream's or the relay's own: `550 5.1.1 No such user`"""
    remote_mta: str | None = None
    """host name of the upstream that sent the reply"""
    attempted_at: float | None = None
    retry_until: float | None = None
    """when `delayed`: until when the relay retries"""


@dataclass(frozen=True, slots=True)
class Stamp:
    """The author and time of a report, and its unguessable names."""

    hostname: str
    now: float
    message_id: str
    """angle brackets included"""
    boundary: str


@dataclass(frozen=True, slots=True)
class Bounce:
    """A notification to the sender of a message, with its own envelope."""

    envelope: Envelope
    content: bytes


def wants_success(recipient: Recipient) -> bool:
    return recipient.notify is not None and "SUCCESS" in recipient.notify


def bounces(envelope: Envelope, outcomes: Sequence[RecipientReport]) -> tuple[RecipientReport, ...] | None:
    """The outcomes to report to the sender; None where there are none, or the sender is null."""
    # RFC 5321 4.5.5: never bounce a bounce, or two servers loop for ever.
    if envelope.sender == "":
        return None
    return tuple(report for report in outcomes if _is_wanted(envelope, report)) or None


def _is_wanted(envelope: Envelope, report: RecipientReport) -> bool:
    notify = report.recipient.notify
    if notify is not None:
        return _NOTIFY[report.kind] in notify
    # RFC 3461 4.1: failures are reported by default. It leaves delays open, and programs seldom read such mail; but
    # RFC 2852 has them reported once the time of a DELIVERBY with mode N has passed.
    by = envelope.deliver_by
    return _has_failed([report]) or (report.kind == "delayed" and by is not None and by.mode == "N")


def bounce(
    envelope: Envelope, outcomes: Sequence[RecipientReport], content: bytes, *, stamp: Stamp, arrived_at: float
) -> Bounce | None:
    """The notification that these outcomes of a message require; None where they require none."""
    reports = bounces(envelope, outcomes)
    if reports is None:
        return None
    status = delivery_status(envelope, reports, content, stamp=stamp, arrived_at=arrived_at)
    # RFC 3461 6.1: no report about a report.
    back = Envelope(
        "", (Recipient(envelope.sender, notify=frozenset({"NEVER"})),), smtputf8=_is_utf8(envelope, reports)
    )
    return Bounce(back if status.isascii() else back._replace(body="8BITMIME"), status)


def delivery_status(
    envelope: Envelope, reports: Sequence[RecipientReport], content: bytes, *, stamp: Stamp, arrived_at: float
) -> bytes:
    """The multipart/report about a message that arrived at `arrived_at` (seconds since the epoch).

    The subject is redacted in the part for people and in the returned headers. Only RET=FULL on a failure returns the
    message as it is (RFC 3461 4.3).
    """
    utf8 = _is_utf8(envelope, reports)
    message = parse(content)
    parts = [
        _explanation(reports, message, stamp, arrived_at),
        _status(envelope, reports, stamp, arrived_at, utf8=utf8),
        returned_part(message, is_full=envelope.ret == "FULL" and _has_failed(reports), utf8=utf8),
    ]
    fence = b"--" + stamp.boundary.encode()
    body = b"".join(fence + b"\r\n" + part + b"\r\n" for part in parts) + fence + b"--\r\n"
    return _head(envelope, reports, message, stamp, eight_bit=not body.isascii()) + b"\r\n" + body


def _is_utf8(envelope: Envelope, reports: Sequence[RecipientReport]) -> bool:
    """Whether an address needs the formats of RFC 6533."""
    return not (envelope.sender.isascii() and all(report.recipient.address.isascii() for report in reports))


_NOTIFY: dict[Kind, Notify] = {"failed": "FAILURE", "expired": "FAILURE", "delayed": "DELAY", "relayed": "SUCCESS"}
_ACTIONS: dict[Kind, str] = {"failed": "failed", "expired": "failed", "delayed": "delayed", "relayed": "relayed"}
_CLASSES: dict[Kind, str] = {"failed": "5", "expired": "5", "delayed": "4", "relayed": "2"}
_SUBJECTS: dict[Kind, str] = {
    "failed": "Undelivered mail",
    "expired": "Undelivered mail",
    "delayed": "Delayed mail (still being retried)",
    "relayed": "Relayed mail",
}
_SENTENCES: dict[Kind, str] = {  # the worst first
    "failed": "Your message could not be delivered to:",
    "expired": "Your message was not sent in time, and will not be sent any more, to:",
    "delayed": "Your message could not be sent yet, and the relay goes on trying, to:",
    "relayed": "Your message was handed on, by a system that won't report its delivery, to:",
}


def _has_failed(reports: Sequence[RecipientReport]) -> bool:
    return any(_ACTIONS[report.kind] == "failed" for report in reports)


_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,900}>")


def _head(
    envelope: Envelope, reports: Sequence[RecipientReport], message: Message, stamp: Stamp, *, eight_bit: bool
) -> bytes:
    kinds = {report.kind for report in reports}
    worst = next(kind for kind in _SENTENCES if kind in kinds)
    lines = [
        f"Date: {rfc5322_date(stamp.now).decode()}",
        f"From: Mail Delivery System <MAILER-DAEMON@{stamp.hostname}>",
        f"To: <{envelope.sender}>",
        f"Subject: {_SUBJECTS[worst]}",
        f"Message-ID: {stamp.message_id}",
    ]
    about = _message_id(message)
    if _MESSAGE_ID.fullmatch(about):
        lines += [f"In-Reply-To: {about}", f"References: {about}"]
    lines += [
        "Auto-Submitted: auto-replied",
        "MIME-Version: 1.0",
        f'Content-Type: multipart/report; report-type=delivery-status;\r\n\tboundary="{stamp.boundary}"',
    ]
    if eight_bit:
        lines.append("Content-Transfer-Encoding: 8bit")
    return "\r\n".join(lines).encode() + b"\r\n"


def _message_id(message: Message) -> str:
    return decoded(first(message, "message-id") or b"")[:MAX_KEPT_CHARS]


def _explanation(reports: Sequence[RecipientReport], message: Message, stamp: Stamp, arrived_at: float) -> bytes:
    about = _message_id(message)
    lines = [f"This is the mail relay at {stamp.hostname}."]
    for kind, sentence in _SENTENCES.items():
        of_kind = [report for report in reports if report.kind == kind]
        if of_kind:
            lines += ["", sentence, ""]
        for report in of_kind:
            lines.append(f"  {report.recipient.address}")
            if report.reply:
                by = f" (said by {report.remote_mta})" if report.remote_mta and not is_own(report.reply) else ""
                lines.append(f"    {redact_reply(report.reply)}{by}")
            if report.kind == "delayed" and report.retry_until is not None:
                lines.append(f"    trying until {rfc5322_date(report.retry_until).decode()}")
    lines += [
        "",
        f"Subject:    {_shown(subject(message))}",
        *([f"Message-ID: {about}"] if about else []),
        f"Received:   {rfc5322_date(arrived_at).decode()}",
        "",
        "Codes are hidden in this report.",
        "",
    ]
    text = "\n".join(lines)
    if text.isascii() and all(len(line) <= MAX_LINE_BYTES for line in lines):
        return b"Content-Type: text/plain; charset=us-ascii\r\n\r\n" + text.replace("\n", "\r\n").encode()
    return (
        b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n"
        + quoted_printable(text.encode())
    )


def _shown(line: str) -> str:
    return redact(line).replace(MASK, "******")


_ENHANCED = re.compile(r"[245]\d\d[ -]([245]\.\d{1,3}\.\d{1,3})\b")
_UTF8_ADDRESS = re.compile(r"\\x\{([0-9A-F]{2,6})\}")


def _status(
    envelope: Envelope, reports: Sequence[RecipientReport], stamp: Stamp, arrived_at: float, *, utf8: bool
) -> bytes:
    kind = b"message/global-delivery-status" if utf8 else b"message/delivery-status"
    head = b"Content-Type: " + kind + b"\r\n" + (b"Content-Transfer-Encoding: 8bit\r\n" if utf8 else b"")
    fields = []
    if envelope.envid is not None:
        fields.append(("Original-Envelope-Id", _from_xtext(envelope.envid)))
    fields += [("Reporting-MTA", f"dns; {stamp.hostname}"), ("Arrival-Date", rfc5322_date(arrived_at).decode())]
    groups = [fields, *(_about(report, utf8=utf8) for report in reports)]
    return head + b"".join(
        b"\r\n" + b"".join(_field(name, value, utf8=utf8) for name, value in group) for group in groups
    )


def _about(report: RecipientReport, *, utf8: bool) -> list[tuple[str, str]]:
    """The per-recipient fields (RFC 3464 2.3)."""
    recipient, fields = report.recipient, []
    original = _original_recipient(recipient.orcpt, utf8=utf8)
    if original is not None:
        fields.append(("Original-Recipient", original))
    family = "rfc822" if recipient.address.isascii() else "utf-8"
    fields += [
        ("Final-Recipient", f"{family}; {recipient.address}"),
        ("Action", _ACTIONS[report.kind]),
        ("Status", _status_code(report)),
    ]
    if report.remote_mta and not is_own(report.reply or ""):  # RFC 3464 2.3.5: the MTA that reported it
        fields.append(("Remote-MTA", f"dns; {report.remote_mta}"))
    if report.reply:
        fields.append(("Diagnostic-Code", f"smtp; {redact_reply(report.reply)}"))
    if report.attempted_at is not None:
        fields.append(("Last-Attempt-Date", rfc5322_date(report.attempted_at).decode()))
    if report.kind == "delayed" and report.retry_until is not None:
        fields.append(("Will-Retry-Until", rfc5322_date(report.retry_until).decode()))
    return fields


def _status_code(report: RecipientReport) -> str:
    """The enhanced code of the reply where its class fits the action, else the class alone."""
    if report.kind == "expired":
        return "5.4.7"  # RFC 3463 3.5: delivery time expired
    found, status_class = _ENHANCED.match(report.reply or ""), _CLASSES[report.kind]
    return found[1] if found is not None and found[1][0] == status_class else f"{status_class}.0.0"


def _original_recipient(orcpt: str | None, *, utf8: bool) -> str | None:
    if orcpt is None or ";" not in orcpt:
        return None
    family, _, address = orcpt.partition(";")
    if family.lower() != "utf-8":
        return f"{family}; {_from_xtext(address)}"
    if utf8:
        # RFC 6533 3: the unencoded form.
        address = _UTF8_ADDRESS.sub(_character, address)
    return f"{family}; {address}"


def _character(found: re.Match[str]) -> str:
    point = int(found[1], 16)
    return chr(point) if point < 0x110000 else "\ufffd"


def _from_xtext(text: str) -> str:
    try:
        return xtext_decode(text)
    except ValueError:
        return text


def _field(name: str, value: str, *, utf8: bool) -> bytes:
    """One field, folded at blanks, whatever the value holds. A word longer than a line is cut."""
    value = one_line(value)
    if not utf8:
        value = value.encode("ascii", "replace").decode()
    lines, line = [], f"{name}:"
    for word in value.split(" "):
        if len(line) + len(word) > 76 and line.strip() and not line.endswith(":"):
            lines.append(line)
            line = ""
        room = MAX_LINE_BYTES - len(line.encode()) - 1
        line += " " + word.encode()[:room].decode(errors="ignore")
    return "\r\n".join([*lines, line]).encode() + b"\r\n"
