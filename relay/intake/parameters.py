"""Parses the arguments of MAIL and RCPT: `FROM:<a@b> SIZE=100 RET=HDRS` to values. Pure.

RFC 5321 4.1.2 (paths), 1870 SIZE, 6152 BODY, 6531 SMTPUTF8, 3461 DSN, 4954 AUTH=, 6710 MT-PRIORITY, 2852 DELIVERBY.
Strict about parameters. Liberal about a blank behind the colon, missing angle brackets and the case of keywords: apps
send all three. The case of values is kept.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, cast

from relay.intake.framing import MAX_COMMAND_BYTES
from relay.intake.types import Reason
from relay.mail.address import parse_path, xtext_decode
from relay.mail.envelope import DeliverBy, Notify, Recipient
from relay.mail.reply import Reply

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_ADDRESS_TYPE = re.compile(r"[A-Za-z0-9!#$%&'*/=?^_`{|}~.-]+")
_BY = re.compile(r"([+-]?[0-9]{1,9});([NR])(T?)", re.IGNORECASE)
_PRIORITY = re.compile(r"0|-?[1-9]")
_SIZE = re.compile(r"[0-9]{1,20}")
_UTF8_CHARACTER = re.compile(r"\\x\{[0-9A-Fa-f]{2,6}\}")
"""as RFC 6533 3 writes one in ASCII"""
MAX_ENVID_CHARS = 100
"""RFC 3461 4.4"""
MAX_ORCPT_CHARS = 500
"""RFC 3461 4.2; both are limits of the decoded text"""
_NOTIFY = frozenset({"SUCCESS", "FAILURE", "DELAY"})


class BadCommand(Exception):
    """The argument is refused; `reply` gives the reason, without quoting it."""

    def __init__(self, code: int, text: str, reason: Reason = "syntax") -> None:
        super().__init__(text)
        self.reply = Reply(code, text)
        self.reason: Reason = reason


class Mail(NamedTuple):
    """The values of a MAIL command. `sender` is '' for the null sender."""

    sender: str
    size_bytes: int | None = None
    body: Literal["7BIT", "8BITMIME"] | None = None
    smtputf8: bool = False
    ret: Literal["FULL", "HDRS"] | None = None
    envid: str | None = None
    priority: int | None = None
    deliver_by: DeliverBy | None = None


def parse_mail(argument: str) -> Mail:
    """Parse MAIL's argument, `FROM:<a@b> SIZE=100`. Raises BadCommand."""
    sender, rest = _split_path(argument, "FROM:", "MAIL FROM:<address>", "5.1.7")
    given = _parameters(rest, _MAIL_PARAMETERS)
    mail = Mail(sender, **given)
    if not sender.isascii() and not mail.smtputf8:
        raise BadCommand(553, "5.6.7 An address beyond ASCII needs SMTPUTF8", "address")
    return mail


def parse_rcpt(argument: str, *, smtputf8: bool) -> Recipient:
    """Parse RCPT's argument, `TO:<a@b> NOTIFY=NEVER`. `smtputf8`: MAIL had SMTPUTF8. Raises BadCommand."""
    address, rest = _split_path(argument, "TO:", "RCPT TO:<address>", "5.1.3")
    if not address:
        raise BadCommand(553, "5.1.3 A recipient needs an address", "address")
    if not address.isascii() and not smtputf8:
        raise BadCommand(553, "5.6.7 An address beyond ASCII needs SMTPUTF8", "address")
    return Recipient(address, **_parameters(rest, _RCPT_PARAMETERS))


def _split_path(argument: str, keyword: str, syntax: str, enhanced: str) -> tuple[str, str]:
    if argument[: len(keyword)].upper() != keyword:
        raise BadCommand(501, f"5.5.4 Syntax: {syntax} [parameters]")
    if not argument.isascii():
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise BadCommand(553, "5.6.7 What isn't ASCII must be UTF-8", "address") from None
    path = argument[len(keyword) :].lstrip(" ")
    # Only parameters may make a command longer than others: RFC 5321 4.5.3.1.4.
    if len(path.partition(">" if path.startswith("<") else " ")[0]) > MAX_COMMAND_BYTES:
        raise BadCommand(500, "5.5.6 Line too long")
    try:
        return parse_path(path)
    except ValueError as error:
        raise BadCommand(501, f"{enhanced} {error}", "address") from None


