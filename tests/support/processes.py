"""The processes of a relay, as /proc has them."""

from __future__ import annotations

import contextlib
from pathlib import Path

from relay.workers import entry


def children(pid: int) -> list[int]:
    """Process ids of all children, in the order of their start."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(pid: int) -> list[int]:
    """Those among a relay's children that are workers; another makes its signatures."""
    return [child for child in children(pid) if link_of(child) is not None]


def link_of(pid: int) -> int | None:
    """The descriptor of a worker's link to its main process. None: it is no worker, or has ended."""
    with contextlib.suppress(OSError):
        if Path(f"/proc/{pid}/comm").read_text().startswith("worker "):
            return entry.LINK_FD
    return None
