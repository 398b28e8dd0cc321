"""A message that the detector judges when a rule asks for it. Loading the detector takes a while, so only a relay whose
rules ask does it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.mail.codes.detector import Verdict
    from relay.mail.message import Message


class Examination:
    """A message that is judged when its verdict is first asked for."""

    __slots__ = ("_message", "made")

    def __init__(self, message: Message) -> None:
        self._message = message
        self.made: Verdict | None = None
        """None: it wasn't asked for"""

    def verdict(self) -> Verdict:
        from relay.mail.codes.detector import detect

        if self.made is None:
            self.made = detect(self._message)
        return self.made
