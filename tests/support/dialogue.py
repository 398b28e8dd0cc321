"""One session of the scripted upstream: the protocol as it should be, and the script's word at each step."""

from __future__ import annotations

import asyncio
import base64
import binascii
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from tests.support.script import (
    Action,
    Close,
    Delay,
    Drip,
    Endless,
    Garbage,
    Hang,
    Moment,
    ReplyThenClose,
    ReplyThenReset,
    Reset,
    Split,
    Stall,
    Step,
    Wait,
    address_of,
    verdict,
)
from tests.support.wire import Lost, Wire

if TYPE_CHECKING:
    from tests.support.upstream import Upstream


@dataclass(frozen=True, slots=True)
class Received:
    """Content whose end arrived."""

    mail_from: str
    """MAIL's argument as sent: `FROM:<a@b> SIZE=12`"""
    rcpts: tuple[str, ...]
    """the accepted RCPTs' arguments as sent"""
    content: bytes
    """as transferred, unstuffed for DATA, CRLF before the final dot included"""
    session: int
    n_in_session: int
    tls: str | None
    """TLS version"""
    user: str | None
    via: Literal["DATA", "BDAT"]
    at: float
    """time.time() when its last byte came (the final dot's or the BDAT LAST chunk's)"""
    reply: str
    """what was said to it; '' when nothing was"""

    @property
    def accepted(self) -> bool:
        return self.reply.startswith("2")

    @property
    def sender(self) -> str:
        return address_of(self.mail_from)

    @property
    def recipients(self) -> tuple[str, ...]:
        return tuple(address_of(rcpt) for rcpt in self.rcpts)


@dataclass(slots=True)
class Session:
    """What happened on one connection."""

    index: int
    opened_at: float
    closed_at: float | None = None
    tls: str | None = None
    user: str | None = None
    commands: list[tuple[float, str]] = field(default_factory=list)
    """(time.time() of arrival, the line without its CRLF)"""
    transfers: int = 0
    endless_bytes: int = 0
    """what `Endless` wrote before the client left"""

    @property
    def verbs(self) -> list[str]:
        return [line.split(" ", 1)[0].upper() for _, line in self.commands]


