"""Starts a worker's process: with its end of the link, nothing else that is open here, and the same code."""

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
"""of the environment: addressed to the service's main process, not to the processes that it starts"""
_HERE = Path(__file__).parents[2]
"""what `relay` was imported from"""
_GIVEN_BACK_BYTES = 262_144
"""memory that was asked for in larger pieces than this is the system's again when it is let go"""


async def spawn(theirs: socket.socket, *, signs: bool = False) -> asyncio.subprocess.Process:
    """`theirs`: its end of the link; ours to close afterwards. `signs`: it has a helper for that. Raises OSError."""
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "relay.workers.fork",
        str(theirs.fileno()),
        *(["sign"] if signs else []),
        pass_fds=(theirs.fileno(),),
        stdin=asyncio.subprocess.DEVNULL,
        env=_environment(),
    )


def _environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if name not in SERVICE_MANAGER_VARIABLES}
    return {
        **kept,
        # glibc would keep the memory of a large message for the next one, for each thread (mallopt(3)).
        "MALLOC_MMAP_THRESHOLD_": str(_GIVEN_BACK_BYTES),
        "MALLOC_ARENA_MAX": "2",
        messages.LOG_LEVEL: logging.getLevelName(logging.getLogger().getEffectiveLevel()),
        # Modules come from where this process has them. `-m` alone would look into the working directory first (hence
        # -P), where anybody may have put some, and where what was started as a script has never looked. The relay
        # itself may have come from there (python -c), and it is the same that must be found.
        "PYTHONPATH": os.pathsep.join([*filter(None, sys.path), str(_HERE)]),
    }
