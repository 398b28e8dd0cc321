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
    """header fields have them too, and the app said so (SMTPUTF8)"""
    deliver_by_s: int | None = None
    """what is left of an RFC 2852 by-time"""


def unfit(mail: Mail, capabilities: Capabilities) -> Reply | None:
    """Why this upstream can't carry the mail, as it would have said itself; None: it can."""
    if capabilities.size_bytes and mail.size_bytes > capabilities.size_bytes:
        return Reply.own(552, "5.3.4", "message too big for this upstream")
    if not capabilities.smtputf8 and not (
        mail.envelope.sender.isascii() and all(one.address.isascii() for _, one in mail.recipients)
    ):
        # RFC 6531 3.5. The flag alone, on an all-ASCII envelope, stops nothing: some clients always set it.
        return Reply.own(550, "5.6.7", "this upstream takes no internationalized address")
    if mail.utf8_head and not capabilities.smtputf8:
        return Reply.own(550, "5.6.7", "this upstream takes no internationalized header")
    if mail.eightbit and not capabilities.eightbitmime:
        # RFC 6152 3: what could be converted has been.
        return Reply.own(550, "5.6.3", "this upstream takes 7-bit mail only, and this can't be re-encoded")
    return None


def commands(mail: Mail, capabilities: Capabilities) -> tuple[bytes, list[tuple[int, bytes]]]:
    """MAIL and the RCPTs with the command that this upstream understands (RFC 1870, 6152, 6531, 3461, 2852, 6710).

    Raises ValueError for an address that would break out of its command: see `writable`.
    """
    envelope = mail.envelope
    command = [f"MAIL FROM:<{_path(envelope.sender)}>"]
    if capabilities.size:
        command.append(f"SIZE={mail.size_bytes}")
    if capabilities.eightbitmime and (mail.eightbit or envelope.body == "8BITMIME"):
        command.append("BODY=8BITMIME")
    if capabilities.smtputf8 and envelope.smtputf8:
        command.append("SMTPUTF8")
    if capabilities.dsn:
        if envelope.ret is not None:
            command.append(f"RET={envelope.ret}")
        if envelope.envid is not None and _fits_a_word(envelope.envid):
            command.append(f"ENVID={envelope.envid}")
    if capabilities.mt_priority and envelope.priority is not None:
        command.append(f"MT-PRIORITY={envelope.priority}")
    if capabilities.deliverby and envelope.deliver_by is not None and mail.deliver_by_s is not None:
        trace = "T" if envelope.deliver_by.trace else ""
        command.append(f"BY={mail.deliver_by_s};{envelope.deliver_by.mode}{trace}")
    rcpts: list[tuple[int, bytes]] = []
    for position, recipient in mail.recipients:
        words = [f"RCPT TO:<{_path(recipient.address)}>"]
        if capabilities.dsn:
            if recipient.notify is not None:
                words.append("NOTIFY=" + ",".join(sorted(recipient.notify)))
            if recipient.orcpt is not None and _fits_a_word(recipient.orcpt):
                words.append(f"ORCPT={recipient.orcpt}")
        rcpts.append((position, (" ".join(words) + "\r\n").encode("utf-8")))
    return (" ".join(command) + "\r\n").encode("utf-8"), rcpts


def writable(mail: Mail) -> tuple[Mail, tuple[Result, ...]]:
    """The mail without the recipients that `commands` can't write, with the results of these. None is left of a
    mail whose sender can't be written."""
    fits = _fits_a_path(mail.envelope.sender)
    kept = [(position, one) for position, one in mail.recipients if fits and _fits_a_path(one.address)]
    positions = {position for position, _ in kept}
    refused = [position for position, _ in mail.recipients if position not in positions]
    return mail._replace(recipients=kept), tuple(Result(one, "refused", UNWRITABLE, "mail") for one in refused)


def _path(address: str) -> str:
    if not _fits_a_path(address):
        raise ValueError("not an address that can stand in a command")
    return address


def _fits_a_path(address: str) -> bool:
    return not ("\r" in address or "\n" in address or "\0" in address or ">" in address) and _is_unicode(address)


def _fits_a_word(value: str) -> bool:
    """What ends a parameter. `<` and `>` are lawful in one (RFC 3461 4: xtext)."""
    return not ("\r" in value or "\n" in value or "\0" in value or " " in value) and _is_unicode(value)


def _is_unicode(text: str) -> bool:
    """Not so is what Python made of bytes that aren't UTF-8."""
    return text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text)
