"""Starts a worker process.

A worker's first process is forked before the main process has a thread or an event loop: it shares the memory of what
both have imported, and is there at once. After that a new interpreter is started, with the same code.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import NamedTuple, NoReturn, Protocol

from relay.observe import log_output
from relay.observe.log_output import LogOptions
from relay.workers import entry

_HERE = Path(__file__).parents[2]
"""the folder that `relay` was imported from"""


class Process(Protocol):
    """A worker's process as its owner holds it; `asyncio.subprocess.Process` is one."""

    @property
    def returncode(self) -> int | None:
        """None: it runs."""

    async def wait(self) -> int:
        """Wait until it has ended. Returns its exit code."""

    def kill(self) -> None:
        """Raises ProcessLookupError."""


class Started(NamedTuple):
    process: Process
    link: socket.socket
    """the main process's end"""


class Forked(NamedTuple):
    """A worker's process that no event loop watches yet."""

    pid: int
    pidfd: int
    link: socket.socket
    """the main process's end"""

    def started(self) -> Started:
        """From here on the running event loop watches it."""
        return Started(ForkedProcess(self.pid, self.pidfd), self.link)


def fork(number: int, log: LogOptions, records: socket.socket | None = None, *, signs: bool) -> Forked | None:
    """Fork the process of worker `number`, while this process has one thread and no event loop. None: this system
    can't. `records`: where those of tracing are written to. The other arguments: see `entry.run`."""
    try:
        os.close(os.pidfd_open(os.getpid()))  # without these its end can't be noticed
        link, theirs = socket.socketpair()
    except (OSError, AttributeError):
        return None
    with theirs:
        gc.freeze()  # else the next collection would write to all objects, and nothing stayed shared
        try:
            pid = os.fork()
        except OSError:
            link.close()
            return None
        if pid == 0:
            _end_with(number, log, theirs, records, signs=signs)
        return Forked(pid, os.pidfd_open(pid), link)


def _end_with(
    number: int, log: LogOptions, theirs: socket.socket, records: socket.socket | None, *, signs: bool
) -> NoReturn:
    code = 1
    try:
        records_fd = None if records is None else records.detach()
        code = entry.run(theirs.detach(), number, log, records_fd, signs=signs)
    except BaseException:  # noqa: BLE001 - printed as Python does at the end of a program, which this is
        traceback.print_exc()
    finally:
        os._exit(code)


class ForkedProcess:
    """A forked process, watched by the running event loop."""

    def __init__(self, pid: int, pidfd: int) -> None:
        self.returncode: int | None = None
        self._pid, self._pidfd = pid, pidfd
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._pidfd, self._reap)

    def _reap(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self._pid, 0)[1])
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self._pid, signal.SIGKILL)


async def spawn(number: int, records: socket.socket | None = None, *, signs: bool) -> Started:
    """Start the process of worker `number` with a new interpreter. `records`: see `fork`; `signs`: see `entry.run`.
    Raises OSError."""
    link, theirs = socket.socketpair()
    passed = [theirs.fileno(), *([] if records is None else [records.fileno()])]
    options = log_output.options().word
    words = [str(theirs.fileno()), str(number), options, *(["sign"] if signs else []), *map(str, passed[1:])]
    with theirs:
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-P", "-m", entry.__name__, *words),
                pass_fds=passed,
                stdin=asyncio.subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": python_path()},
            )
        except OSError:
            link.close()
            raise
    return Started(process, link)


def python_path() -> str:
    """For a new interpreter: it imports its modules from where this process does. `-m` alone would search the working
    directory first, where anybody may have put a module (hence -P); `relay` itself may be there, with `python -c`."""
    return os.pathsep.join([*filter(None, sys.path), str(_HERE)])
