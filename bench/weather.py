"""Upstreams that misbehave by chance: one in fair weather, the next one hangs, refuses, breaks off or loses its TLS."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from bench.account import Seen
from tests.support.script import Action, Close, Delay, Garbage, Hang, Moment, Reset
from tests.support.upstream import Upstream

NOBODY = "nobody+"
"""how the address of a recipient begins that no upstream knows"""

Decide = Callable[[Moment, random.Random], Action]


def _fair(moment: Moment, chance: random.Random) -> Action:
    if moment.step == "rcpt" and moment.address.startswith(NOBODY):
        return "550 5.1.1 no such user"
    return Delay(chance.uniform(0.0, 0.02)) if moment.step == "dot" else None


def _sometimes(share: float, **answers: Callable[[random.Random], Action]) -> Decide:
    """At those steps, so often; else fair."""

    def decide(moment: Moment, chance: random.Random) -> Action:
        answer = answers.get(moment.step)
        if answer is not None and chance.random() < share and not moment.default.startswith("5"):
            return answer(chance)
        return _fair(moment, chance)

    return decide


def _one_of(*actions: Action) -> Callable[[random.Random], Action]:
    return lambda chance: chance.choice(actions)


_LOST: tuple[Action, ...] = (Close(), Reset(), Close(taken=True), Reset(taken=True))
KINDS: Mapping[str, Decide] = {
    "fair": _fair,
    "hangs": _sometimes(0.3, greeting=_one_of(Hang()), mail=_one_of(Hang()), dot=_one_of(Hang(), Hang(taken=True))),
    "refuses for now": _sometimes(
        0.4,
        greeting=_one_of("421 4.3.2 not now"),
        rcpt=_one_of("450 4.2.0 later", "451 4.3.0 later"),
        dot=_one_of("451 4.3.0 later", "421 4.3.2 closing"),
    ),
    "refuses for good": _sometimes(0.2, rcpt=_one_of("550 5.7.1 no"), dot=_one_of("554 5.6.0 no")),
    "breaks off": _sometimes(0.2, ehlo=_one_of(Close()), data=_one_of(Close(), Reset()), bdat=_one_of(Reset())),
    "drops after the dot": _sometimes(0.3, dot=_one_of(*_LOST)),
    "babbles": _sometimes(0.1, ehlo=_one_of(Garbage()), rcpt=_one_of(Garbage()), dot=_one_of(Garbage())),
    "no TLS": _sometimes(0.7, handshake=_one_of(Close(), Reset(), Garbage()), starttls=_one_of("454 4.7.0 no TLS")),
    "drops all": _sometimes(0.0),
    "is away": _sometimes(0.0),
}


@dataclass(slots=True)
class Station:
    """One upstream and its weather."""

    name: str
    upstream: Upstream
    chance: random.Random
    kind: str = "fair"

    def begin(self) -> None:
        self.upstream.set_script(lambda moment: KINDS[self.kind](moment, self.chance))

    async def turn(self, kind: str) -> None:
        """From now on."""
        if self.kind == "is away":
            await self.upstream.resume()
        self.kind = kind
        if kind == "is away":
            await self.upstream.pause()
        if kind in ("is away", "drops all"):
            self.upstream.reset_sessions()

    def harvest(self, seen: Seen) -> int:
        """Note what was taken since the last time, and forget its content; how much that was."""
        transfers, self.upstream.transfers = self.upstream.transfers, []
        for one in transfers:
            for recipient in one.recipients if one.accepted else ():
                seen.note(recipient, one.at)
        closed = [one for one in self.upstream.sessions if one.closed_at is None]
        if len(self.upstream.sessions) > 2000:  # what is over is of no interest
            self.upstream.sessions = closed
        return len(transfers)
