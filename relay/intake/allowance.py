"""What a client may do in one session without submitting a message. Pure: the loop's time comes in."""

from __future__ import annotations

import math

from relay.intake import replies
from relay.intake.answer import Answer, refuse

LOGIN_WITHIN_S = 30.0
"""From the connection, TLS included, where a login is required."""
_ERRORS = 50
_COMMANDS = 1_000
"""RCPT aside."""
_TIMEOUTS = 12
"""How many times `command_timeout_s` a session may last."""
_FAILED_LOGINS = 3
_FREE_COMMANDS = 32
"""After so many the session waits for a turn before each command. A message to a few recipients needs fewer."""


class Allowance:
    """Counts what a session does; an accepted message begins the count anew."""

    def __init__(self, now: float, *, login_required: bool) -> None:
        self.failed_logins = 0
        self._login_by = now + LOGIN_WITHIN_S if login_required else math.inf
        self._since = now
        self._errors = 0
        self._commands = 0
        self._all_commands = 0

    @property
    def takes_turns(self) -> bool:
        """The session waits for a turn before its next command."""
        return self._all_commands >= _FREE_COMMANDS

    def count_command(self, verb: bytes) -> None:
        self._all_commands += 1
        self._commands += verb != b"RCPT"

    def count_error(self) -> None:
        self._errors += 1

    def message_accepted(self, now: float) -> None:
        self._errors = self._commands = self._all_commands = 0
        self._since = now

    def logged_in(self) -> None:
        self._login_by = math.inf

    def login_required(self, now: float) -> None:
        """A login no longer counts: STARTTLS forgets it."""
        self._login_by = now + LOGIN_WITHIN_S

    def patience_s(self, now: float, command_timeout_s: float) -> float:
        """How long the client's next command may take; above zero."""
        return max(0.001, min(command_timeout_s, self._login_by - now))

    def exceeded(self, now: float, command_timeout_s: float) -> Answer | None:
        """The answer that ends a session past its limits; None: it is within them."""
        ends_at = min(self._since + _TIMEOUTS * command_timeout_s, self._login_by)
        if now < ends_at and self._commands < _COMMANDS and self._errors < _ERRORS and not self.failed_logins:
            return None
        if self.failed_logins >= _FAILED_LOGINS:
            return refuse(replies.TOO_MANY_ERRORS, "auth")
        if self._errors >= _ERRORS:
            return refuse(replies.TOO_MANY_ERRORS, "syntax")
        if self._commands >= _COMMANDS:
            return refuse(replies.TOO_MANY_COMMANDS, "syntax")
        if now - self._since > _TIMEOUTS * command_timeout_s or now >= self._login_by:
            return refuse(replies.TIMED_OUT, "timeout")
        return None
