"""The relay as a process: start, wait until it is ready, end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

READY_WITHIN_S = 20.0
END_WITHIN_S = 30.0
_READY = re.compile(r"ready smtp=(\S+) http=(\S+)")
KEPT_LINES = 5000
_BOUND = (sys.executable, "-I", "-S", str(Path(__file__).with_name("bound.py")))


class RelayFailed(Exception):
    """The relay ended or didn't become ready; the text has its last lines."""


class RelayProcess:
    """`python -m relay run -c FILE`, from `start` to `stop`; as a context manager it is ended with the block."""

    def __init__(
        self,
        config_file: Path,
        environment: Mapping[str, str] | None = None,
        arguments: Sequence[str] = (),
        program: Sequence[str] = (sys.executable, "-m", "relay"),
        pass_fds: Sequence[int] = (),
        *,
        dies_with_us: bool = False,
    ) -> None:
        """`arguments`: further ones of `run`. `pass_fds`: descriptors that stay open in `program`, under their numbers.
        `dies_with_us`: the kernel kills it when the thread that started it ends, also by SIGKILL (Linux only)."""
        self.smtp_addresses: tuple[str, ...] = ()
        """from the ready line: `127.0.0.1:2525`, `unix:/path`"""
        self.http_address = ""
        self._config_file = config_file
        self._environment = environment or {}
        self._arguments = arguments
        self._program = tuple(program)
        if dies_with_us and sys.platform == "linux":
            self._program = (*_BOUND, str(os.getpid()), *program)
        self._pass_fds = pass_fds
        self._lines: list[str] = []
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._ready = asyncio.Event()

    @property
    def stderr(self) -> str:
        """The last lines that the relay wrote to stderr."""
        return "\n".join(self._lines)

    @property
    def pid(self) -> int:
        return self._running.pid

    @property
    def smtp(self) -> tuple[str, int]:
        """Host and port of the first TCP listener."""
        address = next(one for one in self.smtp_addresses if not one.startswith(("unix:", "systemd:")))
        host, _, port = address.rpartition(":")
        return host.strip("[]"), int(port)

    @property
    def _running(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise RelayFailed("not started")
        return self._process

    async def start(self, within_s: float = READY_WITHIN_S) -> None:
        """Start the relay and wait until it accepts mail. Raises RelayFailed. After any exception no relay runs."""
        self._process = await asyncio.create_subprocess_exec(
            *self._program, "run", "-c", str(self._config_file), *self._arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, **self._environment},
            pass_fds=self._pass_fds,
            start_new_session=True,  # the terminal's Ctrl-C goes to this process only, which ends the relay in order
        )  # fmt: skip
        self._ready.clear()
        self._reading = asyncio.create_task(self._read(self._process), name="relay's stderr")
        try:
            async with asyncio.timeout(within_s):
                await self._ready.wait()
        except TimeoutError:
            await self.kill()
            raise RelayFailed(f"not ready within {within_s:.0f} s\n{self.stderr}") from None
        except BaseException:
            await self.kill()
            raise
        if not self.smtp_addresses:
            raise RelayFailed(f"ended before it was ready, exit {await self.wait()}\n{self.stderr}")

    async def _read(self, process: asyncio.subprocess.Process) -> None:
        assert process.stderr is not None
        async for raw in process.stderr:
            line = raw.decode("utf-8", "replace").rstrip("\n")
            self._lines.append(line)
            del self._lines[:-KEPT_LINES]
            found = _READY.search(line)
            if found and not self._ready.is_set():
                self.smtp_addresses = tuple(found[1].split(","))
                self.http_address = found[2]
                self._ready.set()
        self._ready.set()

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if the relay still runs."""
        with contextlib.suppress(ProcessLookupError):
            self._running.send_signal(number)

    async def wait(self, within_s: float = END_WITHIN_S) -> int:
        """Wait for the exit code (negative: the signal that ended it). Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            code = await self._running.wait()
            if self._reading is not None:
                await self._reading
        return code

    async def terminate(self, within_s: float = END_WITHIN_S) -> int:
        """Send SIGTERM and wait for the exit code. Raises RelayFailed, and kills it, if it drains longer than that."""
        self.send(signal.SIGTERM)
        try:
            return await self.wait(within_s)
        except TimeoutError:
            await self.kill()
            raise RelayFailed(f"still draining after {within_s:.0f} s\n{self.stderr}") from None

    async def kill(self) -> int:
        """Send SIGKILL and wait."""
        self.send(signal.SIGKILL)
        return await self.wait()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running.returncode is None:
            await self.kill()