def _parameters(text: str, known: dict[str, tuple[str, Callable[[str], Any]]]) -> dict[str, Any]:
    """Parse blank-separated `KEY=value`; a keyword without a value has ''."""
    fields: dict[str, Any] = {}
    seen: set[str] = set()
    for parameter in filter(None, text.split(" ")):
        keyword, equals, value = parameter.partition("=")
        keyword = keyword.upper()
        if _KEYWORD.fullmatch(keyword) is None or (equals and not value):
            raise BadCommand(501, "5.5.4 Malformed parameter")
        if keyword not in known:
            raise BadCommand(555, "5.5.4 Parameter not recognized or not implemented")
        if keyword in seen:
            raise BadCommand(501, f"5.5.4 {keyword} was given twice")
        seen.add(keyword)
        name, parse = known[keyword]
        try:
            parsed = parse(value)
        except ValueError as error:
            raise BadCommand(501, f"5.5.4 {keyword}: {error}") from None
        if name:
            fields[name] = parsed
    return fields


def _size(value: str) -> int:
    if _SIZE.fullmatch(value) is None:
        raise ValueError("expected a number of bytes")
    return int(value)


def _one_of(*allowed: str) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value.upper() not in allowed:
            raise ValueError("expected " + " or ".join(allowed))
        return value.upper()

    return parse


def _flag(value: str) -> bool:
    if value:
        raise ValueError("takes no value")
    return True


def _xtext(value: str, most_chars: int | None = None) -> str:
    """The value, still encoded, if it decodes to at most `most_chars` printable characters."""
    _check_length(xtext_decode(value), most_chars)
    return value


def _check_length(text: str, most_chars: int | None) -> None:
    if most_chars is not None and len(text) > most_chars:
        raise ValueError(f"longer than {most_chars} characters")


def _envid(value: str) -> str:
    return _xtext(value, MAX_ENVID_CHARS)


def _auth(value: str) -> None:
    # RFC 4954 section 5: the submitter that the client claims. Not trusted, so not kept.
    if value != "<>":
        _xtext(value)


def _priority(value: str) -> int:
    if _PRIORITY.fullmatch(value) is None:
        raise ValueError("expected -9 to 9")
    return int(value)


def _deliver_by(value: str) -> DeliverBy:
    found = _BY.fullmatch(value)
    if found is None:
        raise ValueError("expected seconds;R or seconds;N")
    seconds, mode = int(found[1]), found[2].upper()
    if mode == "R" and seconds <= 0:
        # RFC 2852 section 4: no message can be delivered by then.
        raise ValueError("mode R needs a time in the future")
    return DeliverBy(seconds, cast(Literal["R", "N"], mode), trace=bool(found[3]))


def _notify(value: str) -> frozenset[Notify]:
    wanted = value.upper().split(",")
    if wanted != ["NEVER"] and not _NOTIFY.issuperset(wanted):
        raise ValueError("expected NEVER, or some of SUCCESS,FAILURE,DELAY")
    return cast(frozenset[Notify], frozenset(wanted))


def _orcpt(value: str) -> str:
    kind, _, address = value.partition(";")
    if _ADDRESS_TYPE.fullmatch(kind) is None or not address:
        raise ValueError("expected type;address")
    if kind.lower() == "utf-8":
        # RFC 6533 section 3: UTF-8 as it is, or \x{...}; blanks and controls never.
        if not address.isprintable() or "=" in address:
            raise ValueError("expected utf-8;address")
        _check_length(_UTF8_CHARACTER.sub("x", address), MAX_ORCPT_CHARS)
        return value
    _xtext(address, MAX_ORCPT_CHARS)
    return value


_MAIL_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "SIZE": ("size_bytes", _size),
    "BODY": ("body", _one_of("7BIT", "8BITMIME")),
    "SMTPUTF8": ("smtputf8", _flag),
    "RET": ("ret", _one_of("FULL", "HDRS")),
    "ENVID": ("envid", _envid),
    "AUTH": ("", _auth),
    "MT-PRIORITY": ("priority", _priority),
    "BY": ("deliver_by", _deliver_by),
}
_RCPT_PARAMETERS: dict[str, tuple[str, Callable[[str], Any]]] = {
    "NOTIFY": ("notify", _notify),
    "ORCPT": ("orcpt", _orcpt),
}
