"""A stand-in for an upstream: a small SMTP server on loopback that accepts mail, keeps none, and fails on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import random
from dataclasses import dataclass
from types import TracebackType
from typing import Self

LINE_WITHIN_S = 120.0
CONTENT_WITHIN_S = 60.0
MAX_CONTENT_BYTES = 32_000_000
_FIXED = {
    "RCPT": "250 2.1.5 ok",
    "MAIL": "250 2.1.0 ok",
    "RSET": "250 2.0.0 ok",
    "NOOP": "250 2.0.0 ok",
    "VRFY": "252 2.5.0 perhaps",
}


@dataclass(frozen=True, slots=True)
class Hiccups:
    """Times in which a stand-in refuses the mail of one sender, as providers do that have too much of it."""

    sender: str
    first_s: float
    """the first begins so long after the stand-in has started"""
    every_s: float
    """from the beginning of one to the beginning of the next"""
    last_s: float

    def covers(self, elapsed_s: float) -> bool:
        """Whether one of them is under way so long after the start."""
        since_first_s = elapsed_s - self.first_s
        return since_first_s >= 0 and since_first_s % self.every_s < self.last_s


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How a stand-in behaves."""

    latency_s: tuple[float, float]
    """each reply comes so long after its command: a random time between the two"""
    refusals: float = 0.0
    """share of messages that get 451 at the final dot"""
    hiccups: Hiccups | None = None


class StandIn:
    """An async context manager; `port` is where it listens."""

    def __init__(self, name: str, behaviour: Behaviour, seed: int = 0) -> None:
        self.name = name
        self.accepted = 0
        self.refused = 0
        self.port = 0
        self._behaviour = behaviour
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._server: asyncio.Server | None = None
        self._sessions: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._started_at = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether it listens."""
        return self._server is not None

    @property
    def is_in_hiccup(self) -> bool:
        hiccups = self._behaviour.hiccups
        return hiccups is not None and hiccups.covers(asyncio.get_running_loop().time() - self._started_at)

    async def __aenter__(self) -> Self:
        self._started_at = asyncio.get_running_loop().time()
        await self.revive()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        sessions = tuple(self._sessions)
        self.kill()
        await asyncio.gather(*sessions, return_exceptions=True)

    def kill(self) -> int:
        """Stop listening and drop all connections at once, as a host does that dies. Returns how many were dropped."""
        if self._server is not None:
            self._server.close()
            self._server = None
        dropped = len(self._sessions)
        for session, writer in self._sessions.items():
            writer.transport.abort()
            session.cancel()
        return dropped

    async def revive(self) -> None:
        """Listen, on the same port as before. Raises OSError if another program has it now."""
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=MAX_CONTENT_BYTES)
            self.port = int(self._server.sockets[0].getsockname()[1])

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None:  # killed since it was accepted
            writer.transport.abort()
            return
        task = asyncio.current_task()
        assert task is not None
        self._sessions[task] = writer
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError)
        try:
            # A client that left gets no reply. Python 3.11's streams print a traceback for a session that ends as
            # cancelled (see kill).
            with contextlib.suppress(*gone, asyncio.CancelledError):
                await self._session(reader, writer)
        finally:
            self._sessions.pop(task, None)
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"220 {self.name} ESMTP stand-in\r\n".encode())
        ready_at = 0.0
        loop = asyncio.get_running_loop()
        sender = ""
        while True:
            async with asyncio.timeout(LINE_WITHIN_S):
                line = await reader.readuntil(b"\r\n")
            # A pipelined batch has the latency once: commands that came meanwhile are answered at once.
            if loop.time() > ready_at:
                await self._wait()
                ready_at = loop.time() + self._behaviour.latency_s[0] / 2
            verb = line[:4].decode("ascii", "replace").upper()
            if verb == "MAIL":
                sender = line.decode("utf-8", "replace").partition("<")[2].partition(">")[0]
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                async with asyncio.timeout(CONTENT_WITHIN_S):
                    await reader.readuntil(b"\r\n.\r\n")
                writer.write(f"{await self._final_reply(sender)}\r\n".encode())
            elif verb == "QUIT":
                writer.write(b"221 2.0.0 bye\r\n")
                return
            elif verb in ("EHLO", "HELO"):
                offers = ("PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "SIZE 32000000")
                lines = (self.name, *offers) if verb == "EHLO" else (self.name,)
                for at, text in enumerate(lines, 1):
                    writer.write(f"250{'-' if at < len(lines) else ' '}{text}\r\n".encode())
            else:
                writer.write(f"{_FIXED.get(verb, '500 5.5.2 unknown')}\r\n".encode())
            await writer.drain()

    async def _final_reply(self, sender: str) -> str:
        """The reply to a final dot, after its latency."""
        await self._wait()
        hiccups = self._behaviour.hiccups
        if hiccups is not None and sender == hiccups.sender and self.is_in_hiccup:
            self.refused += 1
            return "451 4.7.1 too much mail from this sender, try again later"
        if self._random.random() < self._behaviour.refusals:
            self.refused += 1
            return "451 4.3.2 try again later"
        self.accepted += 1
        return f"250 2.0.0 Ok: queued as {self.name}-{self.accepted}"

    async def _wait(self) -> None:
        await asyncio.sleep(self._random.uniform(*self._behaviour.latency_s))
