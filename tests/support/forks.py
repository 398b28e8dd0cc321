"""Starts `python -m relay` by a fork of a process that has imported the relay, as if it had been started anew.

A new interpreter takes a second of a processor until it has imported everything, a fork a hundredth: over the whole
suite that is half of what it costs. What is started is a child of this process all the same, with the descriptors,
environment, working directory and session that it was to have, and ends as a program does. What no fork shows is what
imports themselves do: tests of that, and a few of each kind, ask for new interpreters (`pytest.mark.fresh`).

`use()` lets every `subprocess.Popen` in this process do so, asyncio's included. `forks_server` is the other side.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
COMMAND = (sys.executable, "-m", "relay")
WORKER = (sys.executable, "-P", "-m", "relay.workers.entry")
ANSWERS_WITHIN_S = 30.0
_USUAL = {"preexec_fn": None, "gid": None, "gids": None, "uid": None, "umask": -1, "process_group": -1}
"""what a fork doesn't do: any other value takes a new interpreter"""
_STREAMS = ("p2cread", "c2pwrite", "errwrite")


class Server:
    """The process that forks, begun with the first start; it ends with this one."""

    def __init__(self) -> None:
        self.is_used = False
        """else every start takes a new interpreter"""
        self._one_at_a_time = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None

    def fork(self, asked: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """The process id. Raises OSError."""
        with self._one_at_a_time:
            link = self._begun()
            socket.send_fds(link, [json.dumps(asked).encode()], list(descriptors))
            said = link.recv(100)
        if not said:
            raise OSError("the server of forks has ended")
        return int(said)

    def _begun(self) -> socket.socket:
        if self._link is None:
            self._link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._link.settimeout(ANSWERS_WITHIN_S)
            for side in (self._link, theirs):
                side.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)  # an environment goes in one packet
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "tests.support.forks_server", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    cwd=ROOT,
                )
        return self._link

    def end(self) -> None:
        if self._link is not None and self._process is not None:
            self._link.close()
            self._process.wait()
        self._link = self._process = None


SERVER = Server()


class Popen(subprocess.Popen[Any]):
    """As the one of the library; what is a start of the relay is a fork."""

    def _execute_child(self, *arguments: Any) -> None:
        execute = super()._execute_child  # type: ignore[misc]
        given = inspect.signature(execute).bind(*arguments).arguments
        command = [os.fsdecode(word) for word in given["args"]] if isinstance(given["args"], (list, tuple)) else []
        if not SERVER.is_used or not _is_of_the_relay(command, given):
            execute(*arguments)
            return
        streams = [own if (own := given[name]) != -1 else number for number, name in enumerate(_STREAMS)]
        environment = {os.fsdecode(name): os.fsdecode(value) for name, value in (given["env"] or os.environ).items()}
        asked = {
            "words": command[3:] if command[1] == "-m" else command[4:],
            "is_worker": command[1] != "-m",
            "environment": environment,
            "cwd": os.fsdecode(given["cwd"] or os.getcwd()),
            "new_session": bool(given["start_new_session"]),
            "numbers": [0, 1, 2, *given["pass_fds"]],
        }
        self.pid = SERVER.fork(asked, [*streams, *given["pass_fds"]])
        self._child_created = True
        ends = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
        self._close_pipe_fds(*(given[name] for name in ends))  # type: ignore[attr-defined]


def _is_of_the_relay(command: Sequence[str], given: Mapping[str, Any]) -> bool:
    if given["shell"] or given["executable"] not in (None, sys.executable) or not os.path.isdir(given["cwd"] or "."):
        return False
    if any(given.get(name, default) != default for name, default in _USUAL.items()):
        return False
    if tuple(command[:4]) == WORKER:
        return True  # its PYTHONPATH is what this process has
    return tuple(command[:3]) == COMMAND and _pythons(given["env"] or os.environ) == _pythons(os.environ)


def _pythons(environment: Mapping[Any, Any]) -> dict[str, str]:
    """The variables that an interpreter heeds at its start, and the C library."""
    named = {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()}
    return {name: value for name, value in named.items() if name.startswith(("PYTHON", "MALLOC_", "LD_"))}


def possible() -> bool:
    """Linux on a processor whose number for clone(2) is known, and nothing that must be in every process from its
    start, as a measure of coverage must."""
    return (
        sys.platform == "linux"
        and platform.machine() in ("x86_64", "aarch64")
        and not any(name.startswith(("COVERAGE_", "COV_CORE_")) for name in os.environ)
    )


@contextlib.contextmanager
def use() -> Iterator[None]:
    """While the block runs."""
    if not possible():
        yield
        return
    library = subprocess.Popen
    subprocess.Popen = Popen  # type: ignore[misc]
    try:
        yield
    finally:
        subprocess.Popen = library  # type: ignore[misc]
        SERVER.end()
