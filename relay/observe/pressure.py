"""How much is asked of the relay beside what it takes: the queue and its limits, and what holds intake back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Brake = Literal["turn", "pace"]
"""`turn`: sessions that go on a few at a time; `pace`: large contents, let in at so many bytes a second"""


class QueueFill(NamedTuple):
    """What waits, and the limits past which mail is refused with 452; None: no limit."""

    messages: int
    """not finished, in all store files"""
    size_bytes: int
    """of their contents"""
    free_bytes: int
    """on the store's disk"""
    min_free_bytes: int
    max_messages: int | None = None
    max_bytes: int | None = None

    def reasons(self) -> list[str]:
        """Which limits are reached, in words."""
        said = []
        if self.max_messages is not None and self.messages >= self.max_messages:
            said.append("queue full: max_messages")
        if self.max_bytes is not None and self.size_bytes >= self.max_bytes:
            said.append("queue full: max_bytes")
        if self.free_bytes < self.min_free_bytes:
            said.append("queue full: min_free")
        return said

    def as_json(self) -> dict[str, int | None]:
        return {
            "messages": self.messages,
            "max_messages": self.max_messages,
            "bytes": self.size_bytes,
            "max_bytes": self.max_bytes,
            "free_bytes": self.free_bytes,
            "min_free_bytes": self.min_free_bytes,
        }


@dataclass(frozen=True, slots=True)
class IntakeLoad:
    """What intake is at, and whether clients are made to wait though nothing is wrong."""

    sessions: int = 0
    storing: int = 0
    """messages between their final dot and their reply"""
    waiting: int = 0
    """of these, those whose turn hasn't come"""
    behind_s: float = 0.0
    """until large contents are read again"""
    held_back_s: Mapping[Brake, float] = field(default_factory=dict)
    """what sessions were made to wait since the start, all together"""

    @property
    def slowed(self) -> bool:
        return self.waiting > 0 or self.behind_s > 0.0

    def as_json(self) -> dict[str, object]:
        return {
            "slowed": self.slowed,
            "sessions": self.sessions,
            "storing": self.storing,
            "waiting": self.waiting,
            "behind_ms": round(self.behind_s * 1000, 1),
        }
