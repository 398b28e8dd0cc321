"""A terminal that shows the demo's picture and gives its keys: plain control sequences (ECMA-48, xterm), no curses."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
"""another screen without a cursor, on which long lines don't wrap"""
LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
LOCAL_FLAGS = 3
"""the place of the local flags in what tcgetattr returns"""


def can_show_picture(environment: Mapping[str, str]) -> bool:
    """Whether stdout is a terminal that understands control sequences, and this process is in its foreground."""
    if not os.isatty(sys.stdout.fileno()) or environment.get("TERM", "dumb") in ("dumb", "unknown", ""):
        return False
    return is_in_foreground(sys.stdout.fileno())


def is_in_foreground(fd: int) -> bool:
    """Whether this process may change the terminal: one in the background would be stopped (SIGTTOU)."""
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # a terminal that isn't the controlling one
        return True


def is_unicode(environment: Mapping[str, str], encoding: str) -> bool:
    """Whether the terminal shows UTF-8. Python itself takes it for granted in the C locale (PEP 538, PEP 540)."""
    if encoding.lower().replace("-", "") != "utf8":
        return False
    wanted = environment.get("LC_ALL") or environment.get("LC_CTYPE") or environment.get("LANG") or ""
    if wanted == "C.UTF-8" and not environment.get("LC_ALL"):  # perhaps Python's own (PEP 538)
        wanted = environment.get("LANG") or wanted
    return not wanted or "utf8" in wanted.lower().replace("-", "")


class Screen:
    """The whole terminal, inside of the `with` block. After it the terminal is as before."""

    def __init__(self, out_fd: int, keys_fd: int | None) -> None:
        """`keys_fd`: the terminal that keys are read from; None: no keys."""
        self._out_fd = out_fd
        self.keys_fd = keys_fd
        self._attributes: list[Any] | None = None
        self._is_shown = False
        self._lines: list[str] = []
        self._size = (0, 0)

    @property
    def size(self) -> tuple[int, int]:
        """Columns and rows, as they are now; 80 and 24 where the terminal doesn't know."""
        try:
            columns, rows = os.get_terminal_size(self._out_fd)
        except OSError:
            return 80, 24
        return columns or 80, rows or 24

    def draw(self, lines: Sequence[str]) -> None:
        """Show these lines; only what has changed is written. Nothing is while the terminal's output is stopped.

        Raises OSError if the terminal has gone.
        """
        if not self._is_shown or not select.select((), (self._out_fd,), (), 0)[1]:
            return
        size, pieces = self.size, []
        if size != self._size:
            self._size, self._lines = size, []
            pieces.append("\x1b[2J")
        for at, line in enumerate(lines):
            if at >= len(self._lines) or self._lines[at] != line:
                pieces.append(f"\x1b[{at + 1};1H{line}\x1b[K")
        self._lines = list(lines)
        self._write("".join(pieces))

    def read_keys(self) -> str:
        """The keys that were pressed; empty once there will be none."""
        assert self.keys_fd is not None
        try:
            return os.read(self.keys_fd, 64).decode("utf-8", "replace")
        except OSError:
            return ""

    def enter(self) -> None:
        if self.keys_fd is not None:
            self._attributes = termios.tcgetattr(self.keys_fd)
            changed = [*self._attributes]
            # Ctrl-C and Ctrl-Z stay signals.
            changed[LOCAL_FLAGS] &= ~(termios.ICANON | termios.ECHO)
            termios.tcsetattr(self.keys_fd, termios.TCSANOW, changed)
        self._lines = []
        self._is_shown = True
        self._write(ENTER)

    def leave(self) -> None:
        """Give the terminal back as it was; a second call does nothing."""
        if not self._is_shown:
            return
        self._is_shown = False
        with contextlib.suppress(OSError):  # it has gone
            self._write(LEAVE)
        if self.keys_fd is not None and self._attributes is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self.keys_fd, termios.TCSANOW, self._attributes)

    def _write(self, text: str) -> None:
        rest = text.encode("utf-8", "replace")
        while rest:
            rest = rest[os.write(self._out_fd, rest) :]

    def __enter__(self) -> Self:
        self.enter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
