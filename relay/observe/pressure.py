"""Load of the relay: the queue beside its limits, and the intake's back-pressure on clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

Brake = Literal["turn", "pace"]
"""`turn`: sessions proceed a few at a time; `pace`: large contents are read at a limited rate"""


class QueueFill(NamedTuple):
    """Size of the queue, and the limits beyond which mail is refused with 452; None: no limit."""

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
        """The limits that are reached, as texts."""
        reached = []
        if self.max_messages is not None and self.messages >= self.max_messages:
            reached.append("queue full: max_messages")
        if self.max_bytes is not None and self.size_bytes >= self.max_bytes:
            reached.append("queue full: max_bytes")
        if self.free_bytes < self.min_free_bytes:
            reached.append("queue full: min_free")
        return reached

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
    """Load of the SMTP intake, and whether it makes clients wait."""

    sessions: int = 0
    storing: int = 0
    """messages between final dot and reply"""
    waiting: int = 0
    """of these, the messages that wait for their turn"""
    behind_s: float = 0.0
    """time until large contents are read again"""
    held_back_s: Mapping[Brake, float] = field(default_factory=dict)
    """time that sessions were made to wait since the start, in total"""

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
