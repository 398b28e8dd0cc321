"""Where the lint process begins: `python -m relay.linting.entry FD`, where FD is its end of the socket (`messages`).

Lint takes milliseconds of a processor for each message, which no code shall wait for: so it has a process of its own,
which runs when nothing else wants the processor. It ends with the main process.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import time

from relay import prctl
from relay.linting.messages import MOST_BYTES, answer_packet
from relay.signing import helper

_PACKET_BYTES = MOST_BYTES + 1_000


def main() -> int:
    (fd,) = map(int, sys.argv[1:])
    prctl.undumpable()
    prctl.set_name("lint")
    helper.ignore_signals()  # it ends when the socket does
    os.nice(19)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not permitted
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
    helper.close_all_but(fd)
    serve(socket.socket(fileno=fd))
    return 0


def serve(link: socket.socket) -> None:
    """Answer packets until the other end is closed."""
    domains: frozenset[str] | None = None
    with contextlib.suppress(OSError):  # the other end is gone
        while packet := link.recv(_PACKET_BYTES):
            if packet[:1] == b"D":
                domains = frozenset(packet[1:].decode().split())
                continue
            lane, _, content = packet[1:].partition(b"\n")
            link.sendall(answer_packet(lane, _rules(content, domains)))


def _rules(content: bytes, domains: frozenset[str] | None) -> list[str] | None:
    """The names of the rules that a message breaks, each once."""
    from relay.mail.lint import lint

    try:
        return list(dict.fromkeys(finding.rule for finding in lint(content, now=time.time(), signed=domains)))
    except Exception:  # noqa: BLE001 - the main process counts it; a traceback could show what the message says
        return None


if __name__ == "__main__":
    sys.exit(main())
