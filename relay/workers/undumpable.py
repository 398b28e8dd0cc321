"""Keeps keys and mail out of core files, and from other processes of the same user."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE = 4  # linux/prctl.h


def undumpable() -> None:
    """No core file and no ptrace but by root, for this process and its forks; not after exec. Without support by the
    system nothing happens."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit doesn't hold when the kernel pipes cores to a program such as systemd-coredump (core(5)).
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, ctypes.c_ulong(0), 0, 0, 0)
