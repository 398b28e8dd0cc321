"""A circuit breaker, pure. There is one for each lane and upstream: failures of bulk mail never open the breaker of
codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

PROBE_AFTER_S = (0.25, 0.5, 1.0, 2.0, 3.0, 5.0)
"""Seconds until each probe; the last repeats. Probes run in the background and delay no message, so they may be
frequent. A recovered upstream is preferred again within 30 s."""
PROBE_REFUSED_AFTER_S = (5.0, 10.0, 20.0)
"""after a refusal of the greeting, EHLO or the credentials: too many attempts lock accounts"""
RELAPSE_AFTER_S = (1.0, 5.0, 10.0, 20.0)
"""where probes succeed and messages then fail each time: each time the circuit closes costs a message an attempt"""
LOSSES_TO_OPEN = 2
"""One lost session says little about a host."""
LOSS_COUNTS_FOR_S = 60.0

State = Literal["closed", "open", "half-open"]


@dataclass(slots=True)
class Circuit:
    """Times are time.monotonic. `closed`: in use. `open`: no message goes there until a probe succeeded. `half-open`: a
    probe is under way."""

    state: State = "closed"
    reason: str = ""
    """why it isn't closed: a phase with reply codes, or a description of our own. It may be shown to everyone"""
    reply_text: str = ""
    """the reply that opened it, redacted: for operators only"""
    probe_at: float = 0.0
    tried: bool = False
    """a session was opened, or couldn't be. Before that nothing is known of the upstream"""
    _probes: int = 0
    _unproved: bool = False
    """closed because a session could be opened; no message was answered since"""
    _relapses: int = 0
    _losses: int = 0
    _lost_at: float = 0.0
    _is_paused: bool = False
    _refused_message: str = ""
    """the id of the message with which our account was refused last, if none was accepted since"""

    def failed(self, now: float, reason: str, *, reply_text: str = "", refused: bool = False) -> bool:
        """The host is dead, hangs or is unsafe. `refused`: it refuses us for good (5yz to the greeting, EHLO or AUTH).
        True when this opened the circuit."""
        opened, self.tried = self.state == "closed", True
        if opened:
            self._probes = 0
            self._relapses += self._unproved
        delays = PROBE_REFUSED_AFTER_S if refused else PROBE_AFTER_S
        delay = delays[min(self._probes, len(delays) - 1)]
        if self._is_paused:
            delay = max(delay, self.probe_at - now)
        if self._relapses:
            delay = max(delay, RELAPSE_AFTER_S[min(self._relapses, len(RELAPSE_AFTER_S)) - 1])
        self.state, self.reason, self.reply_text, self.probe_at = "open", reason, reply_text, now + delay
        self._probes += 1
        return opened

    def lost(self, now: float, reason: str) -> bool:
        """A session broke off that should not have. True when this opened the circuit."""
        if now - self._lost_at > LOSS_COUNTS_FOR_S:
            self._losses = 0
        self._losses, self._lost_at = self._losses + 1, now
        return self._losses >= LOSSES_TO_OPEN and self.failed(now, reason)

    def account_refused(self, message_id: str) -> bool:
        """Our account was refused behind MAIL, which may be meant for this one message. True for the second message in
        a row."""
        before, self._refused_message = self._refused_message, message_id
        return before not in ("", message_id)

    def account_accepted(self) -> None:
        """A message got another answer: nothing is wrong with our account."""
        self._refused_message = ""

    def pause(self, now: float, reason: str, for_s: float) -> bool:
        """The host asked for a pause. Until its end nothing closes the circuit but an operator's probe. True when this
        opened it."""
        opened, self.tried = self.state == "closed", True
        if not opened and self._is_paused and self.probe_at > now + for_s:
            return False
        self.state, self.reason, self.reply_text, self.probe_at = "open", reason, "", now + for_s
        self._is_paused = True
        return opened

    def is_paused(self, now: float) -> bool:
        """Whether the pause that the host asked for isn't over."""
        return self._is_paused and now < self.probe_at

    def doubt(self, now: float, reason: str) -> None:
        """Nothing is known of it yet, but another configuration of this upstream was down: a probe is due now."""
        self.state, self.reason, self.probe_at = "open", reason, now

    def probing(self) -> None:
        """A probe is under way."""
        self.state, self._is_paused = "half-open", False

    def connected(self) -> bool:
        """A session was opened; whether it carries mail isn't known yet. True when this closed the circuit: a probe was
        under way. A session that was begun before the circuit opened proves nothing."""
        self.tried = True
        if self.state == "open":
            return False
        closed_now = self._close()
        self._unproved = self._unproved or closed_now
        return closed_now

    def succeeded(self) -> bool:
        """A message was answered as it should be. True when this closed the circuit."""
        self.tried = True
        if self._is_paused:
            return False  # it was under way before the host asked for a pause
        closed_now = self._close()
        self._unproved, self._relapses, self._losses, self._probes = False, 0, 0, 0
        return closed_now

    def _close(self) -> bool:
        closed_now = self.state != "closed"
        self.state, self.reason, self.reply_text = "closed", "", ""
        return closed_now
