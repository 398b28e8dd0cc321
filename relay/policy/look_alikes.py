"""Which texts are the same but for names and links: mail to many that claims to be codes. Pure.

A text is compared by its longest lines. Its codes are part of the comparison, so mails of one template with another
code each are never the same.
"""

from __future__ import annotations

import re
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from relay.mail.message import Message
from relay.mail.plain_text import plain_text

if TYPE_CHECKING:
    from relay.config.rate_limit import CountPer

MOST_TEXT_CHARS = 16_384
MOST_LINES = 1_000
"""of different mails, that are remembered"""
_LINES = 3
_SAME_LINES = 2
_LINK = re.compile(r"\S*(?:://|@)\S*")
_CODE = re.compile(r"(?<!\w)(?=[\w-]*\d)[\w-]{4,12}(?!\w)")
_WORD = re.compile(r"\w+")


def lines_of(message: Message) -> tuple[str, ...]:
    """What stands for a message's text: its longest lines without links, names and numbers, each with all its codes.
    Empty where it has no text."""
    shown = plain_text(message, MOST_TEXT_CHARS)
    if shown is None:
        return ()
    text = _LINK.sub(" ", shown)
    codes = " ".join(sorted(_CODE.findall(text)))
    lines = {_line(line) for line in text.splitlines()} - {""}
    longest = sorted(lines, key=lambda line: (-len(line), line))[:_LINES]
    return tuple(f"{line}\n{codes}" for line in longest)


def _line(text: str) -> str:
    """Its words that are no names and no numbers: those that begin with a capital are left out."""
    return " ".join(word for word in _WORD.findall(text) if not word[0].isupper() and not word.isdigit())


class LookAlikes:
    """How many recipients got mail with the same lines within some time. Lines and recipients are given as hashes."""

    def __init__(self, most: int = MOST_LINES) -> None:
        self._most = most
        self._seen: OrderedDict[int, deque[tuple[float, int]]] = OrderedDict()

    def exceed(self, lines: Sequence[int], recipients: Sequence[int], limit: CountPer, now: float) -> bool:
        """Count a mail with these lines. Whether most of them went to more recipients than the limit allows, this
        mail's among them."""
        over = sum(self._count(line, recipients, limit, now) > limit.count for line in lines)
        return bool(lines) and over >= min(_SAME_LINES, len(lines))

    def _count(self, line: int, recipients: Sequence[int], limit: CountPer, now: float) -> int:
        seen = self._seen.setdefault(line, deque())
        self._seen.move_to_end(line)
        while len(self._seen) > self._most:
            self._seen.popitem(last=False)
        seen.extend((now, one) for one in recipients)
        while seen and (seen[0][0] <= now - limit.period_s or len(seen) > 2 * limit.count + len(recipients)):
            seen.popleft()
        return len({one for _, one in seen})
