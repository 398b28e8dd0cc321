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
RELAPSE_AFTER_S = (1.0, 5.0, 10.0, 20.0)
"""Where probes find an open door and messages then fare badly each time: every closing costs somebody a try."""
LOSSES_TO_OPEN = 2
"""One lost session says little about a host; two in a row do."""
LOSS_COUNTS_FOR_S = 60.0

State = Literal["closed", "open", "half-open"]


@dataclass(slots=True)
class Circuit:
    """Times are time.monotonic. `closed`: in use. `open`: nobody is sent there until a probe got through."""

    state: State = "closed"
    reason: str = ""
    """why it isn't closed: a phase with a code and an enhanced code, or words of our own. Fit for every eye"""
    words: str = ""
    """what the upstream said to it, redacted: for the operator's eyes only"""
    probe_at: float = 0.0
    tried: bool = False
    """a session was opened, or couldn't be: before that nothing is known of the upstream"""
    _probes: int = 0
    _unproved: bool = False
    """closed because a session could be opened; no message has been answered since"""
    _relapses: int = 0
    _losses: int = 0
    _lost_at: float = 0.0
    _turned_away: str = ""
    """the message with which our account was turned away last, if none was taken since"""

    def failed(self, now: float, reason: str, *, words: str = "", refused: bool = False) -> bool:
        """The host is dead, hangs or is unsafe; `refused`: it turned us away for good (5yz to the greeting, EHLO or
        AUTH). `reason` and `words`: see there. True when this opened the circuit."""
        opened, self.tried = self.state == "closed", True
        if opened:
            self._probes = 0
            self._relapses += self._unproved
        delays = PROBE_REFUSED_AFTER_S if refused else PROBE_AFTER_S
        delay = delays[min(self._probes, len(delays) - 1)]
        if self._relapses:
            delay = max(delay, RELAPSE_AFTER_S[min(self._relapses, len(RELAPSE_AFTER_S)) - 1])
        self.state, self.reason, self.words, self.probe_at = "open", reason, words, now + delay
        self._probes += 1
        return opened

    def lost(self, now: float, reason: str) -> bool:
        """A session broke off that should not have. True when this opened the circuit."""
        if now - self._lost_at > LOSS_COUNTS_FOR_S:
            self._losses = 0
        self._losses, self._lost_at = self._losses + 1, now
        return self._losses >= LOSSES_TO_OPEN and self.failed(now, reason)

    def turned_away(self, message_id: str) -> bool:
        """Our account was turned away, but only behind MAIL, where it may be meant for this one message. True when
        that is the second message in a row."""
        before, self._turned_away = self._turned_away, message_id
        return before not in ("", message_id)

    def taken(self) -> None:
        """A message was answered otherwise: nothing is wrong with our account."""
        self._turned_away = ""

    def probing(self) -> None:
        """A probe is under way."""
        self.state = "half-open"

    def reached(self) -> bool:
        """A session could be opened; how it carries mail isn't known. True when this closed the circuit, as it does
        where a probe is under way. A session that was begun before the circuit opened proves nothing."""
        self.tried = True
        if self.state == "open":
            return False
        closed_now = self._closes()
        self._unproved = self._unproved or closed_now
        return closed_now

    def succeeded(self) -> bool:
        """A message was answered as it should be. True when this closed the circuit."""
        self.tried = True
        closed_now = self._closes()
        self._unproved, self._relapses, self._losses, self._probes = False, 0, 0, 0
        return closed_now

    def _closes(self) -> bool:
        closed_now = self.state != "closed"
        self.state, self.reason, self.words = "closed", "", ""
        return closed_now
