"""Records a program that runs in a terminal: its output with times, as an asciicast.

https://docs.asciinema.org/manual/asciicast/v2/
"""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import struct
import termios
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

END_WITHIN_S = 60.0
SHOWS, HIDES = "\x1b[?1049h", "\x1b[?1049l"
"""the program takes its second screen, and leaves it"""


class Key(NamedTuple):
    """What is typed, so many seconds after the program's first output on the second screen."""

    at_s: float
    text: str


class Recording(NamedTuple):
    columns: int
    rows: int
    output: tuple[tuple[float, str], ...]
    """seconds and text"""

    def write(self, path: Path) -> None:
        """Write it as an asciicast, version 2."""
        head = {"version": 2, "width": self.columns, "height": self.rows}
        lines = [json.dumps(head), *(json.dumps([round(at_s, 3), "o", text]) for at_s, text in self.output)]
        path.write_text("\n".join(lines) + "\n")


def record(command: Sequence[str], keys: Sequence[Key], columns: int, rows: int) -> Recording:
    """Run the command in a terminal of that size and type the keys. Returns when it has ended.

    Times count from the moment at which it shows its second screen. Raises TimeoutError, and kills it, when it doesn't
    end in time after the last key.
    """
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(command[0], list(command), {**os.environ, "TERM": "xterm-256color", "LANG": "C.UTF-8"})
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    output: list[tuple[float, str]] = []
    begun_at: float | None = None
    waiting = list(keys)
    give_up_at = time.monotonic() + max((key.at_s for key in keys), default=0.0) + END_WITHIN_S
    rest = b""
    try:
        while True:
            now = time.monotonic()
            if now > give_up_at:
                os.kill(pid, 9)
                raise TimeoutError(f"{command[0]} didn't end")
            if begun_at is not None and waiting and now - begun_at >= waiting[0].at_s:
                os.write(terminal, waiting.pop(0).text.encode())
            if not select.select((terminal,), (), (), 0.05)[0]:
                continue
            try:
                raw = os.read(terminal, 65_536)
            except OSError:  # Linux: the other side is closed
                break
            text, rest = _decoded(rest + raw)
            if begun_at is None and SHOWS in text:
                begun_at, output = time.monotonic(), []
                text = text[text.index(SHOWS) :]
            output.append((0.0 if begun_at is None else time.monotonic() - begun_at, text))
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    return Recording(columns, rows, tuple(output))


def _decoded(raw: bytes) -> tuple[str, bytes]:
    """The text, and the bytes of a character that is not whole yet."""
    for cut in range(min(4, len(raw) + 1)):
        try:
            return raw[: len(raw) - cut].decode(), raw[len(raw) - cut :]
        except UnicodeDecodeError:
            continue
    return raw.decode("utf-8", "replace"), b""
