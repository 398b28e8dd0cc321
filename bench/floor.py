"""The floor: what the same bytes cost over the same sockets with nothing done to them.

A forwarder as a process of its own. It takes mail from an app, writes the content to a file and waits for it to be on
the disk (one fdatasync), and hands it over a session that is open, secured and authenticated: MAIL, RCPT and DATA in
one write, or MAIL, RCPT and BDAT LAST where CHUNKING is announced; one by one where PIPELINING is not. No parsing, no
signature, no log, no retry. What a relay takes beyond this is its own.

`python -m bench.floor --to PORT --spool FILE [--sessions N] [--ca FILE] [--auth]` prints `ready PORT`, runs until stdin
ends. With as many sessions as codes come at once, no code waits for another.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import socket
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import uvloop

from bench.message import OTP_SENDER
from bench.process import end_with_stdin, steady
from bench.sink import PASSWORD, USERNAME

_WITHIN_S = 10.0
_END = b"\r\n.\r\n"
_ENVELOPE = (b"MAIL FROM:<%s>\r\n" % OTP_SENDER.encode(), b"RCPT TO:<user@example.net>\r\n")


@dataclass(frozen=True, slots=True)
class Way:
    port: int
    ca_file: Path | None
    auth: bool
    sessions: int


class Session:
    """One to the upstream, ready for a transaction."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, offers: bytes) -> None:
        self._reader, self._writer = reader, writer
        self._pipelining, self._chunking = b"PIPELINING" in offers, b"CHUNKING" in offers

    @classmethod
    async def open(cls, way: Way) -> Session:
        async with asyncio.timeout(_WITHIN_S):
            reader, writer = await asyncio.open_connection("127.0.0.1", way.port, limit=1 << 20)
            await _reply(reader)
            offers = await _ask(reader, writer, b"EHLO floor.example")
            if way.ca_file is not None:
                await _ask(reader, writer, b"STARTTLS")
                context = ssl.create_default_context(cafile=str(way.ca_file))
                await writer.start_tls(context, server_hostname="127.0.0.1")
                offers = await _ask(reader, writer, b"EHLO floor.example")
            if way.auth:
                token = base64.b64encode(f"\0{USERNAME}\0{PASSWORD}".encode())
                await _ask(reader, writer, b"AUTH PLAIN " + token)
        return cls(reader, writer, offers)

    async def send(self, content: bytes) -> None:
        """`content` ends in CRLF and has nothing to stuff."""
        async with asyncio.timeout(_WITHIN_S):
            if self._chunking:
                await self._ask(*_ENVELOPE, b"BDAT %d LAST\r\n" % len(content) + content)
            else:
                await self._ask(*_ENVELOPE, b"DATA\r\n")
                await self._ask(content + b".\r\n")

    async def _ask(self, *commands: bytes) -> None:
        """In one write where the upstream announces PIPELINING, else each behind the reply to the one before."""
        for flight in [commands] if self._pipelining else [[command] for command in commands]:
            self._writer.write(b"".join(flight))
            for _ in flight:
                await _reply(self._reader)


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: bytes) -> bytes:
    writer.write(line + b"\r\n")
    return await _reply(reader)


async def _reply(reader: asyncio.StreamReader) -> bytes:
    lines = [await reader.readuntil(b"\r\n")]
    while lines[-1][3:4] == b"-":
        lines.append(await reader.readuntil(b"\r\n"))
    if lines[-1][:1] not in b"23":
        raise ConnectionError(lines[-1])
    return b"".join(lines)


class Intake(asyncio.Protocol):
    """One app. Whoever speaks to it waits for each reply, as the load does."""

    def __init__(self, forwarder: Forwarder) -> None:
        self._forwarder = forwarder
        self._content: bytes | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(b"220 floor.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        if self._content is not None:
            self._content += data
            if self._content.endswith(_END):
                content, self._content = self._content[: 2 - len(_END)], None
                self._forwarder.take(content)
                self._transport.write(b"250 2.0.0 ok\r\n")
            else:
                self._acknowledge()
        elif data[:4].upper() == b"DATA":
            self._content = b""
            self._transport.write(b"354 go on\r\n")
            self._acknowledge()
        elif data[:4].upper() == b"QUIT":
            self._transport.write(b"221 2.0.0 bye\r\n")
            self._transport.close()
        else:
            self._transport.write(b"250 2.0.0 ok\r\n")

    def _acknowledge(self) -> None:
        """At once, for apps that write line by line: by default the kernel lets them wait 40 ms for an ACK."""
        self._transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)


class Forwarder:
    """Sessions kept, each used by one message at a time."""

    def __init__(self, sessions: list[Session], spool: int) -> None:
        self._free: asyncio.LifoQueue[Session] = asyncio.LifoQueue()
        for session in sessions:
            self._free.put_nowait(session)
        self._spool = spool
        self._sending: set[asyncio.Task[None]] = set()

    def take(self, content: bytes) -> None:
        """On the disk when it returns, on its way soon after."""
        os.write(self._spool, content)
        os.fdatasync(self._spool)
        task = asyncio.get_running_loop().create_task(self._send(content))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, content: bytes) -> None:
        async with asyncio.timeout(_WITHIN_S):
            session = await self._free.get()
        await session.send(content)
        self._free.put_nowait(session)


async def serve(way: Way, spool: Path) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    descriptor = os.open(spool, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    forwarder = Forwarder(await asyncio.gather(*(Session.open(way) for _ in range(way.sessions))), descriptor)
    server = await loop.create_server(lambda: Intake(forwarder), "127.0.0.1", 0)
    stop = asyncio.Event()
    end_with_stdin(lambda: loop.call_soon_threadsafe(stop.set))
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.floor", description=__doc__)
    parser.add_argument("--to", type=int, required=True)
    parser.add_argument("--spool", type=Path, required=True)
    parser.add_argument("--sessions", type=int, default=6)
    parser.add_argument("--ca", type=Path)
    parser.add_argument("--auth", action="store_true")
    args = parser.parse_args()
    # Not realtime: it stands where the relay stands.
    steady(realtime=False)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(Way(args.to, args.ca, args.auth, args.sessions), args.spool))


if __name__ == "__main__":
    main()
