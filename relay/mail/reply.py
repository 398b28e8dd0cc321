"""An SMTP reply as a value (RFC 5321 4.2, enhanced codes RFC 3463)."""

from __future__ import annotations

import re
from typing import NamedTuple

_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:[ \t]|$)")


class Reply(NamedTuple):
    """`code` 200..599 and the text behind it, lines joined by a blank; `enhanced` is part of `text`."""

    code: int
    text: str = ""

    @property
    def enhanced(self) -> str | None:
        """The enhanced status code (`5.1.1`) the text begins with, if it does and its class fits."""
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

    def __str__(self) -> str:
        return f"{self.code} {self.text}".rstrip()