class Dialogue:
    """`run` goes on until the session is over and then raises Lost."""

    def __init__(self, upstream: Upstream, wire: Wire, session: Session) -> None:
        self.upstream = upstream
        self.wire = wire
        self.session = session
        self.seen: Counter[Step] = Counter()
        self.greeted = False
        self.arrived = asyncio.get_running_loop().time()
        self._begin()

    def _begin(self) -> None:
        self.mail: str | None = None
        self.rcpts: list[str] = []
        self.chunks: list[bytes] = []

    async def run(self) -> None:
        if self.upstream.tls == "implicit":
            await self._handshake()
        if not (await self._answer("greeting", "", f"220 {self.upstream.host} ESMTP stand-in")).startswith("2"):
            await self._after_refused_greeting()
        while True:
            try:
                raw, self.arrived = await self.wire.read_until(b"\r\n", self.upstream.idle_s)
            except TimeoutError:
                self.arrived = asyncio.get_running_loop().time()
                await self._answer("idle", "", "421 4.4.2 idle too long, closing")
                raise Lost from None
            line = raw[:-2].decode("utf-8", "surrogateescape")
            self.session.commands.append((time.time(), line))
            self.upstream.changed()
            await self._command(line)

    async def _after_refused_greeting(self) -> None:
        # RFC 5321 3.1: after 554 the server waits for QUIT and answers 503 to all else.
        while True:
            raw, self.arrived = await self.wire.read_until(b"\r\n")
            line = raw[:-2].decode("utf-8", "surrogateescape")
            self.session.commands.append((time.time(), line))
            if line.upper() == "QUIT":
                await self._answer("quit", "", "221 2.0.0 bye")
                raise Lost
            await self._perform("503 5.5.1 no service here", "")

    async def _command(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        match verb.upper():
            case "EHLO":
                await self._ehlo(argument)
            case "HELO":
                self.greeted = True
                self._begin()
                await self._answer("helo", argument, f"250 {self.upstream.host}")
            case "STARTTLS":
                await self._starttls()
            case "AUTH":
                await self._auth(argument)
            case "MAIL":
                await self._mail(argument)
            case "RCPT":
                await self._rcpt(argument)
            case "DATA":
                await self._data()
            case "BDAT":
                await self._bdat(argument)
            case "RSET":
                self._begin()
                await self._answer("rset", "", "250 2.0.0 reset")
            case "NOOP":
                await self._answer("noop", argument, "250 2.0.0 fine")
            case "VRFY":
                await self._answer("vrfy", argument, "252 2.5.0 try it")
            case "QUIT":
                await self._answer("quit", "", "221 2.0.0 bye")
                raise Lost
            case _:
                await self._answer("unknown", line, "500 5.5.2 unknown command")

    async def _ehlo(self, argument: str) -> None:
        self.greeted = True
        self._begin()
        offered = list(self.upstream.extensions)
        if self.upstream.tls == "starttls" and self.session.tls is None:
            offered.append("STARTTLS")
        elif self.upstream.auth is not None:
            offered.append("AUTH PLAIN LOGIN")
        lines = [self.upstream.host, *offered]
        default = "\n".join(f"250{'-' if at < len(lines) else ' '}{text}" for at, text in enumerate(lines, 1))
        await self._answer("ehlo", argument, default)

    async def _starttls(self) -> None:
        if self.upstream.tls != "starttls" or self.session.tls is not None:
            await self._perform("503 5.5.1 STARTTLS is not offered", "")
            return
        self.wire.hold()
        if (await self._answer("starttls", "", "220 2.0.0 go ahead")).startswith("2"):
            await self._handshake()
            self.greeted = False
        else:
            self.wire.release()

    async def _handshake(self) -> None:
        await self._answer("handshake", "", "")
        assert self.upstream.context is not None
        await self.wire.secure(self.upstream.context)
        secured = self.wire.transport.get_extra_info("ssl_object") if self.wire.transport else None
        self.session.tls = secured.version() if secured else None

    async def _auth(self, argument: str) -> None:
        mechanism, _, initial = argument.partition(" ")
        given = await self._credentials(mechanism.upper(), initial)
        accounts = self.upstream.auth or {}
        right = given is not None and accounts.get(given[0]) == given[1]
        default = "235 2.7.0 welcome" if right else "535 5.7.8 credentials refused"
        if (await self._answer("auth", argument, default)).startswith("235"):
            self.session.user = given[0] if given else "?"

    async def _credentials(self, mechanism: str, initial: str) -> tuple[str, str] | None:
        try:
            if mechanism == "PLAIN":
                blob = initial or await self._challenge("334 ")
                _, user, password = base64.b64decode(blob).decode().split("\0")
                return user, password
            if mechanism == "LOGIN":
                first = initial or await self._challenge("334 VXNlcm5hbWU6")
                second = await self._challenge("334 UGFzc3dvcmQ6")
                return base64.b64decode(first).decode(), base64.b64decode(second).decode()
        except (binascii.Error, ValueError):
            return None
        return None

    async def _challenge(self, reply: str) -> str:
        await self._perform(reply, "")
        raw, self.arrived = await self.wire.read_until(b"\r\n")
        return raw[:-2].decode("ascii", "replace")

    async def _mail(self, argument: str) -> None:
        default = "250 2.1.0 sender ok"
        if not self.greeted or self.mail is not None:
            default = "503 5.5.1 out of order"
        elif self.upstream.auth is not None and self.session.user is None:
            default = "530 5.7.0 authentication required"
        if (await self._answer("mail", argument, default)).startswith("2"):
            self._begin()
            self.mail = argument

    async def _rcpt(self, argument: str) -> None:
        default = "250 2.1.5 recipient ok" if self.mail is not None else "503 5.5.1 MAIL first"
        if (await self._answer("rcpt", argument, default)).startswith("2"):
            self.rcpts.append(argument)

    async def _data(self) -> None:
        default = "354 end with <CRLF>.<CRLF>" if self.rcpts else "554 5.5.1 no valid recipients"
        if not (await self._answer("data", "", default)).startswith("3"):
            return
        head, self.arrived = await self.wire.read_exactly(3)
        if head == b".\r\n":
            content = b""
        else:
            self.wire.put_back(head)
            raw, self.arrived = await self.wire.read_until(b"\r\n.\r\n")
            # RFC 5321 4.5.2: one leading dot of each line goes.
            content = raw[:-3].removeprefix(b".").replace(b"\r\n.", b"\r\n")
        await self._content(content, "DATA", "")

    async def _bdat(self, argument: str) -> None:
        size, _, last = argument.partition(" ")
        chunk, self.arrived = await self.wire.read_exactly(int(size))
        if "CHUNKING" not in self.upstream.extensions:
            await self._perform("502 5.5.1 CHUNKING is not offered", "")
        elif not self.rcpts:
            # RFC 3030 2: the octets are swallowed all the same.
            await self._answer("dot" if last else "bdat", argument, "554 5.5.1 no valid recipients")
        else:
            self.chunks.append(chunk)
            if last:
                await self._content(b"".join(self.chunks), "BDAT", argument)
            elif not (await self._answer("bdat", argument, f"250 2.0.0 {size} octets")).startswith("2"):
                self._begin()

    async def _content(self, content: bytes, via: Literal["DATA", "BDAT"], argument: str) -> None:
        mail, rcpts, number = self.mail or "", tuple(self.rcpts), self.session.transfers
        self.session.transfers += 1
        self._begin()
        at = time.time() - (asyncio.get_running_loop().time() - self.arrived)

        def note(reply: str) -> None:
            self.upstream.transfers.append(
                Received(
                    mail,
                    rcpts,
                    content,
                    self.session.index,
                    number,
                    self.session.tls,
                    self.session.user,
                    via,
                    at,
                    reply,
                )
            )
            self.upstream.changed()

        default = f"250 2.0.0 Ok: queued as {self.session.index}-{number}"
        await self._answer("dot", argument, default, note)

    async def _answer(
        self, step: Step, argument: str, default: str, before: Callable[[str], None] | None = None
    ) -> str:
        """Asks the script, tells `before` what will be said, does it, and returns that."""
        upstream = self.upstream
        moment = Moment(step, self.session.index, upstream.seen[step], self.seen[step], argument, default)
        upstream.seen[step] += 1
        self.seen[step] += 1
        action = upstream.playbook.action(moment)
        said = verdict(action, default)
        if before is not None:
            before(said)
        if upstream.latency_s:
            await asyncio.sleep(self.arrived + upstream.latency_s - asyncio.get_running_loop().time())
        await self._perform(action, default)
        return said

    async def _perform(self, action: Action, default: str) -> None:
        wire = self.wire
        match action:
            case None:
                await wire.write(encode(default))
            case str():
                await wire.write(encode(action))
            case Delay(seconds, then):
                await asyncio.sleep(seconds)
                await self._perform(then, default)
            case Wait(event, then):
                await event.wait()
                await self._perform(then, default)
            case Stall(seconds, then):
                wire.hold()
                await asyncio.sleep(seconds)
                wire.release()
                await self._perform(then, default)
            case Garbage(data):
                await wire.write(data)
            case Endless(line, at_once):
                while True:
                    await wire.write(line * at_once)
                    self.session.endless_bytes += len(line) * at_once
                    await asyncio.sleep(0)
            case Drip(reply, per_byte_s):
                for byte in encode(default if reply is None else reply):
                    await wire.write(bytes([byte]))
                    await asyncio.sleep(per_byte_s)
            case Split(parts, pause_s):
                for part in parts:
                    await wire.write(part)
                    await asyncio.sleep(pause_s)
            case ReplyThenClose(reply):
                await wire.write(encode(reply))
                raise Lost
            case ReplyThenReset(reply):
                await wire.write(encode(reply))
                wire.reset()
                raise Lost
            case Hang():
                await wire.until_lost()
                raise Lost
            case Close():
                raise Lost
            case Reset():
                wire.reset()
                raise Lost


def encode(reply: str) -> bytes:
    """A reply's lines (separated by newlines) as bytes; nothing for ''."""
    return reply.replace("\n", "\r\n").encode("utf-8", "surrogateescape") + b"\r\n" if reply else b""
