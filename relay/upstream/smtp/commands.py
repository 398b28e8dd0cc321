"""The envelope commands of a transaction, with the parameters that the session announced; pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from relay.mail.envelope import Envelope, Recipient
from relay.mail.reply import Reply
from relay.upstream.results import UNWRITABLE, Result
from relay.upstream.smtp.capabilities import Capabilities


class Mail(NamedTuple):
    """What one transaction carries: the envelope, some of its recipients, and what the content is like."""

    envelope: Envelope
    recipients: Sequence[tuple[int, Recipient]]
    """(position in the envelope, recipient)"""
    size_bytes: int
    eightbit: bool = False
    """the content has 8-bit bytes, whatever the app declared"""
    utf8_head: bool = False
    """header fields have them too, and the app announced it (SMTPUTF8)"""
    deliver_by_s: int | None = None
    """what is left of an RFC 2852 by-time"""


def unfit(mail: Mail, capabilities: Capabilities) -> Reply | None:
    """The reply with which the upstream would refuse the mail, by what it announced; None: it can carry it."""
    if capabilities.size_bytes and mail.size_bytes > capabilities.size_bytes:
        return Reply.own(552, "5.3.4", "message too big for this upstream")
    if not capabilities.smtputf8 and not (
        mail.envelope.sender.isascii() and all(one.address.isascii() for _, one in mail.recipients)
    ):
        # RFC 6531 3.5. On an all-ASCII envelope the flag alone is no obstacle: some clients always set it.
        return Reply.own(550, "5.6.7", "this upstream takes no internationalized address")
    if mail.utf8_head and not capabilities.smtputf8:
        return Reply.own(550, "5.6.7", "this upstream takes no internationalized header")
    if mail.eightbit and not capabilities.eightbitmime:
        # RFC 6152 3: it was re-encoded before, if that was possible.
        return Reply.own(550, "5.6.3", "this upstream takes 7-bit mail only, and this can't be re-encoded")
    return None


class Commands(NamedTuple):
    """The envelope as it is written."""

    mail: bytes
    rcpts: Sequence[tuple[int, bytes]]
    """(position, RCPT command)"""
    refused: tuple[Result, ...]
    """results of the recipients that no command can be written for"""


def commands(mail: Mail, capabilities: Capabilities) -> Commands:
    """MAIL and the RCPTs with the parameters that the upstream announced. An address that would break out of its
    command (a store may have one) is refused in the upstream's place; a sender like that leaves no recipient."""
    sender = mail.envelope.sender
    written = [one for one in mail.recipients if _fits_a_path(one[1].address)] if _fits_a_path(sender) else []
    refused: tuple[Result, ...] = ()
    if len(written) < len(mail.recipients):
        kept = {position for position, _ in written}
        lost = [position for position, _ in mail.recipients if position not in kept]
        refused = tuple(Result(position, "refused", UNWRITABLE, "mail") for position in lost)
    rcpts = [(position, _rcpt(recipient, dsn=capabilities.dsn)) for position, recipient in written]
    return Commands(_mail_from(mail, capabilities) if rcpts else b"", rcpts, refused)


def _mail_from(mail: Mail, capabilities: Capabilities) -> bytes:
    """RFC 5321 4.1.1.2 with the parameters of RFC 1870, 6152, 6531, 3461, 6710 and 2852."""
    envelope = mail.envelope
    words = [f"MAIL FROM:<{envelope.sender}>"]
    if capabilities.size:
        words.append(f"SIZE={mail.size_bytes}")
    if capabilities.eightbitmime and (mail.eightbit or envelope.body == "8BITMIME"):
        words.append("BODY=8BITMIME")
    if capabilities.smtputf8 and envelope.smtputf8:
        words.append("SMTPUTF8")
    if capabilities.dsn:
        if envelope.ret is not None:
            words.append(f"RET={envelope.ret}")
        if envelope.envid is not None and _fits_a_parameter(envelope.envid):
            words.append(f"ENVID={envelope.envid}")
    if capabilities.mt_priority and envelope.priority is not None:
        words.append(f"MT-PRIORITY={envelope.priority}")
    if capabilities.deliverby and envelope.deliver_by is not None and mail.deliver_by_s is not None:
        trace = "T" if envelope.deliver_by.trace else ""
        words.append(f"BY={mail.deliver_by_s};{envelope.deliver_by.mode}{trace}")
    return _line(words)


def _rcpt(recipient: Recipient, *, dsn: bool) -> bytes:
    words = [f"RCPT TO:<{recipient.address}>"]
    if dsn and recipient.notify is not None:
        words.append("NOTIFY=" + ",".join(sorted(recipient.notify)))
    if dsn and recipient.orcpt is not None and _fits_a_parameter(recipient.orcpt):
        words.append(f"ORCPT={recipient.orcpt}")
    return _line(words)


def _line(words: Sequence[str]) -> bytes:
    return (" ".join(words) + "\r\n").encode("utf-8")


def _fits_a_path(address: str) -> bool:
    return not ("\r" in address or "\n" in address or "\0" in address or ">" in address) and _is_unicode(address)


def _fits_a_parameter(value: str) -> bool:
    """`<` and `>` may stand in one (RFC 3461 4: xtext)."""
    return not ("\r" in value or "\n" in value or "\0" in value or " " in value) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    """False for what Python makes of bytes that aren't UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
