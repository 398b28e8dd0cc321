"""What a tree of processes has used, from /proc."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_PPID, _UTIME, _STIME, _CUTIME, _CSTIME = 1, 11, 12, 13, 14
"""places behind the command's name in /proc/PID/stat, see proc(5)"""
_STEAL = 7
"""place behind `cpu` in /proc/stat"""


@dataclass(frozen=True, slots=True)
class Usage:
    cpu_s: float
    """user and system, of every process living and of those that were waited for"""
    peak_rss_bytes: int
    """sum of each living process's own peak; pages they share count in each"""


@dataclass(frozen=True, slots=True)
class Machine:
    """What the processors did since the machine's start, in ticks."""

    total: int
    stolen: int
    """the hypervisor gave them to other machines"""

    @classmethod
    def now(cls) -> Machine:
        ticks = list(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]))
        return cls(sum(ticks[:8]), ticks[_STEAL])

    def stolen_percent_until(self, later: Machine) -> float:
        return 100.0 * (later.stolen - self.stolen) / max(1, later.total - self.total)


def of_trees(roots: Iterable[int]) -> Usage:
    """Of the processes `roots` and all that descend from them."""
    stats = _stats()
    pids = _trees(roots, stats)
    ticks = sum(int(stats[pid][place]) for pid in pids for place in (_UTIME, _STIME, _CUTIME, _CSTIME))
    return Usage(ticks / _TICKS, sum(map(_peak_rss_bytes, pids)))


def trees(roots: Iterable[int]) -> set[int]:
    """The processes `roots` and all that descend from them."""
    return _trees(roots, _stats())


def _trees(roots: Iterable[int], stats: dict[int, list[str]]) -> set[int]:
    children: dict[int, list[int]] = {}
    for pid, fields in stats.items():
        children.setdefault(int(fields[_PPID]), []).append(pid)
    todo, seen = list(roots), set[int]()
    while todo:
        pid = todo.pop()
        if pid not in seen and pid in stats:
            seen.add(pid)
            todo.extend(children.get(pid, ()))
    return seen


def _stats() -> dict[int, list[str]]:
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                text = (entry / "stat").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue  # it has just ended
            # The command's name stands in brackets and may hold anything.
            found[int(entry.name)] = text[text.rindex(")") + 2 :].split()
    return found


def _peak_rss_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except (FileNotFoundError, ProcessLookupError):
        pass  # it has just ended
    return 0
