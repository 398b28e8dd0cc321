"""The app's side: a bare SMTP client that says exactly what a test says.

async with Talk(relay.smtp) as app:
    assert (await app.ask("EHLO app.example.com")).startswith("250")
    message_id = await app.submit(b"Subject: hi\\r\\n\\r\\nbody\\r\\n", "a@example.com", "b@example.net")
"""

from __future__ import annotations

import asyncio
import re
from types import TracebackType
from typing import Self

ANSWER_WITHIN_S = 20.0
QUEUED = re.compile(r"250 2\.0\.0 queued as ([0-9A-HJKMNP-TV-Z]{26})")
"""the contract's reply to the final dot, with a ULID"""


class Unexpected(AssertionError):
    """The relay said something else."""


class Talk:
    """One connection, greeted and past EHLO unless `bare`."""

    def __init__(self, place: tuple[str, int] | str, *, bare: bool = False) -> None:
        self._place = place
        self._bare = bare
        self.offered: tuple[str, ...] = ()
        """EHLO's lines without their codes, the relay's name first"""

    async def __aenter__(self) -> Self:
        if isinstance(self._place, str):
            opening = asyncio.open_unix_connection(self._place)
        else:
            opening = asyncio.open_connection(*self._place)
        self.reader, self.writer = await asyncio.wait_for(opening, ANSWER_WITHIN_S)
        if not self._bare:
            await self.reply()
            said = await self.ask("EHLO app.example.com")
            self.offered = tuple(line[4:] for line in said.split("\n"))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.transport.abort()

    async def reply(self) -> str:
        """The next reply, its lines joined by newlines; '' when the relay has closed."""
        lines: list[str] = []
        while True:
            raw = await asyncio.wait_for(self.reader.readline(), ANSWER_WITHIN_S)
            lines.append(raw.decode("ascii").rstrip("\r\n"))
            if raw[3:4] != b"-":
                return "\n".join(lines)

    async def ask(self, line: str) -> str:
        self.send(line.encode() + b"\r\n")
        return await self.reply()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def envelope(self, sender: str, *recipients: str, mail: str = "", rcpt: str = "") -> None:
        """Up to 354. `mail` and `rcpt` are parameters."""
        await self._expect("250", f"MAIL FROM:<{sender}> {mail}".rstrip())
        for recipient in recipients:
            await self._expect("250", f"RCPT TO:<{recipient}> {rcpt}".rstrip())
        await self._expect("354", "DATA")

    async def submit(self, content: bytes, sender: str, *recipients: str, mail: str = "", rcpt: str = "") -> str:
        """The message's id. `content` has CRLF line ends, the last one too."""
        await self.envelope(sender, *recipients, mail=mail, rcpt=rcpt)
        self.send(stuffed(content) + b".\r\n")
        said = await self.reply()
        found = QUEUED.fullmatch(said)
        if found is None:
            raise Unexpected(said)
        return found[1]

    async def _expect(self, code: str, line: str) -> None:
        said = await self.ask(line)
        if not said.startswith(code):
            raise Unexpected(f"{line!r} was answered {said!r}")


def stuffed(content: bytes) -> bytes:
    """RFC 5321 4.5.2."""
    content = content.replace(b"\r\n.", b"\r\n..")
    return b"." + content if content.startswith(b".") else content


def letter(text: str = "hello", *, sender: str = "news@example.com", subject: str = "hi", extra: str = "") -> bytes:
    """A plain message; `extra` is further header lines with their CRLF."""
    return (
        f"From: {sender}\r\nTo: someone@example.net\r\nSubject: {subject}\r\n"
        f"Date: Sat, 01 Mar 2025 09:05:07 +0000\r\nMessage-ID: <fixed@app.example.com>\r\n{extra}\r\n{text}\r\n"
    ).encode()


OTP = "no-reply@auth.example.com"
"""A sender whose mail goes to the lane `otp` by `write_config`'s rule."""
BULK = "news@example.com"
