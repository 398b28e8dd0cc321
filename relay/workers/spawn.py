"""Starts a worker process with its end of the link and the same code."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
from pathlib import Path

from relay.workers import messages

SERVICE_MANAGER_VARIABLES = frozenset(
    {"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PIDFDID"}
)
"""environment variables that are for the main process only"""
_HERE = Path(__file__).parents[2]
"""the folder that `relay` was imported from"""
_GIVEN_BACK_BYTES = 262_144
"""larger blocks of memory go back to the system when they are freed"""


async def spawn(theirs: socket.socket, *, signs: bool = False) -> asyncio.subprocess.Process:
    """`theirs`: its end of the link, which the caller closes afterwards. `signs`: it forks a signing helper. Raises
    OSError."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "relay.workers.fork",
        str(theirs.fileno()),
        *(["sign"] if signs else []),
        pass_fds=(theirs.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        env=environment(),
    )


def environment() -> dict[str, str]:
    """Of a worker: as of this process, without what is for the main process only."""
    kept = {name: value for name, value in os.environ.items() if name not in SERVICE_MANAGER_VARIABLES}
    return {
        **kept,
        # Else glibc keeps the memory of a large message, for each thread (mallopt(3)).
        "MALLOC_MMAP_THRESHOLD_": str(_GIVEN_BACK_BYTES),
        "MALLOC_ARENA_MAX": "2",
        messages.LOG_LEVEL: logging.getLevelName(logging.getLogger().getEffectiveLevel()),
        # The worker imports its modules from where this process does. `-m` alone would search the working directory
        # first, where anybody may have put a module (hence -P); `relay` itself may be there, with `python -c`.
        "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(_HERE)]),
    }
