"""A lane's messages that wait in memory, in order of deadline, apart by the way they are to go: a full upstream holds
up nobody who goes elsewhere."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from relay.delivery.message import Job

Rank = tuple[float, str]


class Way(NamedTuple):
    """What decides which upstreams a message is handed to, and in which order."""

    upstreams: tuple[str, ...]
    """as its rule has them; empty: the lane's"""
    step: int
    """of the ladder"""

    @classmethod
    def of(cls, job: Job) -> Way:
        return cls(job.queued.upstreams, min(one.step for one in job.queued.due))


class Backlog:
    """As many heaps as there are ways: a handful."""

    __slots__ = ("_heaps", "_size")

    def __init__(self) -> None:
        self._heaps: dict[Way, list[tuple[Rank, Job]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job) -> None:
        heapq.heappush(self._heaps.setdefault(Way.of(job), []), (job.rank, job))
        self._size += 1

    def heads(self) -> Iterator[tuple[Way, Rank, int]]:
        """Each way on which something waits: the rank of its first message, and how many there are."""
        return ((way, heap[0][0], len(heap)) for way, heap in self._heaps.items())

    def pop(self, way: Way) -> Job:
        """The first message of a way that has one."""
        heap = self._heaps[way]
        _, job = heapq.heappop(heap)
        if not heap:
            del self._heaps[way]
        self._size -= 1
        return job

    def take(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Remove the messages for which `wanted` holds, and return them."""
        taken: list[Job] = []
        heaps, self._heaps, self._size = self._heaps, {}, 0
        for heap in heaps.values():
            for _, job in heap:
                if wanted(job):
                    taken.append(job)
                else:
                    self.push(job)
        return taken
