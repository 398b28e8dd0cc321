"""A lane's messages that wait in memory, in order of deadline, in a queue for each route: a full upstream then holds
up no message that goes to another."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator
from typing import NamedTuple

from relay.delivery.message import Job

Rank = tuple[float, str]


class RouteKey(NamedTuple):
    """What decides which upstreams a message is handed to, and in which order."""

    upstreams: tuple[str, ...]
    """as its rule has them; empty: the lane's"""
    step: int
    """of the retry ladder"""
    provider: str = ""
    """in a lane that prefers the fastest upstream: the mailbox provider's label"""
    explores: bool = False

    @classmethod
    def of(cls, job: Job) -> RouteKey:
        return cls(job.queued.upstreams, min(one.step for one in job.queued.due), job.provider, job.explores)


class Backlog:
    """A heap for each route: a handful, for each mailbox provider where the lane prefers the fastest upstream."""

    __slots__ = ("_heaps", "_size")

    def __init__(self) -> None:
        self._heaps: dict[RouteKey, list[tuple[Rank, Job]]] = {}
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, job: Job) -> None:
        heapq.heappush(self._heaps.setdefault(RouteKey.of(job), []), (job.rank, job))
        self._size += 1

    def heads(self) -> Iterator[tuple[RouteKey, Rank, int]]:
        """Each route on which something waits: the rank of its first message, and how many there are."""
        return ((route, heap[0][0], len(heap)) for route, heap in self._heaps.items())

    def pop(self, route: RouteKey) -> Job:
        """Remove and return the first message of a route that has one."""
        heap = self._heaps[route]
        _, job = heapq.heappop(heap)
        if not heap:
            del self._heaps[route]
        self._size -= 1
        return job

    def remove(self, wanted: Callable[[Job], bool]) -> list[Job]:
        """Remove and return the messages for which `wanted` is true."""
        removed: list[Job] = []
        heaps, self._heaps, self._size = self._heaps, {}, 0
        for heap in heaps.values():
            for _, job in heap:
                if wanted(job):
                    removed.append(job)
                else:
                    self.push(job)
        return removed
