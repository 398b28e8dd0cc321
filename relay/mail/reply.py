"""An SMTP reply as a value (RFC 5321 4.2, enhanced codes RFC 3463)."""

from __future__ import annotations

import re
from typing import NamedTuple, Self

OWN = "otp-relay: "
"""the mark of the relay's own replies, behind the enhanced code"""
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:[ \t]|$)")
_OWN = re.compile(rf"\d{{3}} (?:\d\.\d{{1,3}}\.\d{{1,3}} )?{OWN}")


class Reply(NamedTuple):
    """`code` from 200 to 599 and the text behind it, lines joined by a blank; `enhanced` is part of `text`."""

    code: int
    text: str = ""

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code (`5.1.1`) at the beginning of the text, where its class fits."""
        found = _ENHANCED.match(self.text)
        if found is None or found[1] != str(self.code)[0]:
            return None
        return found[0].strip()

    @property
    def positive(self) -> bool:
        return 200 <= self.code < 300

    @property
    def transient(self) -> bool:
        return 400 <= self.code < 500

    @property
    def permanent(self) -> bool:
        return 500 <= self.code < 600

    @property
    def is_own(self) -> bool:
        """Whether it is the relay's own, not an upstream's."""
        return OWN in self.text and is_own(str(self))

    @property
    def explanation(self) -> str:
        """The text of the relay's own reply without its codes; any other reply as it is."""
        return self.text.partition(OWN)[2] if self.is_own else str(self)

    @classmethod
    def own(cls, code: int, enhanced: str, text: str) -> Self:
        """A reply by the relay in an upstream's place: `451 4.4.1 otp-relay: connection refused`. It is marked as the
        relay's own, since it is stored and shown like an upstream's."""
        return cls(code, f"{enhanced} {OWN}{text}")

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()


def is_own(reply: str) -> bool:
    """Whether a reply, as text, is the relay's own, not an upstream's."""
    return _OWN.match(reply) is not None
