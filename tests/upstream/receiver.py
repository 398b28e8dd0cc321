"""A receiving server of messages behind each other, as RFC 5321, 2920 and 3030 describe it: bytes in, replies out.

It knows which content it accepted for which recipient. Addresses and contents carry the number of their message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

CLOSING = 421
NESTED = 503


class Change(NamedTuple):
    """What a server does in place of one reply."""

    code: int = 0
    """0: the reply as it should be"""
    closes: bool = False
    """the connection, behind the reply"""
    before: bytes = b""
    """sent in front of the reply"""
    after: bytes = b""
    is_missing: bool = False


class Said(NamedTuple):
    """A reply that was sent."""

    code: int
    to: str
    """mail N, rcpt ADDRESS, data N, dot N, rset"""


@dataclass
class Receiver:
    """`read` what the client wrote; `out` is what it answers, `ended` that it closes behind that."""

    changes: Callable[[int, str], Change] = lambda _number, _to: Change()
    """by the number of the reply, and by what it answers"""
    takes_data_for_no_one: bool = False
    """DATA is answered 354 even if no recipient was accepted (RFC 2920 3.1)"""
    discards: Callable[[int], bool] = lambda _message: False
    """whether it throws away what came in one segment behind the content of that message"""
    out: bytearray = field(default_factory=bytearray)
    ended: bool = False
    accepted: set[tuple[int, str]] = field(default_factory=set)
    """(message, recipient) for which it is responsible"""
    replies: dict[int, Said] = field(default_factory=dict)
    """by the number in their text"""
    refused: dict[str, int] = field(default_factory=dict)
    """by what it answered: the number of the last refusal"""
    errors: list[str] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)
    _buffer: bytearray = field(default_factory=bytearray)
    _message: int | None = None
    """of the envelope that is open"""
    _recipients: list[str] = field(default_factory=list)
    _in_data: bool = False
    _failed_chunk: bool = False
    """RFC 3030 4.2: until RSET all is refused"""

    def read(self, data: bytes) -> None:
        self._buffer += data
        while not self.ended and self._step():
            pass

    def _step(self) -> bool:
        if self._in_data:
            return self._data()
        end = self._buffer.find(b"\r\n")
        if end < 0:
            return False
        line = bytes(self._buffer[:end])
        if line.startswith(b"BDAT "):
            return self._chunk(line, end + 2)
        del self._buffer[: end + 2]
        self._command(line.decode())
        return True

    def _command(self, line: str) -> None:
        if found := re.fullmatch(r"MAIL FROM:<(\d+)@s>", line):
            message = int(found[1])
            code = self._answer(250 if self._message is None else NESTED, f"mail {message}")
            if code == 250:
                self._message, self._recipients = message, []
        elif found := re.fullmatch(r"RCPT TO:<(\d+)([a-z])@r>", line):
            address = line[9:-1]
            fits = self._message == int(found[1]) and not self._failed_chunk
            if self._message is not None and not fits and not self._failed_chunk:
                self.errors.append(f"{address} in the envelope of {self._message}")
            if self._answer(250 if fits else NESTED, f"rcpt {address}") == 250:
                self._recipients.append(address)
        elif line == "DATA":
            ready = self._message is not None and (bool(self._recipients) or self.takes_data_for_no_one)
            self._in_data = self._answer(354 if ready else 554, f"data {self._message}") == 354
        elif line == "RSET":
            if self._answer(250, "rset") == 250:
                self._forget()
        elif line == "QUIT":
            self._answer(221, "quit")
            self.ended = True
        else:
            self.errors.append(f"not a command: {line}")
            self._answer(500, "nothing")

    def _data(self) -> bool:
        found = re.search(rb"(?:^|\r\n)\.\r\n", self._buffer)
        if found is None:
            return False
        content = bytes(self._buffer[: found.start() + 2 if found[0] != b".\r\n" else 0])
        message = self._message
        del self._buffer[: found.end()]
        self._in_data = False
        self._taken(re.sub(rb"(^|\r\n)\.", rb"\1", content))
        # RFC 5321 4.1.1.4: whatever the reply, the buffers are cleared.
        self._forget()
        self._discard(message)
        return True

    def _chunk(self, line: bytes, begins: int) -> bool:
        size = int(line.split()[1])
        if len(self._buffer) < begins + size:
            return False
        if not line.endswith(b" LAST"):
            self.errors.append("a chunk that isn't the last")
        content, message = bytes(self._buffer[begins : begins + size]), self._message
        del self._buffer[: begins + size]
        if self._taken(content):
            self._forget()
        else:
            self._failed_chunk = self._message is not None
        self._discard(message)
        return True

    def _taken(self, content: bytes) -> bool:
        self.contents.append(content)
        number = content_number(content)
        deliverable = self._message is not None and bool(self._recipients) and not self._failed_chunk
        if deliverable and number != self._message:
            self.errors.append(f"content {number} in the envelope of {self._message}")
        code = self._answer(250 if deliverable else 554, f"dot {self._message if number is None else number}")
        if deliverable and 200 <= code < 300:
            for address in self._recipients:
                if (pair := (self._message or 0, address)) in self.accepted:
                    self.errors.append(f"{address} gets {self._message} twice")
                self.accepted.add(pair)
        return 200 <= code < 300

    def _discard(self, message: int | None) -> None:
        if message is not None and self.discards(message):
            self._buffer.clear()

    def _forget(self) -> None:
        self._message, self._recipients, self._failed_chunk = None, [], False

    def _answer(self, code: int, to: str) -> int:
        """The code that the server means, whatever it sends."""
        number = len(self.replies)
        change = self.changes(number, to)
        if change.code and (code < 400 or change.code == CLOSING):
            code = change.code
        self.replies[number] = Said(code, to)
        if code >= 400:
            self.refused[to] = number
        self.out += change.before
        if not change.is_missing:
            self.out += b"%d %d\r\n" % (code, number)
        self.out += change.after
        self.ended = self.ended or change.closes
        return code


def content_of(message: int, *, dots: bool = True) -> bytes:
    """Unique, short, with a line that begins with a dot."""
    return b"c%d\r\n" % message + (b"..\r\n" if dots else b"")


def content_number(content: bytes) -> int | None:
    found = re.match(rb"c(\d+)\r\n", content)
    return int(found[1]) if found else None


def refuse(at: int, code: int, *, closes: bool = False) -> Callable[[int, str], Change]:
    """Only the reply with that number differs."""
    return lambda number, _: Change(code, closes) if number == at else Change()


def changed(at: int, change: Change) -> Callable[[int, str], Change]:
    return lambda number, _: change if number == at else Change()


def by_plan(plan: Sequence[int]) -> Callable[[int, str], Change]:
    """The codes in order, 0 for a reply as it should be; behind them none is refused."""
    return lambda number, _: Change(plan[number] if number < len(plan) else 0)
