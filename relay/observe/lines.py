"""How a log line is written: `2026-11-22 13:22:08,251 INFO event=...`, as logging's own format has it, at a quarter of
the price. A busy relay writes thousands a second.

A thread writes them, out of a bounded queue: where the reader of stderr stops, lines are lost and counted, and mail
goes on.
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

MOST_CHARACTERS = 2_000_000
"""of lines that wait to be written; what comes beyond is lost"""
TOGETHER_S = 0.005
"""lines that come so soon behind each other are written together. A timer of the event loop wakes the thread: a wake
costs a code more than to make its lines, and by then the code has left"""
WRITE_BYTES = select.PIPE_BUF
"""at once, at most: so much goes into a pipe in one piece, however many processes write to it (pipe(7))"""
CLOSE_WITHIN_S = 1.0

_log = logging.getLogger("relay")


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
    """logging.Formatter("%(asctime)s %(levelname)s %(message)s"), with each second's text made once."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._text = ""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; what an exception says of itself on further ones."""
        if record.exc_info or record.stack_info:
            return self.line(record.created, record.levelname, super().format(record))
        return self.line(record.created, record.levelname, record.getMessage())

    def line(self, created: float, level: str, text: str) -> str:
        """`created`: seconds since the epoch."""
        second = int(created)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text},{int((created - second) * 1000):03} {level} {text}"


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
