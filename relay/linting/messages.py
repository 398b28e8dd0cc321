"""What goes over the socket between the main process and the lint process: packets, each at most MOST_BYTES and a lane.

To the process: `D` and the domains that have a DKIM key; `M`, a lane, a line end and a message. From it: a lane, a line
end, and the names of the rules that the message broke, with blanks between; UNREADABLE stands for a message that can't
be read.
"""

from __future__ import annotations

from collections.abc import Iterable

MOST_BYTES = 150_000
"""of a message: what a socket's buffer takes on any Linux"""
UNREADABLE = b"!"


def domains_packet(domains: Iterable[str]) -> bytes:
    return b"D" + " ".join(sorted(domains)).encode()


def message_packet(lane: str, content: bytes) -> bytes:
    return b"".join((b"M", lane.encode(), b"\n", content))


def answer_packet(lane: bytes, rules: Iterable[str] | None) -> bytes:
    """`rules`: None for a message that can't be read."""
    return lane + b"\n" + (UNREADABLE if rules is None else " ".join(rules).encode())


def read_answer(packet: bytes) -> tuple[str, list[str] | None]:
    lane, _, rules = packet.partition(b"\n")
    return lane.decode(), None if rules == UNREADABLE else rules.decode().split()
