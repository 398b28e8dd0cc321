"""Where the feedback process begins: `python -m relay.feedback.entry LINK LOG [records FD] [LISTENING...]`. The numbers
are file descriptors: its end of the link, where records of tracing are written to, and the bound sockets of
`webhooks.address`. LOG is the word of its `LogOptions`.

It is always a new interpreter: what the public reaches shares no memory with the process that has mail and keys.
"""

from __future__ import annotations

import os
import socket
import sys

from relay import prctl
from relay.observe.log_output import LogOptions
from relay.signing import helper

NICENESS = 10
"""when processors are short, codes go before webhooks"""
RECORDS = "records"
"""the word before that descriptor"""


def main() -> int:
    link_fd, log, *more = sys.argv[1:]
    prctl.undumpable()
    prctl.set_name("feedback")
    prctl.give_back_large_blocks()
    helper.ignore_signals()  # the main process says when to stop
    os.nice(NICENESS)
    traces = more[:1] == [RECORDS]
    descriptors = [int(each) for each in (more[1:] if traces else more)]
    helper.close_all_but(int(link_fd), *descriptors)

    from relay.feedback import process

    sockets = [socket.socket(fileno=each) for each in descriptors]
    records = sockets.pop(0) if traces else None
    return process.run(socket.socket(fileno=int(link_fd)), LogOptions.of(log), sockets, records)


if __name__ == "__main__":
    sys.exit(main())
