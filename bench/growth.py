"""Do the memory and the descriptors of a tree of processes grow? Sampled through a run, judged at its end."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.usage import trees

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
ALLOWED_SHARE = 0.10
ALLOWED_BYTES = 10_000_000
"""a process whose memory grew by less than both between the second and the last quarter of its life is flat"""
ALLOWED_DESCRIPTORS = 8
ENOUGH_SAMPLES = 16


@dataclass(frozen=True, slots=True)
class Sample:
    at: float
    rss_bytes: int
    descriptors: int


class Growth:
    """`begin` with each life of the relay, `sample` now and then, `report` at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self._root = 0
        self._samples: dict[int, list[Sample]] = {}

    def begin(self, root: int) -> None:
        """What was sampled of an earlier life is of no interest: it says nothing about the long run."""
        self._root = root
        self._samples = {}

    def sample(self) -> None:
        for pid in trees([self._root]):
            with suppress(OSError):  # it has just ended
                resident = int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE_BYTES
                descriptors = len(os.listdir(f"/proc/{pid}/fd"))
                self._samples.setdefault(pid, []).append(Sample(time.monotonic(), resident, descriptors))

    def report(self) -> Mapping[str, int]:
        """What grew; `lines` say how it was."""
        wrong = {}
        for pid, samples in sorted(self._samples.items()):
            name = "main process" if pid == self._root else f"bulk process {pid}"
            if len(samples) < ENOUGH_SAMPLES:
                self.lines.append(f"{name}: too few samples ({len(samples)}) to say whether it grows")
                continue
            second, last = _quarter(samples, 1), _quarter(samples, 3)
            for what, before, after, allowed in (
                ("MEMORY", second.rss_bytes, last.rss_bytes, max(ALLOWED_BYTES, ALLOWED_SHARE * second.rss_bytes)),
                ("DESCRIPTORS", second.descriptors, last.descriptors, ALLOWED_DESCRIPTORS),
            ):
                if after - before > allowed:
                    wrong[f"{what} OF THE {name.upper()} GREW"] = after - before
            life_s = samples[-1].at - samples[0].at
            self.lines.append(
                f"{name}: {second.rss_bytes / 1e6:.0f} MB, {second.descriptors} descriptors in the second quarter of "
                f"{life_s:.0f} s, {last.rss_bytes / 1e6:.0f} MB, {last.descriptors} in the last; "
                f"at most {max(one.rss_bytes for one in samples) / 1e6:.0f} MB and "
                f"{max(one.descriptors for one in samples)}"
            )
        return wrong


def _quarter(samples: Sequence[Sample], number: int) -> Sample:
    """Its medians."""
    size = len(samples) // 4
    some = samples[number * size : (number + 1) * size]
    return Sample(some[0].at, int(median(one.rss_bytes for one in some)), int(median(one.descriptors for one in some)))
