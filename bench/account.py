"""What became of every message of a trial, and whether that is in order: pure.

It goes by what apps were told, what upstreams took, and what the log says. Every recipient is in one message only, and
every message has a sender of its own, so that a notification can be told by whom it goes to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal[
    "delivered once",
    "delivered more than once: ambiguous, and said so",
    "delivered more than once: under way at a kill",
    "bounced, and its sender told",
    "expired, and its sender told",
    "ambiguous, kept for an operator",
    "LOST",
    "DELIVERED TWICE",
    "STILL WAITING",
    "ENDED WITHOUT A WORD",
    "REFUSED, AND DELIVERED",
]
"""In capitals: what must not be."""


@dataclass(frozen=True, slots=True)
class Submitted:
    """A recipient of a message as its app knows it."""

    id: str | None
    """the relay's, as acknowledged; None: answered 4yz or 5yz"""
    sender: str
    recipient: str


@dataclass(frozen=True, slots=True)
class Logged:
    """A recipient as the relay's log has it at the end."""

    state: str
    ambiguous: bool = False
    """one of its attempts was"""


@dataclass(slots=True)
class Seen:
    """What upstreams took, over all of them."""

    deliveries: dict[str, list[float]] = field(default_factory=dict)
    """recipient → when each content was taken, whether or not that was answered"""
    told: set[str] = field(default_factory=set)
    """senders whose notification every upstream turned away for good"""

    def note(self, recipient: str, at: float) -> None:
        self.deliveries.setdefault(recipient, []).append(at)


@dataclass(frozen=True, slots=True)
class Kill:
    """A moment without mercy."""

    at: float
    under_way: int
    """sessions open at upstreams just then"""


def judge(one: Submitted, logged: Logged | None, seen: Seen, kills: Sequence[Kill], window_s: float) -> Verdict:
    """`window_s`: how long before a kill a content may have been taken whose settlement the kill prevented."""
    taken = seen.deliveries.get(one.recipient, [])
    if one.id is None:
        return "REFUSED, AND DELIVERED" if taken else "delivered once"
    if logged is None:
        return "LOST"
    if len(taken) > 1 or (taken and logged.state in ("bounced", "expired")):
        if logged.ambiguous:
            return "delivered more than once: ambiguous, and said so"
        if any(kill.at - window_s <= at <= kill.at for at in taken for kill in kills):
            return "delivered more than once: under way at a kill"
        return "DELIVERED TWICE"
    match logged.state:
        case "sent":
            return "delivered once" if taken else "LOST"
        case "bounced" | "expired":
            if one.sender not in seen.deliveries and one.sender not in seen.told:
                return "ENDED WITHOUT A WORD"
            return "bounced, and its sender told" if logged.state == "bounced" else "expired, and its sender told"
        case "ambiguous":
            return "ambiguous, kept for an operator"
        case _:
            return "STILL WAITING"


def account(
    submitted: Collection[Submitted],
    log: Mapping[str, Logged],
    seen: Seen,
    kills: Sequence[Kill] = (),
    window_s: float = 1.0,
) -> dict[Verdict, list[Submitted]]:
    """Every recipient of a message that was answered, by verdict. `log`: by recipient."""
    found: dict[Verdict, list[Submitted]] = {}
    for one in submitted:
        verdict = judge(one, log.get(one.recipient), seen, kills, window_s)
        if one.id is not None or verdict.isupper():
            found.setdefault(verdict, []).append(one)
    return found


def faults(found: Mapping[Verdict, Sequence[Submitted]], kills: Sequence[Kill]) -> Mapping[str, int]:
    """What must not be; nothing when all is in order. Duplicates of kills are held to the sessions that were open."""
    wrong: Counter[str] = Counter({verdict: len(some) for verdict, some in found.items() if verdict.isupper()})
    twice = len(found.get("delivered more than once: under way at a kill", ()))
    allowed = sum(kill.under_way for kill in kills)
    if twice > allowed:
        wrong[f"MORE DUPLICATES THAN SESSIONS UNDER WAY ({allowed})"] = twice
    return dict(wrong)
