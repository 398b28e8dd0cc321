"""The known words of a mail's lines, as their neighbours make them: `gift code` is no code, `one-time password` is."""

from __future__ import annotations

from bisect import bisect_right
from itertools import accumulate

from relay.mail.codes import lexicon as lex
from relay.mail.codes.lexicon import Hit, Lexicon

NOT_CODE = 1 << len(lex.MEANINGS)
"""a word for code which its neighbours make another kind of code: `gift code`, `postal code`"""
_FOR_CODES = lex.VERIFY | lex.ENTER | lex.ONCE | lex.CODE
_OTHER = lex.GIFT | lex.SECONDARY


class Words:
    """The known words of the subject (line 0) and of each line."""

    def __init__(self, subject: str, lines: list[str], lexicon: Lexicon) -> None:
        self.texts = [subject, *lines]
        self._lexicon = lexicon
        self._offsets = [0, *accumulate(len(text) + 1 for text in self.texts)]
        # Together they cost a third less than one by one.
        self._hits: dict[int, list[Hit]] = {}
        for hit in lexicon.hits("\n".join(self.texts)):
            self._hits.setdefault(bisect_right(self._offsets, hit.start) - 1, []).append(hit)
        for number, hits in self._hits.items():
            self._hits[number] = _in_context(hits)

    def add(self, lines: list[str]) -> None:
        """Lines that follow. Each is searched when it is first asked for."""
        self.texts += lines

    def offset(self, line: int) -> int:
        """What the places of a line's hits count from: the line begins at this one."""
        return self._offsets[line] if self._is_searched(line) else 0

    def hits(self, line: int) -> list[Hit]:
        """The words of a line, as their neighbours make them; `offset` says what their places count from."""
        known = self._hits.get(line)
        if known is None:
            found = [] if self._is_searched(line) else _in_context(self._lexicon.hits(self.texts[line]))
            known = self._hits[line] = found
        return known

    def _is_searched(self, line: int) -> bool:
        return line < len(self._offsets) - 1

    def meanings(self, line: int) -> int:
        """All meanings of a line's words, as bits; none for the subject and beyond the last line."""
        result = 0
        if 0 < line < len(self.texts):
            for hit in self.hits(line):
                result |= hit.meanings
        return result


def _in_context(hits: list[Hit]) -> list[Hit]:
    changed = hits
    for at, hit in enumerate(hits):
        meanings = hit.meanings
        if meanings & lex.CODE and not meanings & lex.PASSWORD:
            if _is_other_code(hits, at):
                meanings = meanings & ~lex.CODE | NOT_CODE
        elif meanings & lex.PASSWORD and _has_once_near(hits, at):
            meanings = meanings & ~lex.PASSWORD | lex.CODE
        if meanings != hit.meanings:
            # The neighbours are judged by what the words mean alone.
            changed = changed.copy() if changed is hits else changed
            changed[at] = hit._replace(meanings=meanings)
    return changed


def _is_other_code(hits: list[Hit], at: int) -> bool:
    hit = hits[at]
    if hit.meanings & (_OTHER | lex.ORDER) and not hit.meanings & lex.VERIFY:
        return True
    for other in hits[max(0, at - 2) : at + 3]:
        distance = other.word - hit.word
        if distance and -1 <= distance <= 3:
            if other.meanings & _OTHER:
                return True
            if other.meanings & lex.ORDER and distance <= 2 and not other.meanings & _FOR_CODES:
                return True
    return False


def _has_once_near(hits: list[Hit], at: int) -> bool:
    word = hits[at].word
    return any(other.meanings & lex.ONCE and abs(other.word - word) <= 3 for other in hits[max(0, at - 3) : at + 4])
