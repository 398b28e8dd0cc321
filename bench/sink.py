"""An SMTP sink as a process of its own: takes mail as an upstream does, writes down when each message was in.

`python -m bench.sink --out FILE [--cert FILE --key FILE] [--auth] [--no-pipelining] [--chunking]
[--delay SECONDS] [--hang greeting|mail|dot] [--no-8bitmime] [--refuse REPLY]` prints `ready PORT` and runs until its
standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import os
import ssl
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import uvloop

from bench.message import ID_HEADER
from bench.process import end_with_stdin, steady
from bench.records import ARRIVAL

USERNAME, PASSWORD = "bench", "correct horse"
_FLUSH_EVERY_S = 0.02
_HEAD_BYTES = 16_384
"""of the content, looked at for the id and the signature"""
_END = b"\r\n.\r\n"
_ID_DIGITS = 16
_OK = b"250 2.0.0 ok\r\n"

Hang = Literal["never", "greeting", "mail", "dot"]


@dataclass(frozen=True, slots=True)
class Manner:
    pipelining: bool = True
    chunking: bool = False
    tls: ssl.SSLContext | None = None
    auth: bool = False
    delay_s: float = 0.0
    """from the last byte of a message to the reply"""
    hang: Hang = "never"
    """from this step on it never answers"""
    eightbit: bool = True
    refuse: str = ""
    """the reply to every message; empty: it is taken"""


class Recorder:
    """Records gathered and written a few times a second: no system call while a message comes in."""

    def __init__(self, path: Path) -> None:
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        self._pending = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def take(self, head: bytes, at_ns: int, size_bytes: int) -> None:
        found = head.find(ID_HEADER)
        digits = head[found + len(ID_HEADER) :][:_ID_DIGITS] if found >= 0 else b"0"
        self._pending += ARRIVAL.pack(int(digits, 16), at_ns, size_bytes, b"DKIM-Signature:" in head)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(_FLUSH_EVERY_S, self.flush)

    def flush(self) -> None:
        self._timer = None
        os.write(self._descriptor, self._pending)
        self._pending.clear()


class Sink(asyncio.Protocol):
    """One connection."""

    def __init__(self, manner: Manner, recorder: Recorder) -> None:
        self._manner = manner
        self._recorder = recorder
        self._mode: Literal["command", "data", "chunk", "deaf", "gone"] = "command"
        self._secure = False
        self._rest = b""
        """read but not yet looked at"""
        self._head = b""
        self._size = 0
        self._chunk_left = 0
        self._chunk_last = False
        self._starting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        if self._manner.hang == "greeting":
            self._mode = "deaf"
        else:
            self._transport.write(b"220 sink.example ESMTP\r\n")

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        self._rest = self._rest + data if self._rest else data
        self._advance(now_ns)

    def _advance(self, now_ns: int) -> None:
        """All that can be answered of what was read, in one write."""
        replies: list[bytes] = []
        while self._rest:
            before = len(self._rest)
            match self._mode:
                case "command":
                    line, found, rest = self._rest.partition(b"\r\n")
                    if found:
                        self._rest = rest
                        replies.append(self._command(line))
                case "data":
                    replies.append(self._data(now_ns))
                case "chunk":
                    replies.append(self._chunk(now_ns))
                case "deaf" | "gone":
                    break
            if len(self._rest) == before:
                break
        if reply := b"".join(replies):
            self._transport.write(reply)
        if self._mode == "gone":
            self._transport.close()

    def _command(self, line: bytes) -> bytes:
        verb = line[:4].upper()
        if verb in (b"MAIL", b"RCPT", b"RSET", b"NOOP"):
            if self._manner.hang == "mail":
                self._mode = "deaf"
                return b""
            self._begin()
            return _OK
        if verb == b"DATA":
            self._mode = "data"
            self._rest = b"\r\n" + self._rest  # so that the end is found even where the content is empty
            self._size = -2
            return b"354 go on\r\n"
        if verb == b"BDAT":
            words = line.split()
            self._chunk_left, self._chunk_last = int(words[1]), len(words) > 2
            self._mode = "chunk"
            # An empty chunk brings no bytes that would drive it.
            return self._chunk(time.monotonic_ns()) if self._chunk_left == 0 else b""
        return self._greet_or_leave(verb, line)

    def _greet_or_leave(self, verb: bytes, line: bytes) -> bytes:
        if verb in (b"EHLO", b"HELO"):
            return self._ehlo()
        if verb == b"STAR" and self._manner.tls is not None and not self._secure:
            self._mode = "deaf"
            self._starting = asyncio.get_running_loop().create_task(self._start_tls(self._manner.tls))
            return b"220 2.0.0 go on\r\n"
        if verb == b"AUTH":
            return self._auth(line)
        if verb == b"QUIT":
            self._mode = "gone"
            return b"221 2.0.0 bye\r\n"
        return b"500 5.5.2 unknown\r\n"

    def _ehlo(self) -> bytes:
        manner = self._manner
        offers = ["sink.example", "SIZE 60000000", "ENHANCEDSTATUSCODES", "DSN"]
        offers += ["8BITMIME"] if manner.eightbit else []
        offers += ["PIPELINING"] if manner.pipelining else []
        offers += ["CHUNKING"] if manner.chunking else []
        offers += ["STARTTLS"] if manner.tls is not None and not self._secure else []
        offers += ["AUTH PLAIN"] if manner.auth and (manner.tls is None or self._secure) else []
        lines = [f"250-{offer}\r\n" for offer in offers[:-1]] + [f"250 {offers[-1]}\r\n"]
        return "".join(lines).encode()

    def _auth(self, line: bytes) -> bytes:
        wanted = base64.b64encode(f"\0{USERNAME}\0{PASSWORD}".encode())
        words = line.split()
        if len(words) == 3 and words[1].upper() == b"PLAIN" and words[2] == wanted:
            return b"235 2.7.0 welcome\r\n"
        return b"535 5.7.8 no\r\n"

    async def _start_tls(self, context: ssl.SSLContext) -> None:
        loop = asyncio.get_running_loop()
        try:
            secured = await loop.start_tls(self._transport, self, context, server_side=True, ssl_handshake_timeout=10.0)
        except (OSError, ssl.SSLError):
            self._transport.abort()
            return
        assert secured is not None
        self._transport = secured
        self._secure, self._mode, self._rest = True, "command", b""

    # content

    def _begin(self) -> None:
        self._head, self._size = b"", 0

    def _look(self, data: bytes) -> None:
        if len(self._head) < _HEAD_BYTES:
            self._head += data[: _HEAD_BYTES - len(self._head)]
        self._size += len(data)

    def _data(self, now_ns: int) -> bytes:
        data = self._rest
        end = data.find(_END)
        if end < 0:
            keep = len(_END) - 1  # the end may be split between two reads
            self._look(data[:-keep])
            self._rest = data[-keep:]
            return b""
        self._look(data[: end + 2])
        self._rest = data[end + len(_END) :]
        return self._taken(now_ns)

    def _chunk(self, now_ns: int) -> bytes:
        part, self._rest = self._rest[: self._chunk_left], self._rest[self._chunk_left :]
        self._look(part)
        self._chunk_left -= len(part)
        if self._chunk_left:
            return b""
        if self._chunk_last:
            return self._taken(now_ns)
        self._mode = "command"
        return _OK

    def _taken(self, now_ns: int) -> bytes:
        self._recorder.take(self._head, now_ns, self._size)
        self._begin()
        if self._manner.hang == "dot":
            self._mode = "deaf"
            return b""
        if self._manner.delay_s:
            self._mode = "deaf"
            asyncio.get_running_loop().call_later(self._manner.delay_s, self._answer_late)
            return b""
        self._mode = "command"
        return f"{self._manner.refuse}\r\n".encode() if self._manner.refuse else _OK

    def _answer_late(self) -> None:
        self._mode = "command"
        self._transport.write(_OK)
        self._advance(time.monotonic_ns())


async def serve(manner: Manner, out: Path) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    recorder = Recorder(out)
    server = await loop.create_server(lambda: Sink(manner, recorder), "127.0.0.1", 0, backlog=1024)
    stop = asyncio.Event()
    end_with_stdin(lambda: loop.call_soon_threadsafe(stop.set))
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    recorder.flush()
    server.close()


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sink", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--cert", type=Path)
    parser.add_argument("--key", type=Path)
    parser.add_argument("--auth", action="store_true")
    parser.add_argument("--no-pipelining", action="store_true")
    parser.add_argument("--chunking", action="store_true")
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--hang", choices=("never", "greeting", "mail", "dot"), default="never")
    parser.add_argument("--no-8bitmime", action="store_true")
    parser.add_argument("--refuse", default="")
    parser.add_argument("--realtime", action="store_true")
    args = parser.parse_args()
    tls = None
    if args.cert is not None:
        tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        tls.load_cert_chain(args.cert, args.key)
    steady(realtime=args.realtime)
    manner = Manner(not args.no_pipelining, args.chunking, tls, args.auth, args.delay, args.hang)
    manner = replace(manner, eightbit=not args.no_8bitmime, refuse=args.refuse)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(serve(manner, args.out))


if __name__ == "__main__":
    main()
