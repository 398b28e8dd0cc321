"""Makes an envelope and a message of what sendmail(8) reads from stdin. Pure.

A process is started for each message, so imports are counted: dataclasses, typing and pathlib take longer than all
else here.
"""

from __future__ import annotations

import os
import re

# sysexits(3)
EX_USAGE, EX_DATAERR, EX_NOUSER, EX_NOHOST, EX_UNAVAILABLE = 64, 65, 67, 68, 69
EX_IOERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 74, 75, 77, 78

_DOT_LINE = re.compile(rb"^\.\r?(?:\n|\Z)", re.MULTILINE)
_FIELD_LINE = re.compile(rb"[!-9;-~]+[ \t]*:|[ \t]")
_UNQUOTED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+/=?^_`{|}~- ")


class Failed(Exception):
    """The message was not submitted. `status` is the exit status, the text one line for stderr."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Request:
    """The values of the command line."""

    def __init__(self) -> None:
        self.recipients: list[str] = []
        self.from_headers = False
        self.dots_are_content = False
        self.sender: str | None = None
        """None: not given; '': the null sender"""
        self.full_name = ""
        self.config: str | None = None
        self.notify: str | None = None
        self.ret: str | None = None
        self.envid: str | None = None
        self.verbose = False
        self.help = False


class Outgoing:
    """A message ready to be submitted: CRLF line ends, not dot-stuffed, DSN parameters as in the request."""

    def __init__(self, sender: str, recipients: tuple[str, ...], content: bytes, request: Request) -> None:
        self.sender = sender
        self.recipients = recipients
        self.content = content
        self.notify = request.notify
        self.ret = request.ret
        self.envid = request.envid


def compose(request: Request, given: bytes, *, user: str, hostname: str) -> Outgoing:
    """The message and its envelope. `user` is the sender without `-f`; `hostname` completes addresses without a domain.

    Raises Failed where there is no recipient, or a text that can't be an address.
    """
    lines = _lines(given, dots_are_content=request.dots_are_content)
    header = _header(lines)
    sender = request.sender if request.sender is not None else user
    recipients = [_address(each, hostname) for each in request.recipients]
    if request.from_headers:
        recipients += [_address(each, hostname) for each in _addressed(header)]
    if not recipients:
        raise Failed(EX_USAGE, "no recipients" + (" in To, Cc or Bcc" if request.from_headers else ""))
    sender = _address(sender, hostname) if sender else ""
    if not any(line.partition(b":")[0].strip().lower() == b"from" for line in header.splitlines()):
        lines = _from_field(sender or f"{user}@{hostname}", request.full_name) + lines
    content = lines.replace(b"\n", b"\r\n")
    return Outgoing(sender, tuple(dict.fromkeys(recipients)), content, request)


def _lines(given: bytes, *, dots_are_content: bool) -> bytes:
    """The input with LF line ends (PHP's mail() mixes both), without a `From ` line, with an end of its header."""
    if not dots_are_content and (end := _DOT_LINE.search(given)) is not None:
        given = given[: end.start()]
    lines = given.replace(b"\r\n", b"\n")
    if lines.startswith((b"From ", b">From ")):
        lines = lines.partition(b"\n")[2]
    if lines and not lines.endswith(b"\n"):
        lines += b"\n"
    header = _header(lines)
    behind = lines[len(header) :]
    # The first line that is no header field begins the body, as with every sendmail.
    return lines if not behind or behind.startswith(b"\n") else header + b"\n" + behind


def _header(lines: bytes) -> bytes:
    end = 0
    while _FIELD_LINE.match(lines, end):
        end = lines.find(b"\n", end) + 1 or len(lines)
    return lines[:end]


def _addressed(header: bytes) -> list[str]:
    """The addresses in To, Cc and Bcc, local names among them."""
    from relay.mail.address_list import addresses_in

    found: list[str] = []
    for line in re.sub(rb"\n(?=[ \t])", b"", header).splitlines():
        field, _, value = line.partition(b":")
        if field.strip().lower() in (b"to", b"cc", b"bcc"):
            text = value.decode("utf-8", "replace")
            found += addresses_in(text)
            found += [name for name in map(str.strip, text.split(",")) if re.fullmatch(r"[A-Za-z0-9._+-]+", name)]
    return found


def _address(text: str, hostname: str) -> str:
    address = text.strip().removeprefix("<").removesuffix(">")
    if not address or any(char <= " " or char in "<>\x7f" for char in address):
        raise Failed(EX_USAGE, "not an address")
    return address if "@" in address else f"{address}@{hostname}"


def _from_field(address: str, full_name: str) -> bytes:
    """The From field of a message without one."""
    name = " ".join(full_name.split())
    if not name.isprintable() or not name:
        return b"From: " + os.fsencode(address) + b"\n"
    if not name.isascii():
        from binascii import b2a_base64

        # RFC 2047 2: an encoded word has at most 75 characters; the mail reader joins those of a long name.
        pieces = [name[start : start + 10].encode("utf-8", "replace") for start in range(0, len(name), 10)]
        name = "\n ".join(f"=?utf-8?b?{b2a_base64(piece, newline=False).decode()}?=" for piece in pieces)
    elif not _UNQUOTED.issuperset(name):
        name = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return f"From: {name} ".encode() + b"<" + os.fsencode(address) + b">\n"
