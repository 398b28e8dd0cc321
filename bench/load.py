"""Apps as processes of their own.

`python -m bench.load codes --port P --out FILE --count N --rate R` sends codes at a steady pace (`--burst B`: B at the
same moment; `--seed S`: at random), each over a connection of its own (`--kept`: over connections kept open), whatever
became of the ones before; it ends after N, or early once its standard input is closed, when all under way are answered.

`python -m bench.load flood --port P --count N --connections C --file FILE [--kept]` sends the same content N times
as fast as it goes; for machines without Debian's smtp-source, which does the same at less cost (see `flood`).
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import uvloop

from bench.arrivals import offsets_s
from bench.message import BULK_SENDER, OTP_SENDER, otp
from bench.process import end_with_stdin, module, steady
from bench.records import SENT

_WITHIN_S = 60.0
"""for every step of one message"""
_FLOOD_WITHIN_S = 300.0


class Refused(Exception):
    """An answer other than the one hoped for."""


class App:
    """An SMTP client that waits for each reply, as libraries do."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> App:
        app = cls(*await asyncio.open_connection("127.0.0.1", port))
        await app._expect(b"220")
        await app._ask(b"EHLO app.example\r\n", b"250")
        return app

    async def submit(self, sender: str, recipient: str, content: bytes) -> tuple[int, int]:
        """The monotonic ns just before the final dot was written, and those of its 250. Raises Refused, OSError."""
        await self._ask(b"MAIL FROM:<%s>\r\n" % sender.encode(), b"250")
        await self._ask(b"RCPT TO:<%s>\r\n" % recipient.encode(), b"250")
        await self._ask(b"DATA\r\n", b"354")
        if len(content) > 65_536:
            self._writer.write(content)
            await self._writer.drain()
            content = b""
        dot_ns = time.monotonic_ns()
        self._writer.write(content + b".\r\n")
        await self._expect(b"250")
        return dot_ns, time.monotonic_ns()

    async def leave(self) -> None:
        self._writer.write(b"QUIT\r\n")
        with contextlib.suppress(OSError):
            await self._reader.read(1024)
        self._writer.close()

    async def _ask(self, line: bytes, wanted: bytes) -> None:
        self._writer.write(line)
        await self._expect(wanted)

    async def _expect(self, wanted: bytes) -> None:
        line = await self._reader.readuntil(b"\r\n")
        while line[3:4] == b"-":
            line = await self._reader.readuntil(b"\r\n")
        if not line.startswith(wanted):
            raise Refused(line.decode(errors="replace").strip())


@dataclass(frozen=True, slots=True)
class Stream:
    """A stream of codes."""

    port: int
    out: Path
    first_id: int
    offsets_s: Sequence[float]
    """when each code leaves, from the start on"""
    kept: bool
    body_bytes: int


async def codes(stream: Stream) -> None:
    """Each code leaves at its own time: a late one makes no later one wait."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    end_with_stdin(lambda: loop.call_soon_threadsafe(stop.set))
    free: list[App] = []
    began = loop.time()
    tasks = []
    for number, offset_s in enumerate(stream.offsets_s):
        pause_s = began + offset_s - loop.time()
        if pause_s > 0:  # the codes of a burst leave in one turn of the loop
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), pause_s)
        if stop.is_set():
            break
        tasks.append(asyncio.create_task(_code(stream, stream.first_id + number, free)))
    records = await asyncio.gather(*tasks)
    stream.out.write_bytes(b"".join(SENT.pack(*record) for record in records))


async def _code(stream: Stream, bench_id: int, free: list[App]) -> tuple[int, int, int]:
    content = otp(bench_id, stream.body_bytes)
    try:
        async with asyncio.timeout(_WITHIN_S):
            app = free.pop() if free else await App.open(stream.port)
            dot_ns, acknowledged_ns = await app.submit(OTP_SENDER, f"user{bench_id}@example.net", content)
            if stream.kept:
                free.append(app)
            else:
                await app.leave()
    except (OSError, EOFError, Refused, TimeoutError) as error:
        print(f"code {bench_id}: {error!r}", file=sys.stderr)
        return bench_id, 0, 0
    return bench_id, dot_ns, acknowledged_ns


async def pour(port: int, content: bytes, count: int, connections: int, *, kept: bool) -> None:
    """`content` `count` times over `connections` at once."""
    numbers = iter(range(count))
    async with asyncio.timeout(_FLOOD_WITHIN_S), asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_one_connection(port, content, numbers, kept=kept))


async def _one_connection(port: int, content: bytes, numbers: Iterator[int], *, kept: bool) -> None:
    app: App | None = None
    for number in numbers:
        app = app or await App.open(port)
        await app.submit(BULK_SENDER, f"{number}list@example.net", content)
        if not kept:
            await app.leave()
            app = None
    if app is not None:
        await app.leave()


def flood(port: int, content: Path, count: int, connections: int, *, kept: bool) -> list[str]:
    """The command line that sends the content of a file `count` times: Postfix's smtp-source where there is one."""
    source = shutil.which("smtp-source") or shutil.which("smtp-source", path="/usr/sbin")
    if source is None:
        arguments = ["flood", "--port", port, "--file", content, "--count", count, "--connections", connections]
        return module("load", *arguments, *(["--kept"] if kept else []))
    return [
        source, "-4", "-N", *(["-d"] if kept else []),
        "-s", str(connections), "-m", str(count), "-C", "5", "-M", "app.example",
        "-f", BULK_SENDER, "-t", "list@example.net", "-F", str(content), f"127.0.0.1:{port}",
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    kinds = parser.add_subparsers(dest="kind", required=True)
    for kind in ("codes", "flood"):
        one = kinds.add_parser(kind)
        one.add_argument("--port", type=int, required=True)
        one.add_argument("--count", type=int, required=True)
        one.add_argument("--kept", action="store_true")
        if kind == "codes":
            one.add_argument("--out", type=Path, required=True)
            one.add_argument("--rate", type=float, required=True, help="a second, on average")
            one.add_argument("--burst", type=int, default=1, help="so many at the same moment")
            one.add_argument("--seed", type=int, help="at random (a Poisson process), as this number says")
            one.add_argument("--first-id", type=int, default=1)
            one.add_argument("--body", type=int, default=2048)
            one.add_argument("--realtime", action="store_true")
        else:
            one.add_argument("--file", type=Path, required=True)
            one.add_argument("--connections", type=int, required=True)
    args = parser.parse_args()
    with contextlib.suppress(KeyboardInterrupt):
        if args.kind == "codes":
            steady(realtime=args.realtime)
            when = offsets_s(args.count, args.rate, burst=args.burst, seed=args.seed)
            uvloop.run(codes(Stream(args.port, args.out, args.first_id, when, args.kept, args.body)))
        else:
            steady(realtime=False)
            uvloop.run(pour(args.port, args.file.read_bytes(), args.count, args.connections, kept=args.kept))


if __name__ == "__main__":
    main()
