"""Run PROGRAM so that the kernel kills it with the thread that started it: `bound.py PARENT PROGRAM ARGUMENT...`

Linux only (prctl(2)).

It is a program and not a function between fork and exec: there a lock that another thread held would stay locked for
ever.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def main(parent: str, program: str, *arguments: str) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != int(parent):  # the parent ended before
        sys.exit(1)
    os.execv(program, (program, *arguments))  # noqa: S606 - the caller names the program


if __name__ == "__main__":
    main(*sys.argv[1:])
