"""What an app and an SMTP server exchange, with the kernel's times, taken off the loopback interface.

Nothing stands in the connection and no app is changed. A packet socket gets a copy of each segment, with the time at
which it was handed over; the segments and their acknowledgements stay as they are. Nothing runs while a message is
under way: the copies wait in the socket's buffer until `drain`. Takes CAP_NET_RAW.
"""

from __future__ import annotations

import contextlib
import ctypes
import re
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from bench.message import ID_HEADER

_IPV4 = 0x0800
_SO_ATTACH_FILTER = 26
_SO_RCVBUFFORCE = 33
_SO_TIMESTAMPNS = 35
_BUFFER_BYTES = 32_000_000
_PACKET_BYTES = 1 << 17
_TIMESPEC = struct.Struct("qq")
_INSTRUCTION = struct.Struct("HBBI")
_SYN = 0x02
_END = b"\r\n.\r\n"
_ID = re.compile(ID_HEADER + rb"([0-9a-f]{16})\r\n")


@dataclass(frozen=True, slots=True)
class Segment:
    """Of a connection between an app and the server."""

    at_ns: int
    """on CLOCK_MONOTONIC"""
    client_port: int
    from_client: bool
    opens: bool
    """it has SYN"""
    sequence: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """One message on its way from the app to the server."""

    bench_id: int
    data_ns: int
    """the app sent its command DATA"""
    dot_ns: int
    """the app sent the last byte of its content"""
    reply_ns: int
    """the server sent its reply to the content"""
    reply: bytes


def permitted() -> bool:
    """May this process see packets?"""
    try:
        socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0).close()
    except OSError:
        return False
    return True


class Capture:
    """Copies of all segments from and to a port on loopback, from when the block is entered."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.setblocking(False)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER_BYTES)
        with contextlib.suppress(PermissionError):  # the system's limit is enough for most apps
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER_BYTES)
        self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
        _attach(self._socket, port)

    def __enter__(self) -> Self:
        # Bound to one protocol it gets segments as they come in, so each of loopback's once.
        self._socket.bind(("lo", _IPV4))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()

    def drain(self) -> Iterator[Segment]:
        """All that has come since the last time."""
        # The kernel's times are on CLOCK_REALTIME.
        ahead_ns = time.time_ns() - time.monotonic_ns()
        while True:
            try:
                packet, extras, _, _ = self._socket.recvmsg(_PACKET_BYTES, socket.CMSG_SPACE(_TIMESPEC.size))
            except BlockingIOError:
                return
            seconds, nanoseconds = _TIMESPEC.unpack(extras[0][2])
            yield _segment(packet, seconds * 1_000_000_000 + nanoseconds - ahead_ns, self._port)


def _attach(packets: socket.socket, port: int) -> None:
    """Let the kernel leave out what isn't from or to `port`: a classic BPF program over the IPv4 header (of 20 bytes,
    as loopback's are) and the two ports behind it."""
    load_half, jump_equal, answer = 0x28, 0x15, 0x06
    program = b"".join(
        _INSTRUCTION.pack(*each)
        for each in (
            (load_half, 0, 0, 20),
            (jump_equal, 2, 0, port),
            (load_half, 0, 0, 22),
            (jump_equal, 0, 1, port),
            (answer, 0, 0, _PACKET_BYTES),
            (answer, 0, 0, 0),
        )
    )
    held = ctypes.create_string_buffer(program)
    packets.setsockopt(
        socket.SOL_SOCKET,
        _SO_ATTACH_FILTER,
        struct.pack("HP", len(program) // _INSTRUCTION.size, ctypes.addressof(held)),
    )


def _segment(packet: bytes, at_ns: int, port: int) -> Segment:
    head = (packet[0] & 0x0F) * 4
    whole = int.from_bytes(packet[2:4], "big") or len(packet)  # 0: larger than the field can say
    source, destination, sequence = struct.unpack_from("!HHI", packet, head)
    start = head + (packet[head + 12] >> 4) * 4
    from_client = destination == port
    return Segment(
        at_ns, source if from_client else destination, from_client, bool(packet[head + 13] & _SYN), sequence,
        packet[start:whole],
    )  # fmt: skip


@dataclass(slots=True)
class _Connection:
    expected: dict[bool, int] = field(default_factory=dict)
    """sequence number that comes next, of the client (True) and of the server"""
    rest: bytes = b""
    """of the client, not yet understood"""
    in_content: bool = False
    data_ns: int = 0
    dot_ns: int = 0
    bench_id: int = 0
    done: list[Exchange] = field(default_factory=list)

    def take(self, one: Segment) -> None:
        if one.opens:
            self.expected[one.from_client] = (one.sequence + 1) % (1 << 32)
        data = self._new_bytes(one)
        if not data:
            return
        if one.from_client:
            self.rest += data
            self._read(one.at_ns)
        elif self.dot_ns:
            self.done.append(Exchange(self.bench_id, self.data_ns, self.dot_ns, one.at_ns, data))
            self.dot_ns = 0

    def _new_bytes(self, one: Segment) -> bytes:
        """Without what was sent before."""
        ahead = (one.sequence - self.expected.get(one.from_client, one.sequence)) % (1 << 32)
        again = (1 << 32) - ahead if ahead >= 1 << 31 else 0
        data = one.data[again:]
        if data:
            self.expected[one.from_client] = (one.sequence + len(one.data)) % (1 << 32)
        return data

    def _read(self, at_ns: int) -> None:
        while not self.in_content and b"\r\n" in self.rest:
            line, _, self.rest = self.rest.partition(b"\r\n")
            if line.strip().upper() == b"DATA":
                self.in_content, self.data_ns = True, at_ns
                self.rest = b"\r\n" + self.rest  # so that the end of an empty content is found
        if self.in_content and _END in self.rest:
            content, _, self.rest = self.rest.partition(_END)
            found = _ID.search(content + b"\r\n")
            self.bench_id, self.dot_ns, self.in_content = int(found[1], 16) if found else 0, at_ns, False


def exchanges(segments: Iterable[Segment]) -> list[Exchange]:
    """The messages in these segments of one server, as they were answered."""
    open_now: dict[int, _Connection] = {}
    seen: list[_Connection] = []
    for one in segments:
        if one.client_port not in open_now or (one.opens and one.from_client):
            open_now[one.client_port] = _Connection()
            seen.append(open_now[one.client_port])
        open_now[one.client_port].take(one)
    return sorted((one for connection in seen for one in connection.done), key=lambda one: one.reply_ns)
