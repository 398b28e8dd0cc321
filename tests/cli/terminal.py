"""A person at a real terminal: waits for a question, and types."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ANSWERS_WITHIN_S = 30.0
RELAY = (sys.executable, "-m", "relay")


def _take_the_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background job has it ignored


class Terminal:
    """`python -m relay ARGUMENTS`, or another `program`, with a pseudo-terminal. A context manager; `shown` is
    everything on its screen."""

    def __init__(self, *arguments: str, folder: Path, program: Sequence[str] = RELAY) -> None:
        self.shown = ""
        self._seen = 0
        self._ours, theirs = pty.openpty()
        self._process = subprocess.Popen(
            [*program, *arguments],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            start_new_session=True,
            preexec_fn=_take_the_terminal,
        )
        os.close(theirs)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ours)

    def wait_for(self, question: str) -> None:
        """Until the screen shows it, behind what was waited for before."""
        while (at := self.shown.find(question, self._seen)) < 0:
            if not self._read():
                raise AssertionError(f"ended without {question!r}: {self.shown}")
        self._seen = at + len(question)

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def answer(self, question: str, text: str) -> None:
        self.wait_for(question)
        self.type(f"{text}\n")

    def interrupt(self) -> int:
        """Type Ctrl-C; the exit code. Again after a while: Python misses one that comes right before it begins to read.
        Not at once: one more while it ends would kill it."""
        ends_at = time.monotonic() + ANSWERS_WITHIN_S
        while self._process.poll() is None and time.monotonic() < ends_at:
            self.type("\x03")
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(5)
        return self.end()

    def end(self) -> int:
        """The exit code, once it has ended."""
        while self._read():
            pass
        return self._process.wait(ANSWERS_WITHIN_S)

    def _read(self) -> bool:
        """Whether there was more to read."""
        ends_at = time.monotonic() + ANSWERS_WITHIN_S
        if not select.select([self._ours], [], [], max(0.0, ends_at - time.monotonic()))[0]:
            raise AssertionError(f"nothing more came: {self.shown}")
        try:
            piece = os.read(self._ours, 65_536)
        except OSError:  # Linux: the other side is closed
            return False
        self.shown += piece.decode("utf-8", "replace")
        return bool(piece)
