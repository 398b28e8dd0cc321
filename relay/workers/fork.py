"""A worker's beginning: `python -m relay.workers.fork FD [sign]`, started by the main process with its end of the link
at FD. The helper that `sign` asks for is forked here, before what a worker needs is imported."""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from relay.signing import helper
from relay.workers.undumpable import undumpable

NICENESS = 12
"""where processors are short, a code goes before bulk"""


def main() -> int:
    """Exit 0 after a drain, or when the main process is gone."""
    undumpable()
    helper.ignore_signals()  # when to stop is the main process's to say
    os.nice(NICENESS)
    with contextlib.suppress(AttributeError, OSError):  # another system, or a service manager that doesn't let it
        # Woken, it takes nobody's processor away; what wakes it is mostly this machine's own bulk mail.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    link = socket.socket(fileno=int(sys.argv[1]))
    # uvloop passes on what is inheritable, whatever it is told: of what the relay was started with (a pipe of whoever
    # started it, say) nothing is to be held open here.
    helper.close_all_but(link.fileno())
    forked = helper.fork() if "sign" in sys.argv[2:] else None

    from relay.workers import process

    return process.run(link, forked)


if __name__ == "__main__":
    sys.exit(main())
