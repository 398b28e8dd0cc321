"""Keys and mail stay out of core files, and out of reach of other processes of the same user."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def undumpable() -> None:
    """From here on, for this process and those that it forks: no core file, no ptrace by others than root. A program
    that is started anew (exec) has to ask for it again. Where the system knows no such thing, nothing happens."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit isn't asked where the kernel hands cores to a program (core(5)): systemd-coredump, apport.
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)
