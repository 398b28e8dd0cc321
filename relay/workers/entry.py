"""Where a worker process begins: forked by the main process, or as `python -m relay.workers.entry FD NUMBER LOG
[sign] [RECORDS]`, where FD is its end of the link, LOG the word of its `LogOptions`, and RECORDS where those of tracing
are written to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import sys

from relay import prctl
from relay.observe.log_output import LogOptions
from relay.signing import helper

NICENESS = 12
"""when processors are short, codes go before bulk mail"""
LINK_FD, RECORDS_FD = 3, 4


def run(link_fd: int, number: int, log: LogOptions, records_fd: int | None = None, *, signs: bool) -> int:
    """Serve the link. `number`: of the worker. `records_fd`: where records of tracing are written to. `signs`: it gets
    a signing helper. Exit 0 after a drain, or when the main process is gone."""
    prctl.undumpable()
    prctl.set_name(f"worker {number}")
    prctl.give_back_large_blocks()
    helper.ignore_signals()  # the main process says when to stop
    os.nice(NICENESS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not permitted
        # When a worker wakes, it doesn't preempt another process, least of all the one that sends codes.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    # Descriptors of the main process's must not stay open here.
    kept = _place(link_fd, records_fd)
    helper.close_all_but(*kept)
    forked = helper.fork() if signs else None

    from relay.workers import process  # behind the fork: a helper of a new interpreter stays small

    link, *records = (socket.socket(fileno=each) for each in kept)
    return process.run(link, log, forked, records[0] if records else None)


def _place(link_fd: int, records_fd: int | None) -> list[int]:
    """Put the descriptors where the worker has them. Returns those."""
    kept = [LINK_FD]
    if records_fd is not None:
        # Above all that are open, so that no copy falls on the other.
        above = fcntl.fcntl(records_fd, fcntl.F_DUPFD_CLOEXEC, RECORDS_FD + 1)
    if link_fd != LINK_FD:
        os.dup2(link_fd, LINK_FD, inheritable=False)
    if records_fd is not None:
        os.dup2(above, RECORDS_FD, inheritable=False)
        kept.append(RECORDS_FD)
    return kept


def main() -> int:
    fd, number, log, *more = sys.argv[1:]
    signs = "sign" in more
    records = [int(each) for each in more if each != "sign"]
    return run(int(fd), int(number), LogOptions.of(log), records[0] if records else None, signs=signs)


if __name__ == "__main__":
    sys.exit(main())
