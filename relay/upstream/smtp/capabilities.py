"""What an upstream said it can do: its EHLO reply, read once a session."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Capabilities:
    """ESMTP extensions of one session. `size_bytes` 0: announced without a limit, or not announced."""

    pipelining: bool = False
    chunking: bool = False
    eightbitmime: bool = False
    smtputf8: bool = False
    dsn: bool = False
    size: bool = False
    size_bytes: int = 0
    deliverby: bool = False
    deliverby_min_s: int = 0
    mt_priority: bool = False

    @classmethod
    def parse(cls, lines: Iterable[str]) -> Capabilities:
        """From the EHLO reply's lines behind the first, without their codes (RFC 5321 4.1.1.1)."""
        said: dict[str, str] = {}
        for line in lines:
            keyword, _, argument = line.strip().partition(" ")
            said[keyword.upper()] = argument.strip()
        return cls(
            pipelining="PIPELINING" in said,
            chunking="CHUNKING" in said,
            eightbitmime="8BITMIME" in said,
            smtputf8="SMTPUTF8" in said,
            dsn="DSN" in said,
            size="SIZE" in said,
            size_bytes=_number(said.get("SIZE", "")),
            deliverby="DELIVERBY" in said,
            deliverby_min_s=_number(said.get("DELIVERBY", "")),
            mt_priority="MT-PRIORITY" in said,
        )


def _number(text: str) -> int:
    word = text.split(" ", 1)[0]
    return int(word) if word.isascii() and word.isdigit() and len(word) < 16 else 0
