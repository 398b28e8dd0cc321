"""How a log line is written: `time=2026-11-22T12:22:08.251Z level=info event=...`. It is logfmt throughout, whatever
library logs, and its time is UTC, whatever the machine's zone. A busy relay writes thousands a second: a line costs a
quarter of what logging's own formatter takes.

A thread writes them, out of a bounded queue: where the reader of stderr stops, lines are lost and counted, and mail
goes on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import select
import sys
import threading
import time
from typing import TextIO

MOST_CHARACTERS = 2_000_000
"""of lines that wait to be written; what comes beyond is lost"""
TOGETHER_S = 0.005
"""lines that come so soon behind each other are written together. A timer of the event loop wakes the thread: a wake
costs a code more than to make its lines, and by then the code has left"""
WRITE_BYTES = select.PIPE_BUF
"""at once, at most: so much goes into a pipe in one piece, however many processes write to it (pipe(7))"""
CLOSE_WITHIN_S = 1.0

MAX_VALUE = 200
"""characters of one value"""
MAX_TEXT = 2_000
"""characters of what a library says"""
MAX_TRACEBACK = 20_000

_log = logging.getLogger("relay")
_BARE = re.compile(r"[!#-<>-\[\]-~]+")
"""printable ASCII without blank, quote, = and backslash"""


class LongText(str):
    """A value that `logfmt` cuts at MAX_TEXT instead of MAX_VALUE: a configuration error names file, key and cause."""


def logfmt(event: str, **values: object) -> str:
    """`event=sent id=01J total_ms=41.2`; None is left out, text is bounded and on one line."""
    parts = [f"event={event}"]
    for key, value in values.items():
        if value is not None:
            parts.append(f"{key}={_value(value)}")
    return " ".join(parts)


def _value(value: object, most_chars: int = MAX_VALUE) -> str:
    if isinstance(value, float):
        return f"{value:.1f}"
    if isinstance(value, LongText):
        most_chars = MAX_TEXT
    text = str(value)[:most_chars]
    return text if _BARE.fullmatch(text) else json.dumps(text)


def to(stream: TextIO, level: str) -> None:
    """Write all log lines of this process there, from `level` (`INFO`) on; `close` at the end."""
    global _writer
    # logging's own documentation names these (HOWTO, Optimization): who called, and from where, is in no line of ours.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _writer = Writer(stream)
    logging.basicConfig(handlers=[_Handler(_writer)], level=level)
    # What Python prints of these may quote mail, and blocks where nothing reads.
    sys.unraisablehook = lambda failed: _log.error("event=unraisable error=%s", failed.exc_type.__name__)
    threading.excepthook = lambda failed: _log.error("event=thread_failed error=%s", failed.exc_type.__name__)


def say(text: str) -> None:
    """A line on stderr that is no log line, behind those that were logged before it; written at once."""
    if _writer is None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    else:
        _writer.put(text, urgent=True)


def close(within_s: float = CLOSE_WITHIN_S) -> None:
    """Write what waits, as far as that goes in `within_s`."""
    if _writer is not None:
        _writer.close(within_s)


def lost() -> int:
    """Lines that were lost in this process."""
    return 0 if _writer is None else _writer.lost


class Lines(logging.Formatter):
    """Makes a record one line of logfmt, with each second's text made once."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._text = ""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if not (text.startswith("event=") and record.name.startswith("relay")):
            # A library's own words: they may look like events of ours.
            text = f"event=log source={_value(record.name)} text={_value(text, MAX_TEXT)}"
        if record.exc_info:
            text += f" traceback={_value(self.formatException(record.exc_info), MAX_TRACEBACK)}"
        return self.line(record.created, record.levelname, text)

    def line(self, created: float, level: str, text: str) -> str:
        """`created`: seconds since the epoch. `text`: `event=` and its values."""
        second = int(created)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"time={self._text}.{int((created - second) * 1000):03}Z level={level.lower()} {text}"


class _Handler(logging.Handler):
    def __init__(self, writer: Writer) -> None:
        super().__init__()
        self.setFormatter(Lines())
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - a line that can't be made costs no mail; its values may be mail
            line = f"event=trouble where=log error={type(error).__name__}"
        self._writer.put(line)


class Writer:
    """Lines on their way to a stream, in order. `put` returns at once."""

    def __init__(self, stream: TextIO) -> None:
        self.lost = 0
        self._stream = stream
        self._lines: list[str] = []
        self._waiting = 0
        """their characters"""
        self._untold = 0
        """lines lost since that was last said"""
        self._lock = threading.Lock()
        self._bell = threading.Lock()
        """held while the thread has nothing to do"""
        self._bell.acquire()
        self._idle = True
        self._due = False
        """the loop's timer is to wake the thread"""
        self._closing = False
        self._done = threading.Event()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, line: str, *, urgent: bool = False) -> None:
        with self._lock:
            if self._waiting > MOST_CHARACTERS:
                self.lost += 1
                self._untold += 1
                return
            self._lines.append(line)
            self._waiting += len(line) + 1
            begins, self._idle = self._idle, False
            self._due = self._due or begins
            if not urgent and (not begins or self._rings_later()):
                return
        self._ring()

    def close(self, within_s: float) -> None:
        """The thread ends with the last line; where it can't, it ends with the process."""
        with self._lock:
            self._closing = True
            self._due = self._due or self._idle
            self._idle = False
        self._ring()
        self._done.wait(within_s)

    def _rings_later(self) -> bool:
        """False: no event loop runs in this thread."""
        try:
            asyncio.get_running_loop().call_later(TOGETHER_S, self._ring)
        except RuntimeError:
            return False
        return True

    def _ring(self) -> None:
        """Wake the thread, if that is still to be done."""
        with self._lock:
            if self._due:
                self._due = False
                self._bell.release()

    def _run(self) -> None:
        while True:
            self._bell.acquire()
            while lines := self._take():
                self._write(lines)
            if self._done.is_set():
                return

    def _take(self) -> list[str]:
        """All that waits; where lines were lost behind them, that. Empty: the thread may sleep."""
        with self._lock:
            lines, self._lines, self._waiting = self._lines, [], 0
            if self._untold:
                lines.append(Lines().line(time.time(), "WARNING", f"event=lines_lost n={self._untold}"))
                self._untold = 0
            if not lines:
                self._idle = True
                if self._closing:
                    self._done.set()
            return lines

    def _write(self, lines: list[str]) -> None:
        """In as few pieces as a pipe takes whole. Lines that nothing takes are lost."""
        written, piece, size = 0, b"", 0
        for line in lines:
            encoded = line.encode("utf-8", "backslashreplace") + b"\n"
            if piece and len(piece) + len(encoded) > WRITE_BYTES:
                written += size if self._out(piece) else 0
                piece, size = b"", 0
            piece, size = piece + encoded, size + 1
        written += size if self._out(piece) else 0
        with self._lock:
            self.lost += len(lines) - written

    def _out(self, piece: bytes) -> bool:
        try:
            descriptor = self._stream.fileno()
            while piece:
                try:
                    piece = piece[os.write(descriptor, piece) :]
                except BlockingIOError:  # another program that has it open made it so
                    ready = select.poll()
                    ready.register(descriptor, select.POLLOUT)
                    ready.poll()
        except (OSError, ValueError):  # the reader is gone, or the stream is closed
            return False
        return True


_writer: Writer | None = None
