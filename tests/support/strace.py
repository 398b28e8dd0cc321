"""strace on a running process: what it asks of the kernel in which order, and death at a chosen call.

with Strace(relay.pid, "pwrite64", path=store_log, kills=True):      # SIGKILL before its next write to that file
    ...
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

ATTACHED_WITHIN_S = 10.0


@cache
def works() -> bool:
    """It is installed, and may look at another process."""
    if shutil.which("strace") is None:
        return False
    other = subprocess.Popen(["sleep", "20"])
    try:
        with Strace(other.pid, "pwrite64"):
            return True
    except OSError:
        return False
    finally:
        other.kill()
        other.wait()


@dataclass(frozen=True, slots=True)
class Call:
    """A call that was made, as strace writes it."""

    name: str
    text: str
    """arguments and result, each descriptor with what it is: `7</data/relay.db-wal>, "..."`"""


class Strace:
    """Attached to all threads of a process when the block begins, gone when it ends."""

    def __init__(
        self, pid: int, calls: str, *, path: str | Path | None = None, kills: bool = False, when: int = 1
    ) -> None:
        """`calls`: their names, with commas. `path`: only those about that file, or a socket as `socket_of` names it.
        `kills`: SIGKILL before the `when`-th of them is carried out."""
        self._argv = ["strace", "-f", "-qq", "-yy", "-s", "200", "-e", f"trace={calls}", "-e", "signal=none"]
        if path is not None:
            self._argv += ["-P", str(path)]
        if kills:
            self._argv += ["-e", f"inject={calls}:signal=SIGKILL:when={when}"]
        self._file = tempfile.NamedTemporaryFile(prefix="strace-")  # noqa: SIM115 - a pipe would fill up
        self._argv += ["-o", self._file.name, "-p", str(pid)]
        self._pid = pid
        self._kills = kills
        self.said = ""
        """all that strace wrote, once the block has ended"""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(self._argv, stderr=subprocess.PIPE, text=True, errors="replace")
        ends = time.monotonic() + ATTACHED_WITHIN_S
        while not _traced(self._pid):
            if self._process.poll() is not None or time.monotonic() > ends:
                self._process.kill()
                raise OSError(f"strace can't attach: {self._process.communicate()[1]}")
            time.sleep(0.005)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # It lets go of a process that goes on. Of one that was killed it may wait for ever for the last thread.
        self._process.send_signal(signal.SIGKILL if self._kills else signal.SIGINT)
        try:
            self._process.communicate(timeout=ATTACHED_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.let_go()
        self.said = Path(self._file.name).read_text(errors="replace")
        self._file.close()

    def let_go(self) -> None:
        """Of whatever it holds."""
        self._process.kill()
        self._process.communicate()

    @property
    def fired(self) -> bool:
        """A call that it looks for was begun."""
        return os.path.getsize(self._file.name) > 0

    @property
    def calls(self) -> Sequence[Call]:
        """In the order in which they ended."""
        found, begun = [], {}
        for line in self.said.splitlines():
            whole = re.match(r"(\d+) +(\w+)\((.*)", line)
            resumed = re.match(r"(\d+) +<\.\.\. (\w+) resumed>(.*)", line)
            if whole and whole[3].endswith("<unfinished ...>"):
                begun[whole[1]] = whole[3].removesuffix("<unfinished ...>")
            elif whole:
                found.append(Call(whole[2], whole[3]))
            elif resumed:
                found.append(Call(resumed[2], begun.pop(resumed[1], "") + resumed[3]))
        return found


def socket_of(pid: int, port: int) -> str:
    """`socket:[INODE]` of the process's connected TCP socket whose peer has that port on loopback."""
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[2] == f"0100007F:{port:04X}" and fields[3] == "01":
            name = f"socket:[{fields[9]}]"
            if any(_link(pid, one) == name for one in os.listdir(f"/proc/{pid}/fd")):
                return name
    raise LookupError(f"no connection of {pid} to port {port}")


def _link(pid: int, descriptor: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return ""


def _traced(pid: int) -> bool:
    """Are all its threads?"""
    try:
        return all(
            "\nTracerPid:\t0\n" not in (task / "status").read_text() for task in Path(f"/proc/{pid}/task").iterdir()
        )
    except OSError:
        return False
