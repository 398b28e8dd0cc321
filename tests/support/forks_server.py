"""`python -m tests.support.forks_server FD`: has imported all of the relay, and forks a process for each start that is
asked for at FD (see `forks`)."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import ctypes
import fcntl
import gc
import importlib
import json
import os
import pkgutil
import platform
import re
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import relay
from relay.workers import fork, life, spawn

SPARE = "spare worker"
_CLONE = {"x86_64": 56, "aarch64": 220}
_CLONE_PARENT = 0x8000
_ABOVE = 500
"""where descriptors wait until each is where it was asked for"""
Job = Callable[[], int]


def load_all() -> None:
    """All of the relay, and what it imports when a command runs."""
    for module in pkgutil.walk_packages(relay.__path__, "relay."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in ("encodings.idna", "relay.__main__"):
        importlib.import_module(name)


def serve(link: socket.socket) -> Job | None:
    """Until the other end is gone: None. In a process that was forked: what it has to do."""
    while True:
        packet, descriptors, _, _ = socket.recv_fds(link, 1 << 20, 50)
        if not packet:
            return None
        if fork_beside() == 0:
            return _begun(json.loads(packet), descriptors, link)
        for descriptor in descriptors:
            os.close(descriptor)


def fork_beside() -> int:
    """fork(2), but the child is one of this process's parent, which waits for it and sees it end: clone(2)."""
    python = ctypes.pythonapi
    python.PyOS_BeforeFork()
    pid: int = _libc.syscall(_CLONE[platform.machine()], _CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
    if pid:
        python.PyOS_AfterFork_Parent()
    else:
        python.PyOS_AfterFork_Child()
    return pid


_libc = ctypes.PyDLL(None)  # the interpreter's lock stays with the one thread that the child has


def _begun(asked: dict[str, Any], descriptors: list[int], link: socket.socket) -> Job:
    """What a new program finds: its descriptors and no others, environment, folder, session. Then who asked is told
    the process id."""
    os.environ.clear()
    os.environ.update(asked["environment"])
    os.chdir(asked["cwd"])
    sys.path[0] = asked["cwd"]
    if asked["new_session"]:
        os.setsid()
    _place(descriptors, asked["numbers"], link)
    words = asked["words"]
    if asked["is_worker"]:
        return _worker(words)
    spare = _spare(words)
    if callable(spare):
        return spare
    if spare is not None:
        _use(spare)
    sys.argv = [str(Path(relay.__file__).with_name("__main__.py")), *words]
    return importlib.import_module("relay.__main__").main  # type: ignore[no-any-return]


def _place(descriptors: list[int], numbers: list[int], link: socket.socket | None = None) -> None:
    """The descriptors under these numbers, and nothing else open. `link`: told before it is closed."""
    lowest = max(_ABOVE, *numbers) + 1
    above = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, lowest) for descriptor in descriptors]
    told = fcntl.fcntl(link.detach(), fcntl.F_DUPFD, lowest) if link is not None else None
    os.closerange(3, lowest)
    for descriptor, number in zip(above, numbers, strict=True):
        os.dup2(descriptor, number)
    if told is not None:
        os.write(told, str(os.getpid()).encode())
        os.close(told)
    os.closerange(lowest, max(above) + 1)


def _worker(words: list[str]) -> Job:
    """`words`: those behind the module's name."""
    _be_called(f"worker {words[0]}")
    sys.argv = [str(fork.__file__), *words]
    return fork.main


def _be_called(name: str) -> None:
    Path("/proc/self/comm").write_text(name)


class Spare:
    """A process that a relay's first worker becomes; the ones after it are started as ever."""

    def __init__(self, pid: int, link: socket.socket) -> None:
        self._pid, self._link = pid, link

    def become(self, theirs: socket.socket, signs: bool, environment: dict[str, str]) -> Forked:
        asked = {"signs": signs, "environment": environment}
        with self._link:
            socket.send_fds(self._link, [json.dumps(asked).encode()], [theirs.fileno()])
        return Forked(self._pid)


class Forked:
    """A child of this process, as asyncio.subprocess.Process."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self._ended = asyncio.Event()
        self._descriptor = os.pidfd_open(pid)
        asyncio.get_running_loop().add_reader(self._descriptor, self._wait)

    def _wait(self) -> None:
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)
        self.returncode = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self._ended.set()

    async def wait(self) -> int | None:
        await self._ended.wait()
        return self.returncode

    def kill(self) -> None:
        if self.returncode is None:
            os.kill(self.pid, signal.SIGKILL)


def _spare(words: list[str]) -> Spare | Job | None:
    """Forked while the relay is as small as a worker is at its beginning. The job, in the spare process itself."""
    if words[:1] != ["run"] or not _has_workers(words):
        return None
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return Spare(pid, ours)
    ours.close()
    _be_called(SPARE)
    packet, descriptors, _, _ = socket.recv_fds(theirs, 1 << 20, 1)
    if not packet:
        os._exit(0)  # the relay has ended
    asked = json.loads(packet)
    link = descriptors[0]
    theirs.close()
    _place([os.open(os.devnull, os.O_RDONLY), 1, 2, link], [0, 1, 2, link])
    os.environ.clear()
    os.environ.update(asked["environment"])
    return _worker([str(link), *(["sign"] if asked["signs"] else [])])


def _has_workers(words: list[str]) -> bool:
    with contextlib.suppress(OSError, ValueError, IndexError):
        config = Path(words[words.index("-c") + 1]).read_text()
        return re.search(r"^workers: 0$", config, re.M) is None
    return False


def _use(spare: Spare) -> None:
    left = [spare]

    async def first(theirs: socket.socket, *, signs: bool = False) -> Any:
        if left:
            return left.pop().become(theirs, signs, spawn.environment())
        return await spawn.spawn(theirs, signs=signs)

    vars(life)["spawn"] = first


def end(job: Job) -> None:
    """The process ends as a program does, but for taking its modules to pieces: nothing of ours is told of that."""
    code: Any = 1
    try:
        code = job()
    except SystemExit as ended:
        code = ended.code
    except BaseException:
        traceback.print_exc()
    finally:
        if isinstance(code, str):
            print(code, file=sys.stderr)
            code = 1
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code or 0)


def main() -> None:
    link = socket.socket(fileno=int(sys.argv[1]))
    interrupt = signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's is for who started this
    load_all()
    gc.collect()
    gc.freeze()
    job = serve(link)
    if job is not None:
        signal.signal(signal.SIGINT, interrupt)
        end(job)


if __name__ == "__main__":
    main()
