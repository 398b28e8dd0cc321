"""Log lines on stderr: logfmt, `time=2026-11-22T12:22:08.251Z level=info event=...`, times in UTC.

All lines have this form, whatever library logs. A busy relay logs thousands of lines a second, so a line takes a
quarter of the time that logging's own formatter takes. A thread writes them out of a bounded queue: when the reader of
stderr stops, lines are lost and counted, and mail goes on.
"""

from __future__ import annotations

import asyncio
import logging
import os
import select
import sys
import threading
import time
from typing import TextIO

from relay.logfmt import MAX_TEXT, quoted

MAX_WAITING_CHARS = 2_000_000
"""of lines that wait to be written; further lines are lost"""
BATCH_WITHIN_S = 0.005
"""Lines that follow within this time are written together. A timer of the event loop wakes the thread: a wake costs a
code more than its lines, and by then the code has left."""
WRITE_BYTES = select.PIPE_BUF
"""of one write, at most: a pipe takes that in one piece, however many processes write to it (pipe(7))"""
CLOSE_WITHIN_S = 1.0

MAX_TRACEBACK = 20_000
"""characters"""

_log = logging.getLogger("relay")


def configure(stream: TextIO, level: str) -> None:
    """Log to `stream`, from `level` (`INFO`) on. Call `close` at the end of the process."""
    global _writer
    # From logging's documentation (HOWTO, Optimization): our lines show neither caller nor thread.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    _writer = LogWriter(stream)
    logging.basicConfig(handlers=[_Handler(_writer)], level=level)
    # Python's own hooks print values, which may be mail, and block when nothing reads stderr.
    sys.unraisablehook = lambda failed: _log.error("event=unraisable error=%s", failed.exc_type.__name__)
    threading.excepthook = lambda failed: _log.error("event=thread_failed error=%s", failed.exc_type.__name__)


def print_line(text: str) -> None:
    """Print a line on stderr that is no log line: after the lines logged before it, and at once."""
    if _writer is None:
        print(text, file=sys.stderr, flush=True)  # noqa: T201
    else:
        _writer.put(text, urgent=True)


def close(within_s: float = CLOSE_WITHIN_S) -> None:
    """Write the waiting lines, as far as possible in `within_s`."""
    if _writer is not None:
        _writer.close(within_s)


def lost_lines() -> int:
    """The number of lines that this process has lost."""
    return 0 if _writer is None else _writer.lost


class LogfmtFormatter(logging.Formatter):
    """Formats a record as one line of logfmt. The text of a second is made once."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._second_text = ""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if not (text.startswith("event=") and record.name.startswith("relay")):
            # A library's message: it may look like an event of ours.
            text = f"event=log source={quoted(record.name)} text={quoted(text, MAX_TEXT)}"
        if record.exc_info:
            text += f" traceback={quoted(self.formatException(record.exc_info), MAX_TRACEBACK)}"
        return self.line(record.created, record.levelname, text)

    def line(self, created: float, level: str, text: str) -> str:
        """`created`: seconds since the epoch. `text`: `event=` and its values."""
        second = int(created)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"time={self._second_text}.{int((created - second) * 1000):03}Z level={level.lower()} {text}"


class _Handler(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.setFormatter(LogfmtFormatter())
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - logging must not cost mail; the values may be mail
            line = f"event=trouble where=log error={type(error).__name__}"
        self._writer.put(line)


class LogWriter:
    """A bounded queue of lines, which a thread writes to a stream in order. `put` never blocks."""

    def __init__(self, stream: TextIO) -> None:
        self.lost = 0
        self._stream = stream
        self._lines: list[str] = []
        self._waiting_chars = 0
        self._unreported = 0
        """lines lost since the last `lines_lost` event"""
        self._lock = threading.Lock()
        self._wakeup = threading.Lock()
        """held while the thread has nothing to do"""
        self._wakeup.acquire()
        self._idle = True
        self._wakeup_due = False
        self._closing = False
        self._closed = threading.Event()
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def put(self, line: str, *, urgent: bool = False) -> None:
        with self._lock:
            if self._waiting_chars > MAX_WAITING_CHARS:
                self.lost += 1
                self._unreported += 1
                return
            self._lines.append(line)
            self._waiting_chars += len(line) + 1
            first, self._idle = self._idle, False
            self._wakeup_due = self._wakeup_due or first
            if not urgent and (not first or self._wakes_later()):
                return
        self._wake()

    def close(self, within_s: float) -> None:
        """Stop the thread after the last line. If that takes longer than `within_s`, it ends with the process."""
        with self._lock:
            self._closing = True
            self._wakeup_due = self._wakeup_due or self._idle
            self._idle = False
        self._wake()
        self._closed.wait(within_s)

    def _wakes_later(self) -> bool:
        """Let the event loop wake the thread soon. False: this thread has no event loop."""
        try:
            asyncio.get_running_loop().call_later(BATCH_WITHIN_S, self._wake)
        except RuntimeError:
            return False
        return True

    def _wake(self) -> None:
        with self._lock:
            if self._wakeup_due:
                self._wakeup_due = False
                self._wakeup.release()

    def _run(self) -> None:
        while True:
            self._wakeup.acquire()
            while lines := self._next_lines():
                self._write(lines)
            if self._closed.is_set():
                return

    def _next_lines(self) -> list[str]:
        """All waiting lines, and a report of lost ones behind them. Empty: the thread may sleep."""
        with self._lock:
            lines, self._lines, self._waiting_chars = self._lines, [], 0
            if self._unreported:
                text = f"event=lines_lost n={self._unreported}"
                lines.append(LogfmtFormatter().line(time.time(), "WARNING", text))
                self._unreported = 0
            if not lines:
                self._idle = True
                if self._closing:
                    self._closed.set()
            return lines

    def _write(self, lines: list[str]) -> None:
        """Write the lines in pieces that a pipe takes whole. What the stream doesn't take is lost."""
        written, piece, size = 0, b"", 0
        for line in lines:
            encoded = line.encode("utf-8", "backslashreplace") + b"\n"
            if piece and len(piece) + len(encoded) > WRITE_BYTES:
                written += size if self._write_piece(piece) else 0
                piece, size = b"", 0
            piece, size = piece + encoded, size + 1
        written += size if self._write_piece(piece) else 0
        with self._lock:
            self.lost += len(lines) - written

    def _write_piece(self, piece: bytes) -> bool:
        try:
            descriptor = self._stream.fileno()
            while piece:
                try:
                    piece = piece[os.write(descriptor, piece) :]
                except BlockingIOError:  # another program that shares the stream made it non-blocking
                    ready = select.poll()
                    ready.register(descriptor, select.POLLOUT)
                    ready.poll()
        except (OSError, ValueError):  # the reader is gone, or the stream is closed
            return False
        return True


_writer: LogWriter | None = None
