"""Processes beside the main one that are new interpreters with an environment of their own: started, and ended."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from asyncio.subprocess import Process
from collections.abc import Mapping, Sequence

from relay.workers.spawn import python_path

_PASSED_ON = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "JOURNAL_STREAM", "SSL_CERT_FILE", "SSL_CERT_DIR")
"""variables of the environment: others may be passwords of upstreams"""


async def start(
    module: str,
    link: socket.socket,
    *words: str,
    sockets: Sequence[socket.socket] = (),
    variables: Mapping[str, str] | None = None,
) -> Process:
    """`python -m MODULE LINK WORDS SOCKETS`: the process gets its end of the link, which is closed here, and the
    sockets, by their descriptors. `variables`: for its environment. Raises OSError."""
    fds = [link.fileno(), *(each.fileno() for each in sockets)]
    environ = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    with link:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", module, str(fds[0]), *words, *map(str, fds[1:])),
            pass_fds=fds,
            stdin=asyncio.subprocess.DEVNULL,
            env={**environ, **(variables or {}), "PYTHONPATH": python_path()},
        )


async def ended_within(process: Process, seconds: float) -> bool:
    """Wait for its end, for so long at most."""
    try:
        async with asyncio.timeout(seconds):
            await process.wait()
    except TimeoutError:
        return False
    return True


async def end(process: Process, within_s: float) -> None:
    """Its link is closed, at which it ends; kill it if it doesn't."""
    try:
        await ended_within(process, within_s)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
