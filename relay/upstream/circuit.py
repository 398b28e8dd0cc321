"""Whether an upstream is worth asking: a circuit breaker, pure. One a lane and upstream, so that what bulk mail meets
there never shuts the door on a code."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROBE_AFTER_S = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
"""Probes run in the background and cost no message anything, so they may be frequent: the last repeats. A recovered
upstream is preferred again within 30 s (contract)."""
PROBE_REFUSED_AFTER_S = (5.0, 10.0, 20.0)
"""Where the upstream turned our credentials or our greeting away: too many tries lock accounts."""
LOSSES_TO_OPEN = 2
"""One lost session says little about a host; two in a row do."""

State = Literal["closed", "open", "half-open"]


@dataclass(slots=True)
class Circuit:
    """Times are time.monotonic. `closed`: in use. `open`: nobody is sent there until a probe got through."""

    state: State = "closed"
    reason: str = ""
    probe_at: float = 0.0
    _probes: int = 0
    _losses: int = 0

    def failed(self, now: float, reason: str, *, refused: bool = False) -> bool:
        """The host is dead, hangs or is unsafe; `refused`: it turned us away for good (5yz to the greeting, EHLO or
        AUTH). True when this opened the circuit."""
        opened = self.state == "closed"
        if opened:
            self._probes = 0
        delays = PROBE_REFUSED_AFTER_S if refused else PROBE_AFTER_S
        self.state, self.reason = "open", reason
        self.probe_at = now + delays[min(self._probes, len(delays) - 1)]
        self._probes += 1
        return opened

    def lost(self, now: float, reason: str) -> bool:
        """A fresh session broke off. True when this opened the circuit."""
        self._losses += 1
        return self._losses >= LOSSES_TO_OPEN and self.failed(now, reason)

    def probing(self) -> None:
        """A probe is under way."""
        self.state = "half-open"

    def succeeded(self) -> bool:
        """The upstream answered as it should. True when this closed the circuit."""
        closed_now = self.state != "closed"
        self.state, self.reason, self._losses, self._probes = "closed", "", 0, 0
        return closed_now
