"""A network's round trip on loopback: a TCP proxy that hands every byte on half a round trip later, in order.

`python -m bench.proxy --to PORT --rtt MS` prints `ready PORT` and runs until its standard input ends;
`python -m bench.proxy --check --rtt MS` pings an echo through one and prints the round trips.

A new connection costs what it costs on a wire: its other end sees it one and a half round trips later (SYN, SYN-ACK,
ACK), though loopback's own handshake is done at once, so a greeting comes two round trips after the SYN.

Accuracy: one timerfd for all connections (an event loop's timers are good to a millisecond only), one queue, since
every byte waits equally long. Nothing is taken off for the proxy's own work, some tenths of a millisecond: it is
part of the floor.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import os
import socket
import tempfile
import time
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import cast

import uvloop

from bench.process import Child, end_with_stdin, module, steady
from bench.records import Quantiles, quantiles

_LIBC = ctypes.CDLL(None, use_errno=True)
_TFD_NONBLOCK_CLOEXEC = 0o2004000
_TFD_TIMER_ABSTIME = 1
_CONNECT_WITHIN_S = 10.0
_CHECK_PINGS = 200
_CHECK_WITHIN_S = 60.0


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


async def _ping(port: int) -> list[float]:
    """Round trips, in milliseconds, of single small packets to the echo behind `port`."""
    times = []
    async with asyncio.timeout(_CHECK_WITHIN_S):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(_CHECK_PINGS + 1):
            began_ns = time.monotonic_ns()
            writer.write(b"ping")
            await reader.readexactly(4)
            times.append((time.monotonic_ns() - began_ns) / 1e6)
    writer.close()
    return times[1:]  # the first pays for the connection


async def _measured(start_proxy: Callable[[int], int]) -> Quantiles:
    echo = await asyncio.get_running_loop().create_server(_Echo, "127.0.0.1", 0)
    times = await _ping(start_proxy(int(echo.sockets[0].getsockname()[1])))
    echo.close()
    return quantiles(times)


def measured(start_proxy: Callable[[int], int]) -> Quantiles:
    """Round trips through a proxy, in milliseconds; `start_proxy` puts one in front of a port and returns its own."""
    return uvloop.run(_measured(start_proxy))


def _check(rtt_ms: float, *, realtime: bool) -> None:
    with tempfile.TemporaryDirectory() as directory, ExitStack() as running:

        def start(to_port: int) -> int:
            argv = module("proxy", "--to", to_port, "--rtt", rtt_ms, *(["--realtime"] if realtime else []))
            child = running.enter_context(Child(argv, Path(directory) / "proxy.log", talks=True))
            return int(child.line().removeprefix("ready "))

        found = measured(start)
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
        if args.check:
            _check(args.rtt, realtime=args.realtime)
        else:
            uvloop.run(serve(args.to, args.rtt))


if __name__ == "__main__":
    main()
