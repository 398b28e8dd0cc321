"""`python -m tests.support.forks_server FD`: has imported all of the relay, and forks a process for each start that is
asked for at FD (see `forks`)."""

from __future__ import annotations

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
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import relay
from relay.workers import entry

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
        sys.argv = [str(entry.__file__), *words]
        return entry.main
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
