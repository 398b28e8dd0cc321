"""Run as a program, `bound.py PARENT PROGRAM ARGUMENT...`: becomes PROGRAM, which the kernel kills with the thread that
started it (Linux, prctl(2)).

A program of its own, not a function between fork and exec: there a lock that another thread held stays locked for ever,
and the parent waits for its child meanwhile.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: str, program: str, *arguments: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # it ended before that
        sys.exit(1)
    os.execv(program, (program, *arguments))  # noqa: S606 - what its caller names


if __name__ == "__main__":
    main(*sys.argv[1:])
