"""Where the tracing process begins: `python -m relay.tracing.entry LINK LOG BEGAN RECORDS`. LINK and RECORDS are
descriptors: its end of the link (`messages`), and the end that records are read from. LOG is the word of its
`LogOptions`; BEGAN is when the relay began, in seconds since the epoch.

Spans take a tenth of a millisecond each to make and to export, which no code shall wait for: so they have a process of
their own. It is the only one that imports OpenTelemetry.
"""

from __future__ import annotations

import os
import socket
import sys

from relay import prctl
from relay.signing import helper

NICENESS = 15
"""when processors are short, mail goes first"""


def main() -> int:
    link_fd, log, began_at, records_fd = sys.argv[1:]
    prctl.undumpable()
    prctl.set_name("tracing")
    helper.ignore_signals()  # the main process says when to stop
    os.nice(NICENESS)
    helper.close_all_but(int(link_fd), int(records_fd))

    from relay.observe.log_output import LogOptions
    from relay.tracing import process

    link, records = socket.socket(fileno=int(link_fd)), socket.socket(fileno=int(records_fd))
    process.run(link, records, LogOptions.of(log), float(began_at))
    # A request to a collector that hangs is under way in a thread, which nothing waits for.
    os._exit(0)


if __name__ == "__main__":
    sys.exit(main())
