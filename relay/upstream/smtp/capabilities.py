"""What an upstream announced it can do: its EHLO reply, read once a session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """Of one session. `size_bytes` 0: no limit was announced."""

    pipelining: bool = False
    chunking: bool = False
    eightbitmime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    size: bool = False
    size_bytes: int = 0
    deliverby: bool = False
    mt_priority: bool = False

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Capabilities:
        """From the lines of the EHLO reply after the first, without their codes (RFC 5321 4.1.1.1)."""
        announced: dict[str, str] = {}
        for line in lines:
            keyword, _, argument = line.strip().partition(" ")
            announced[keyword.upper()] = argument.strip()
        return cls(
            pipelining="PIPELINING" in announced,
            chunking="CHUNKING" in announced,
            eightbitmime="8BITMIME" in announced,
            smtputf8="SMTPUTF8" in announced,
            dsn="DSN" in announced,
            size="SIZE" in announced,
            size_bytes=_number(announced.get("SIZE", "")),
            deliverby="DELIVERBY" in announced,
            mt_priority="MT-PRIORITY" in announced,
        )


def _number(text: str) -> int:
    number = text.split(" ", 1)[0]
    return int(number) if number.isascii() and number.isdigit() and len(number) < 16 else 0
