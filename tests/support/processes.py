"""The processes of a relay, as /proc has them."""

from __future__ import annotations

import contextlib
from pathlib import Path


def children(pid: int) -> list[int]:
    """Process ids of all children, in the order of their start."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def workers(pid: int) -> list[int]:
    """Those among a relay's children that are workers; another makes its signatures."""
    found = []
    for child in children(pid):
        with contextlib.suppress(OSError):  # it ends just now
            if b"relay.workers.begin" in Path(f"/proc/{child}/cmdline").read_bytes():
                found.append(child)
    return found
