"""Log lines on stderr: logfmt, `time=2026-11-22T12:22:08.251Z level=info event=...`, or JSON with the same keys.

Times are RFC 3339 in UTC. All lines have this form, whatever library logs. Where journald reads stderr, each line
begins with its priority (sd-daemon(3)), which journald takes off.

A busy relay logs thousands of lines a second, so a line takes a quarter of the time that logging's own formatter takes.
A thread writes them out of a bounded queue: when the reader of stderr stops, lines are lost and counted, and mail goes
on.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import select
import sys
import threading
import time
from abc import ABC, abstractmethod
from typing import Literal, NamedTuple, Self, TextIO

from relay.logfmt import LogLine, LongText, Traceback, logfmt

MAX_WAITING_CHARS = 2_000_000
"""of lines that wait to be written; further lines are lost"""
BATCH_WITHIN_S = 0.005
"""Lines that follow within this time are written together. A timer of the event loop wakes the thread: a wake costs a
code more than its lines, and by then the code has left."""
WRITE_BYTES = select.PIPE_BUF
"""of one write, at most: a pipe takes that in one piece, however many processes write to it (pipe(7))"""
CLOSE_WITHIN_S = 1.0

_PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
"""of syslog(3)"""

_log = logging.getLogger("relay")


Format = Literal["logfmt", "json"]


class LogOptions(NamedTuple):
    """How a process logs."""

    level: str = "INFO"
    """the least one"""
    format: Format = "logfmt"

    @property
    def word(self) -> str:
        """For the command line of another process of the relay."""
        return f"{self.level}/{self.format}"

    @classmethod
    def of(cls, word: str) -> Self:
        """From its `word`."""
        level, _, form = word.partition("/")
        return cls(level, "json" if form == "json" else "logfmt")


def configure(stream: TextIO, options: LogOptions) -> None:
    """Log to `stream`. Call `close` at the end of the process."""
    global _writer, _options
    _options = options
    # From logging's documentation (HOWTO, Optimization): our lines show neither caller nor thread.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    formatter = JsonFormatter() if options.format == "json" else LogfmtFormatter()
    _writer = LogWriter(stream, formatter, with_priorities=_goes_to_journal(stream))
    logging.basicConfig(handlers=[_Handler(_writer)], level=options.level)
    # Python's own hooks print values, which may be mail, and block when nothing reads stderr.
    sys.unraisablehook = lambda failed: _log.error(logfmt("unraisable", error=failed.exc_type.__name__))
    threading.excepthook = lambda failed: _log.error(logfmt("thread_failed", error=failed.exc_type.__name__))


def options() -> LogOptions:
    """How this process logs, for others that it starts."""
    level = logging.getLevelName(logging.getLogger().getEffectiveLevel())
    return _options._replace(level=level)


def _goes_to_journal(stream: TextIO) -> bool:
    """Whether journald reads the stream: systemd.exec(5), $JOURNAL_STREAM."""
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


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


class LineFormatter(logging.Formatter, ABC):
    """Formats a record as one line. The text of a second is made once."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._second_text = ""

    def format(self, record: logging.LogRecord) -> str:
        said = record.msg if isinstance(record.msg, LogLine) else None
        if said is None:
            # A library's message: it may look like an event of ours.
            said = LogLine("log", {"source": record.name, "text": LongText(record.getMessage())})
        if record.exc_info:
            said = LogLine(said.event, {**said.values, "traceback": Traceback(self.formatException(record.exc_info))})
        return self.line(record.created, record.levelname, said)

    def time(self, created: float) -> str:
        """`created`: seconds since the epoch."""
        second = int(created)
        if second != self._second:
            self._second, self._second_text = second, time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
        return f"{self._second_text}.{int((created - second) * 1000):03}Z"

    @abstractmethod
    def line(self, created: float, level: str, said: LogLine) -> str:
        """`created`: seconds since the epoch."""


class LogfmtFormatter(LineFormatter):
    """`time=... level=info event=sent id=01J`"""

    def line(self, created: float, level: str, said: LogLine) -> str:
        return f"time={self.time(created)} level={level.lower()} {said}"


class JsonFormatter(LineFormatter):
    """`{"time": "...", "level": "info", "event": "sent", "id": "01J"}`"""

    def line(self, created: float, level: str, said: LogLine) -> str:
        return json.dumps({"time": self.time(created), "level": level.lower(), **said.fields()})


class _Handler(logging.Handler):
    def __init__(self, writer: LogWriter) -> None:
        super().__init__()
        self.setFormatter(writer.formatter)
        self._writer = writer

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record)
        except Exception as error:  # noqa: BLE001 - logging must not cost mail; the values may be mail
            trouble = LogLine("trouble", {"where": "log", "error": type(error).__name__})
            line = self._writer.formatter.line(record.created, "ERROR", trouble)
        self._writer.put(line, record.levelno)


class LogWriter:
    """A bounded queue of lines, which a thread writes to a stream in order. `put` never blocks."""

    def __init__(
        self, stream: TextIO, formatter: LineFormatter | None = None, *, with_priorities: bool = False
    ) -> None:
        """`with_priorities`: lines begin with their priority, for journald."""
        self.lost = 0
        self.formatter = formatter or LogfmtFormatter()
        self._with_priorities = with_priorities
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

    def put(self, line: str, level: int = logging.INFO, *, urgent: bool = False) -> None:
        if self._with_priorities:
            line = f"<{_PRIORITIES.get(level, 6)}>{line}"
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
                lines.append(
                    self.formatter.line(time.time(), "WARNING", LogLine("lines_lost", {"n": self._unreported}))
                )
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
_options = LogOptions()
