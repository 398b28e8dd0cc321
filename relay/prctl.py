"""Attributes of this process that Python has no function for (prctl(2), mallopt(3)); elsewhere than on Linux and glibc
nothing happens."""

from __future__ import annotations

import contextlib
import ctypes
import resource

_PR_SET_DUMPABLE, _PR_SET_NAME = 4, 15  # linux/prctl.h
_M_MMAP_THRESHOLD, _M_ARENA_MAX = -3, -8  # malloc.h
_GIVEN_BACK_BYTES = 262_144
_ARENAS = 2


def undumpable() -> None:
    """No core file and no ptrace but by root, for this process and its forks, not after exec: mail and keys stay out of
    core files, and from other processes of the same user."""
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # The limit doesn't hold when the kernel pipes cores to a program such as systemd-coredump (core(5)).
    _call("prctl", _PR_SET_DUMPABLE, 0, 0, 0, 0)


def set_name(name: str) -> None:
    """What `ps -o comm` and `top` show; cut to 15 characters."""
    _call("prctl", _PR_SET_NAME, name.encode(), 0, 0, 0)


def give_back_large_blocks() -> None:
    """Large blocks of memory go back to the system when they are freed. Else glibc keeps the memory of a large message,
    for each thread."""
    _call("mallopt", _M_MMAP_THRESHOLD, _GIVEN_BACK_BYTES)
    _call("mallopt", _M_ARENA_MAX, _ARENAS)


def _call(function: str, option: int, *arguments: int | bytes) -> None:
    given = [ctypes.c_char_p(each) if isinstance(each, bytes) else ctypes.c_ulong(each) for each in arguments]
    with contextlib.suppress(AttributeError, OSError):
        getattr(ctypes.CDLL(None), function)(ctypes.c_int(option), *given)
