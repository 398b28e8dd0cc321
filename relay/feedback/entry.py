"""Where the feedback process begins: `python -m relay.feedback.entry LINK LOG [LISTENING...]`. The numbers are file
descriptors: its end of the link, and the bound sockets of `webhooks.address`. LOG is the word of its
`LogOptions`.

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


def main() -> int:
    link_fd, log, *listening = sys.argv[1:]
    prctl.undumpable()
    prctl.set_name("feedback")
    prctl.give_back_large_blocks()
    helper.ignore_signals()  # the main process says when to stop
    os.nice(NICENESS)
    descriptors = [int(each) for each in listening]
    helper.close_all_but(int(link_fd), *descriptors)

    from relay.feedback import process

    sockets = [socket.socket(fileno=each) for each in descriptors]
    return process.run(socket.socket(fileno=int(link_fd)), LogOptions.of(log), sockets)


if __name__ == "__main__":
    sys.exit(main())
