"""The SMTP service on a port of its own, what it took, and a client that speaks raw bytes to it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from relay.config.model import Limits, Listener
from relay.config.network import TcpAddress
from relay.intake.server import IntakeServer
from relay.intake.spool import Large
from relay.intake.types import Admit, Reason, Receipt, Settings, Submission

PATIENCE_S = 10.0
ANYWHERE = TcpAddress("127.0.0.1", 0)


@dataclass
class Recorder:
    """A `Submit` that keeps each submission. `before` runs first, and may raise."""

    before: Callable[[Submission], Awaitable[None]] | None = None
    taken: list[Submission] = field(default_factory=list)
    begun: int = 0

    async def __call__(self, submission: Submission) -> Receipt:
        self.begun += 1
        if self.before is not None:
            await self.before(submission)
        self.taken.append(submission)
        return Receipt(f"id-{len(self.taken)}", express=True)

    async def wait_for(self, count: int) -> None:
        await until(lambda: len(self.taken) >= count)


@dataclass
class Heard:
    """An observer that remembers."""

    reasons: list[Reason] = field(default_factory=list)

    def rejected(self, reason: Reason, client: str | None = None, listener: str | None = None) -> None:
        self.reasons.append(reason)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not holds():
            await asyncio.sleep(0.005)


def whole(content: bytes | Large) -> bytes:
    """A content, wherever it lies."""
    return content.read() if isinstance(content, Large) else content


class Client:
    """One connection, byte by byte. Every wait ends."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.drain()

    async def reply(self) -> str:
        """One whole reply, its lines joined by a line feed; '' at the end of the connection."""
        lines = []
        async with asyncio.timeout(PATIENCE_S):
            while True:
                line = (await self.reader.readline()).decode()
                if not line:
                    return ""
                assert line.endswith("\r\n"), line
                lines.append(line[:-2])
                if line[3] == " ":
                    return "\n".join(lines)

    async def ask(self, command: bytes | str) -> str:
        await self.send((command.encode() if isinstance(command, str) else command) + b"\r\n")
        return await self.reply()

    async def run(self, *commands: str) -> list[str]:
        return [await self.ask(command) for command in commands]

    async def everything(self) -> bytes:
        """All that still comes until the connection ends."""
        async with asyncio.timeout(PATIENCE_S):
            return await self.reader.read()

    async def start_tls(self, context: ssl.SSLContext) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.writer.start_tls(context, server_hostname="localhost")

    async def hello(self) -> Self:
        """Greeting and EHLO done."""
        assert (await self.reply()).startswith("220 ")
        assert (await self.ask("EHLO client.test")).startswith("250-relay.test\n")
        return self


@dataclass
class Service:
    server: IntakeServer
    recorder: Recorder
    heard: Heard

    @property
    def port(self) -> int:
        return int(self.server.addresses[0].rpartition(":")[2])

    @asynccontextmanager
    async def connect(self, context: ssl.SSLContext | None = None, *, host: str = "127.0.0.1") -> AsyncIterator[Client]:
        async with asyncio.timeout(PATIENCE_S):
            reader, writer = await asyncio.open_connection(host, self.port, ssl=context)
        try:
            yield Client(reader, writer)
        finally:
            writer.close()

    @asynccontextmanager
    async def session(self) -> AsyncIterator[Client]:
        """A client past its EHLO."""
        async with self.connect() as client:
            yield await client.hello()

    async def quiet(self) -> None:
        """Wait until no session is left."""
        await until(lambda: not self.server.load().sessions)


@asynccontextmanager
async def service(
    *listeners: Listener,
    limits: Mapping[str, Any] | None = None,
    before: Callable[[Submission], Awaitable[None]] | None = None,
    admit: Admit = lambda: None,
    spool: Path | None = None,
) -> AsyncIterator[Service]:
    recorder, heard = Recorder(before), Heard()
    server = make_server(recorder, heard, limits, admit)
    if spool is not None:
        server.use_spool(spool)
    await server.start(listeners or (Listener(address=ANYWHERE),))
    try:
        yield Service(server, recorder, heard)
    finally:
        await server.drain(0)
        await until(lambda: not server.load().sessions)


def make_server(
    recorder: Recorder,
    heard: Heard | None = None,
    limits: Mapping[str, Any] | None = None,
    admit: Admit = lambda: None,
) -> IntakeServer:
    return IntakeServer(recorder, Settings(Limits(**limits or {}), "relay.test"), heard or Heard(), admit=admit)


def listener(**options: Any) -> Listener:
    return Listener(address=ANYWHERE, **options)


def same(replies: Sequence[str], beginnings: Sequence[str]) -> bool:
    """Whether each reply begins as expected."""
    return len(replies) == len(beginnings) and all(map(str.startswith, replies, beginnings))
