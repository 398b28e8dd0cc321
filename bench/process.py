"""Processes of a measurement: started, waited for, ended, and never left behind."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).resolve().parent.parent
READY_WITHIN_S = 10.0
END_WITHIN_S = 10.0
_PR_SET_PDEATHSIG = 1
_PR_SET_TIMERSLACK = 29
_LIBC = ctypes.CDLL(None, use_errno=True)


class Failed(Exception):
    """A part of the measurement could not do its work; the text says which and why."""


class Child:
    """A process with its output in `log`; SIGTERM, and where that does not help SIGKILL, when the block ends.

    The kernel ends it too if this process dies, so nothing keeps running behind an aborted run.
    """

    def __init__(self, argv: Sequence[str], log: Path, *, talks: bool = False, folder: Path = ROOT) -> None:
        """`talks`: its standard output is read by `line`, and closing its standard input asks it to finish. `folder`:
        where it runs."""
        self.argv = tuple(argv)
        self.log = log
        self.began_ns = time.monotonic_ns()
        with log.open("ab") as sink:
            self._process = subprocess.Popen(
                self.argv,
                stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else sink,
                stderr=sink,
                cwd=folder,
                start_new_session=True,
                preexec_fn=_die_measuring if talks else _die_in_order,
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def line(self, within_s: float = READY_WITHIN_S) -> str:
        """The next line of its output. Raises Failed."""
        pipe = self._process.stdout
        assert pipe is not None
        deadline, found = time.monotonic() + within_s, bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, selectors.EVENT_READ)
            while not found.endswith(b"\n"):
                if not selector.select(deadline - time.monotonic()):
                    raise Failed(f"{self._name}: silent for {within_s:.0f} s\n{self.last_words}")
                got = os.read(pipe.fileno(), 1)
                if not got:
                    raise Failed(f"{self._name}: ended\n{self.last_words}")
                found += got
        return found.decode().strip()

    def tell(self, line: str) -> None:
        """Write a line to its standard input. Raises Failed."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except OSError as error:
            raise Failed(f"{self._name}: {error}\n{self.last_words}") from error

    def finish(self, within_s: float) -> None:
        """Ask it to end by closing its standard input, and wait. Raises Failed."""
        self.close_input()
        self.wait(within_s)

    def close_input(self) -> None:
        """Ask it to end."""
        if self._process.stdin is not None:
            self._process.stdin.close()

    def wait(self, within_s: float) -> None:
        """Until it has ended with exit code 0. Raises Failed."""
        try:
            code = self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self.end()
            raise Failed(f"{self._name}: not done within {within_s:.0f} s\n{self.last_words}") from None
        if code != 0:
            raise Failed(f"{self._name}: exit code {code}\n{self.last_words}")

    def signal(self, number: signal.Signals) -> None:
        """To the process alone; nothing if it is gone."""
        if self.running:
            self._process.send_signal(number)

    def end(self, within_s: float = END_WITHIN_S) -> None:
        """It and what it started are gone when this returns."""
        self.signal(signal.SIGCONT)
        self.signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(within_s)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.wait(within_s)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def last_words(self) -> str:
        return self.log.read_text(errors="replace")[-2000:]

    @property
    def _name(self) -> str:
        return " ".join(self.argv[:4])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()


def module(name: str, *arguments: object) -> list[str]:
    """The command line of one of this package's programs."""
    return [sys.executable, "-m", f"bench.{name}", *map(str, arguments)]


def wait_until(what: str, holds: Callable[[], bool], within_s: float, every_s: float = 0.02) -> None:
    """Raises Failed when `holds` is not true in time."""
    deadline = time.monotonic() + within_s
    while not holds():
        if time.monotonic() >= deadline:
            raise Failed(f"{what}: not within {within_s:.0f} s")
        time.sleep(every_s)


def steady(*, realtime: bool) -> bool:
    """Make this process a measuring one: no garbage collector, exact timers and, with `realtime`, ahead of what is
    measured whenever it has something to do. Real upstreams and apps have processors of their own; here they share.

    True if the priority was granted (it takes root).
    """
    gc.disable()
    _LIBC.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
    if not realtime:
        return False
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    except OSError:
        return False
    return True


def end_with_stdin(stop: Callable[[], object]) -> None:
    """Call `stop`, from a thread of its own, once the parent closes our standard input or is gone."""

    def watch() -> None:
        while os.read(0, 4096):
            pass
        stop()

    threading.Thread(target=watch, name="stdin", daemon=True).start()


def _die_measuring() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # reaches a stopped process too


def _die_in_order() -> None:
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)  # so that it can end its own children
