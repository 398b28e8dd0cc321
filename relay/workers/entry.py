"""Where a worker process begins: forked by the main process, or as `python -m relay.workers.entry FD NUMBER LOG
[sign]`, where FD is its end of the link and LOG the word of its `LogOptions`."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from relay import prctl
from relay.observe.log_output import LogOptions
from relay.signing import helper

NICENESS = 12
"""when processors are short, codes go before bulk mail"""
LINK_FD = 3


def run(link_fd: int, number: int, log: LogOptions, *, signs: bool) -> int:
    """Serve the link. `number`: of the worker. `signs`: it gets a signing helper. Exit 0 after a drain, or when the
    main process is gone."""
    prctl.undumpable()
    prctl.set_name(f"worker {number}")
    prctl.give_back_large_blocks()
    helper.ignore_signals()  # the main process says when to stop
    os.nice(NICENESS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not permitted
        # When a worker wakes, it doesn't preempt another process, least of all the one that sends codes.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Descriptors of the main process's must not stay open here.
    if link_fd != LINK_FD:
        os.dup2(link_fd, LINK_FD, inheritable=False)
    helper.close_all_but(LINK_FD)
    forked = helper.fork() if signs else None

    from relay.workers import process  # behind the fork: a helper of a new interpreter stays small

    return process.run(socket.socket(fileno=LINK_FD), log, forked)


def main() -> int:
    fd, number, log, *more = sys.argv[1:]
    return run(int(fd), int(number), LogOptions.of(log), signs="sign" in more)


if __name__ == "__main__":
    sys.exit(main())
