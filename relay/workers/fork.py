"""Entry point of a worker process: `python -m relay.workers.fork FD [sign]`. FD is its end of the link.

With `sign` it forks a signing helper, before it imports what a worker needs: so the helper stays small.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys

from relay.signing import helper
from relay.workers.undumpable import undumpable

NICENESS = 12
"""when processors are short, codes go before bulk mail"""


def main() -> int:
    """Exit 0 after a drain, or when the main process is gone."""
    undumpable()
    helper.ignore_signals()  # the main process says when to stop
    os.nice(NICENESS)
    with contextlib.suppress(AttributeError, OSError):  # not Linux, or not permitted
        # When a worker wakes, it doesn't preempt another process, least of all the one that sends codes.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    link = socket.socket(fileno=int(sys.argv[1]))
    # uvloop passes on all inheritable descriptors. Those that the relay was started with must not stay open here.
    helper.close_all_but(link.fileno())
    forked = helper.fork() if "sign" in sys.argv[2:] else None

    from relay.workers import process

    return process.run(link, forked)


if __name__ == "__main__":
    sys.exit(main())
