"""A network's round trip on loopback: a TCP proxy that hands every byte on half a round trip later, in order.

`python -m bench.proxy --to PORT --rtt MS` prints `ready PORT` and runs until its standard input ends;
`python -m bench.proxy --check --rtt MS` measures its own accuracy against an echo and prints that.

A new connection costs what it costs on a wire: its other end sees it one and a half round trips later (SYN, SYN-ACK,
ACK), though loopback's own handshake is done at once, so a greeting comes two round trips after the SYN.

Accuracy: one timerfd for all connections (an event loop's timers are good to a millisecond only), one queue, since
every byte waits equally long. A read that the kernel delivers late is a delay of the machine's, and stays in.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import socket
import time
from collections import deque
from collections.abc import Callable
from typing import cast

import uvloop

from bench.process import end_with_stdin, steady
from bench.records import quantiles

_LIBC = ctypes.CDLL(None, use_errno=True)
_TFD_NONBLOCK_CLOEXEC = 0o2004000
_TFD_TIMER_ABSTIME = 1
_CONNECT_WITHIN_S = 10.0
_CHECK_PINGS = 300


class _Timespec(ctypes.Structure):
    _fields_ = (("sec", ctypes.c_long), ("nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("interval", _Timespec), ("value", _Timespec))


class DelayLine:
    """Runs what it is given `delay_ns` later, in order."""

    def __init__(self, delay_ns: int, loop: asyncio.AbstractEventLoop) -> None:
        self._delay_ns = delay_ns
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._timer = _LIBC.timerfd_create(time.CLOCK_MONOTONIC, _TFD_NONBLOCK_CLOEXEC)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        loop.add_reader(self._timer, self._fire)

    def put(self, what: Callable[[], None]) -> None:
        """Its turn comes `delay_ns` from now."""
        due_ns = time.monotonic_ns() + self._delay_ns
        self._waiting.append((due_ns, what))
        if len(self._waiting) == 1:
            self._arm(due_ns)

    def _fire(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._timer, 8)
        while self._waiting and self._waiting[0][0] <= time.monotonic_ns():
            self._waiting.popleft()[1]()
        if self._waiting:
            self._arm(self._waiting[0][0])

    def _arm(self, due_ns: int) -> None:
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(*divmod(due_ns, 1_000_000_000)))
        _LIBC.timerfd_settime(self._timer, _TFD_TIMER_ABSTIME, ctypes.byref(spec), None)


class End(asyncio.Protocol):
    """One side of a connection; what it reads comes out at the other side."""

    def __init__(self, line: DelayLine) -> None:
        self._line = line
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        """for a side that isn't connected yet"""
        self.other: End | None = None
        self.gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._early:
            self._transport.write(b"".join(self._early))
            self._early.clear()

    def data_received(self, data: bytes) -> None:
        if self.other is not None:
            other = self.other
            self._line.put(lambda: other.write(data))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.gone = True
        if self.other is not None:
            self._line.put(self.other.close)

    def write(self, data: bytes) -> None:
        if self._transport is None:
            self._early.append(data)
        elif not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        self.gone = True
        if self._transport is not None:
            self._transport.close()


class Entrance(End):
    """The side that connected to the proxy."""

    def __init__(self, line: DelayLine, to_port: int, rtt_s: float) -> None:
        super().__init__(line)
        self._to_port = to_port
        self._rtt_s = rtt_s
        self._connecting: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.other = End(self._line)
        self.other.other = self
        self._connecting = asyncio.get_running_loop().create_task(self._connect(self.other))

    async def _connect(self, exit_side: End) -> None:
        await asyncio.sleep(1.5 * self._rtt_s)
        if self.gone:
            return
        try:
            async with asyncio.timeout(_CONNECT_WITHIN_S):
                await asyncio.get_running_loop().create_connection(lambda: exit_side, "127.0.0.1", self._to_port)
        except (OSError, TimeoutError):
            self.close()


async def serve(to_port: int, rtt_ms: float) -> None:
    """Until standard input ends."""
    loop = asyncio.get_running_loop()
    line = DelayLine(round(rtt_ms * 500_000), loop)
    server = await loop.create_server(lambda: Entrance(line, to_port, rtt_ms / 1000), "127.0.0.1", 0, backlog=1024)
    stop = asyncio.Event()
    end_with_stdin(lambda: loop.call_soon_threadsafe(stop.set))
    print(f"ready {server.sockets[0].getsockname()[1]}", flush=True)
    await stop.wait()
    server.close()


class _Echo(asyncio.Protocol):
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._transport.write(data)


async def check(port: int, pings: int = _CHECK_PINGS) -> list[float]:
    """Round trips, in milliseconds, of single small packets through the proxy at `port` in front of an echo."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    times = []
    async with asyncio.timeout(60.0):
        writer.write(b"ping")  # the first pays for the connection
        await reader.readexactly(4)
        for _ in range(pings):
            began_ns = time.monotonic_ns()
            writer.write(b"ping")
            await reader.readexactly(4)
            times.append((time.monotonic_ns() - began_ns) / 1e6)
    writer.close()
    return times


async def serve_echo() -> asyncio.Server:
    """Answers every byte with itself; on 127.0.0.1."""
    return await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)


async def _check_alone(rtt_ms: float) -> None:
    echo = await serve_echo()
    loop = asyncio.get_running_loop()
    line = DelayLine(round(rtt_ms * 500_000), loop)
    to_port = echo.sockets[0].getsockname()[1]
    server = await loop.create_server(lambda: Entrance(line, to_port, rtt_ms / 1000), "127.0.0.1", 0)
    found = quantiles(await check(server.sockets[0].getsockname()[1]))
    print(f"asked for {rtt_ms:.3f} ms: p50 {found.p50:.3f}  p99 {found.p99:.3f}  worst {found.worst:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.proxy", description=__doc__)
    parser.add_argument("--to", type=int)
    parser.add_argument("--rtt", type=float, default=40.0, metavar="MS")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--realtime", action="store_true")
    args = parser.parse_args()
    if not args.check and args.to is None:
        parser.error("--to or --check")
    steady(realtime=args.realtime)
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(_check_alone(args.rtt) if args.check else serve(args.to, args.rtt))


if __name__ == "__main__":
    main()
