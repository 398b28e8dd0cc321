"""How a server words its replies, so that one meant for another command can be told from an answer.

With BDAT nothing proves that replies and commands are in step, as 354 does with DATA: a server that said one thing too
many, late and in a segment of its own, would have its word to the next RCPT taken for the one to the content. But what
servers say to MAIL, to RCPT and to content differs, by its enhanced code (RFC 3463) and by its words.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

from relay.mail.reply import Reply


class Wording:
    """One a session: learned from its first delivery, when nothing could be left over from an earlier one."""

    __slots__ = ("_of",)

    def __init__(self) -> None:
        self._of: dict[str, frozenset[str]] = {}

    def learn(self, said: Iterable[tuple[str, Reply]]) -> None:
        """(command, positive reply) of a whole transaction; only the first counts."""
        if not self._of:
            pairs = [(asked, _shape(reply.text)) for asked, reply in said]
            self._of = {asked: frozenset(shape for of, shape in pairs if of == asked) for asked, _ in pairs}

    def is_for_another(self, asked: str, reply: Reply) -> bool:
        """Does a positive reply to `asked` read like this server's replies to other commands, and not like its own?"""
        if not self._of:
            return False
        shape = _shape(reply.text)
        return shape not in self._of.get(asked, ()) and any(shape in shapes for shapes in self._of.values())


_LOOKED_AT_CHARS = 512


def _shape(text: str) -> str:
    """The text without what changes from reply to reply: addresses, numbers, ids. An enhanced code stays."""
    return _shape_of(text[:_LOOKED_AT_CHARS])


@lru_cache(maxsize=1024)
def _shape_of(text: str) -> str:
    words = text.lower().split()[:8]
    kept = words[:1] if words and words[0].count(".") == 2 and words[0].replace(".", "").isdigit() else []
    return " ".join(kept + ["#" if _varies(word) else word for word in words[len(kept) :]])


def _varies(word: str) -> bool:
    return "@" in word or "<" in word or any(map(str.isdigit, word))
