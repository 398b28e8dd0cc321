"""A stand-in for an upstream: a small SMTP server on loopback that accepts mail, keeps none, and is slow on purpose."""

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
class Behaviour:
    """How a stand-in behaves."""

    latency_s: tuple[float, float]
    """each reply comes so long after its command: a random time between the two"""
    refusals: float = 0.0
    """share of messages that get 451 at the final dot"""
    stalls: float = 0.0
    """share of messages whose final dot gets its reply only after `stall_s`"""
    stall_s: float = 0.0


class StandIn:
    """An async context manager; `port` is where it listens."""

    def __init__(self, name: str, behaviour: Behaviour, seed: int = 0) -> None:
        self.name = name
        self.accepted = 0
        self.refused = 0
        self._behaviour = behaviour
        self._random = random.Random(seed)  # noqa: S311 - no secret
        self._server: asyncio.Server | None = None
        self._sessions: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        assert self._server is not None, "not started"
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=MAX_CONTENT_BYTES)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for session in self._sessions:
            session.cancel()
        await asyncio.gather(*self._sessions, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._sessions.add(task)
        gone = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError)
        try:
            # A client that left gets no reply. Python 3.11's streams print a traceback for a session that ends as
            # cancelled (see __aexit__).
            with contextlib.suppress(*gone, asyncio.CancelledError):
                await self._session(reader, writer)
        finally:
            self._sessions.discard(task)
            writer.close()

    async def _session(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"220 {self.name} ESMTP stand-in\r\n".encode())
        ready_at = 0.0
        loop = asyncio.get_running_loop()
        while True:
            async with asyncio.timeout(LINE_WITHIN_S):
                line = await reader.readuntil(b"\r\n")
            # A pipelined batch has the latency once: commands that came meanwhile are answered at once.
            if loop.time() > ready_at:
                await self._wait()
                ready_at = loop.time() + self._behaviour.latency_s[0] / 2
            verb = line[:4].decode("ascii", "replace").upper()
            if verb == "DATA":
                writer.write(b"354 go on\r\n")
                async with asyncio.timeout(CONTENT_WITHIN_S):
                    await reader.readuntil(b"\r\n.\r\n")
                writer.write(f"{await self._final_reply()}\r\n".encode())
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

    async def _final_reply(self) -> str:
        """The reply to a final dot, after its latency."""
        await self._wait()
        draw = self._random.random()
        if draw < self._behaviour.refusals:
            self.refused += 1
            return "451 4.3.2 try again later"
        if draw < self._behaviour.refusals + self._behaviour.stalls:
            await asyncio.sleep(self._behaviour.stall_s)
        self.accepted += 1
        return f"250 2.0.0 Ok: queued as {self.name}-{self.accepted}"

    async def _wait(self) -> None:
        await asyncio.sleep(self._random.uniform(*self._behaviour.latency_s))
