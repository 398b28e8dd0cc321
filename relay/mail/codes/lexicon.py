"""The words that the detector knows, in about 90 languages: what each means, and where a text has them.

A meaning and a language are a bit each. The words are written in tools/lexicon.yaml.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from operator import add
from typing import NamedTuple, TypedDict

MEANINGS = (
    "code", "once", "verify", "enter", "unit", "valid", "ignore", "secret", "order", "gift", "secondary", "password",
    "state", "phone", "link", "common",
)  # fmt: skip
"""in the order of their bits; tools/lexicon.yaml says what each is"""
CODE, ONCE, VERIFY, ENTER, UNIT, VALID, IGNORE, SECRET, ORDER, GIFT, SECONDARY, PASSWORD, STATE, PHONE, LINK, COMMON = (
    1 << bit for bit in range(len(MEANINGS))
)

Pairs = Sequence[Sequence[int]]
"""of a language and a meaning, by their numbers"""


class LexiconData(TypedDict):
    """A compiled lexicon. Each way of matching maps a word to what it means and in which languages."""

    languages: list[str]
    exact: Mapping[str, Pairs]
    prefix: Mapping[str, Pairs]
    suffix: Mapping[str, Pairs]
    inside: Mapping[str, Pairs]
    phrase: Mapping[str, Pairs]
    """of words divided by blanks; the last one may go on"""
    anywhere: Mapping[str, Pairs]
    """of scripts without blanks between words, or with marks that divide them"""


class Meaning(NamedTuple):
    """What a word means, and in which languages: bits of both."""

    meanings: int
    languages: int


class Hit(NamedTuple):
    """A known word in a text. `word` is its number among the text's words, known and unknown ones."""

    start: int
    end: int
    meanings: int
    languages: int
    word: int


# The letters of scripts whose words blanks divide. A range is searched for in two thirds of the time of `[^\W\d_]`.
_LETTER = r"[a-zA-ZªµºÀ-ÖØ-öø-˿Ͱ-ͽΆΈ-҂Ҋ-Ֆա-ևა-ჿḀ-῿]"
# A group, so that split() returns the words too.
_WORDS = re.compile(rf"({_LETTER}+(?:['’ʻ·-]{_LETTER}+)*)")
# For ASCII text a translation and a division at each blank take half of the time.
_TO_BLANKS = {number: " " for number in range(128) if not chr(number).islower() and chr(number) not in "-'"}
_LONGEST_WORD = 60
"""characters; a longer one is none"""
MOST_CACHED = 20_000
"""words"""


class _Known(dict[str, Meaning | None]):
    """Words by what they mean; None for an unknown one. It keeps the words that it has seen, up to
    MOST_CACHED."""

    def __init__(self, data: LexiconData, unwanted: int) -> None:
        """A word that means only what is `unwanted` counts as unknown."""
        super().__init__()
        self._unwanted = unwanted
        self._exact = _by_word(data["exact"])
        self._prefix = _by_word(data["prefix"])
        self._longest = max(map(len, self._prefix), default=0)
        self._suffix = list(_by_word(data["suffix"]).items())
        self._inside = list(_by_word(data["inside"]).items())

    def __missing__(self, word: str) -> Meaning | None:
        if len(word) > _LONGEST_WORD:
            return None
        meanings, languages = 0, 0
        for found in self._matches(word.strip("-'")):
            meanings |= found.meanings
            languages |= found.languages
        meaning = Meaning(meanings, languages) if meanings & ~self._unwanted else None
        if len(self) >= MOST_CACHED:
            self.clear()  # else what came first would stay for ever, and all else be looked up again and again
        self[word] = meaning
        return meaning

    def _matches(self, word: str) -> Iterator[Meaning]:
        if word in self._exact:
            yield self._exact[word]
        for length in range(2, min(len(word), self._longest) + 1):
            found = self._prefix.get(word[:length])
            if found is not None:
                yield found
        yield from (meaning for entry, meaning in self._suffix if word.endswith(entry))
        yield from (meaning for entry, meaning in self._inside if entry in word)


class Lexicon:
    """Finds known words. Its methods take time in proportion to the text's length."""

    def __init__(self, data: LexiconData) -> None:
        self.languages = data["languages"]
        self._names: dict[int, list[str]] = {}
        """by their bits, of which the lexicon has some hundred combinations"""
        self._known, self._known_or_common = _Known(data, COMMON), _Known(data, 0)
        self._anywhere = _by_word(data["anywhere"])
        by_script: dict[int, list[str]] = {}
        for word in self._anywhere:
            by_script.setdefault(max(map(_script, word)), []).append(word)
        self._patterns = {
            script: re.compile("|".join(map(re.escape, sorted(words, key=len, reverse=True))))
            for script, words in by_script.items()
        }
        self._phrases: dict[str, list[tuple[str, Meaning]]] = {}
        for phrase, meaning in _by_word(data["phrase"]).items():
            self._phrases.setdefault(phrase.partition(" ")[0], []).append((phrase, meaning))

    def hits(self, text: str, *, common: bool = False) -> list[Hit]:
        """Every known word of a text, in order, in whatever case it is written. A hyphen or an apostrophe beside it may
        count to it. `common`: also words that only tell the language."""
        known = self._known_or_common if common else self._known
        folded = text.casefold()
        if len(folded) != len(text):
            # `ß` and `İ` become two characters, which would move the hits behind them.
            folded = text.lower() if len(text.lower()) == len(text) else text
        is_ascii = folded.isascii()
        pieces = folded.translate(_TO_BLANKS).split(" ") if is_ascii else _WORDS.split(folded)
        words = pieces if is_ascii else pieces[1::2]
        meanings = list(map(known.__getitem__, words))
        has_phrase = not self._phrases.keys().isdisjoint(words)
        found: list[Hit] = []
        if has_phrase or any(meanings):
            starts = [0, *accumulate(map(len, pieces))]
            starts = list(map(add, starts, range(len(pieces)))) if is_ascii else starts[1::2]
            found = [
                Hit(starts[at], starts[at] + len(words[at]), *meaning, at)
                for at, meaning in enumerate(meanings)
                if meaning is not None
            ]
            if has_phrase:
                found = sorted([*found, *self._phrase_hits(folded, words, starts)])
        if is_ascii:
            return found
        more = [hit for hit in self._hits_anywhere(folded) if common or hit.meanings != COMMON]
        return sorted([*found, *more]) if more else found

    def _phrase_hits(self, text: str, words: list[str], starts: list[int]) -> Iterator[Hit]:
        for at, word in enumerate(words):
            for phrase, meaning in self._phrases.get(word, ()):
                if text.startswith(phrase, starts[at]):
                    yield Hit(starts[at], starts[at] + len(phrase), *meaning, at)

    def _hits_anywhere(self, text: str) -> Iterator[Hit]:
        for script in set(map(_script, set(text))):
            pattern = self._patterns.get(script)
            if pattern is not None:
                for match in pattern.finditer(text):
                    # These texts have no words that could be counted: about four characters are one.
                    yield Hit(match.start(), match.end(), *self._anywhere[match[0]], match.start() // 4)

    def names(self, languages: int) -> list[str]:
        """The languages of those bits, in the lexicon's order."""
        found = self._names.get(languages)
        if found is None:
            found = self._names[languages] = [n for bit, n in enumerate(self.languages) if languages >> bit & 1]
        return found


def is_divided_by_blanks(word: str) -> bool:
    """Whether its script's words are divided by blanks and have no combining marks: Latin, Greek, Cyrillic, Armenian
    and Georgian."""
    return all(_script(char) == 0 for char in word)


@lru_cache(10_000)
def _script(char: str) -> int:
    """A number for the character's script: 0 for those of words that blanks divide."""
    number = ord(char)
    if number < 0x590 or 0x10A0 <= number <= 0x10FF or 0x1E00 <= number <= 0x2019:
        return 0
    if 0x2E80 <= number <= 0x9FFF or 0xF900 <= number <= 0xFAFF:
        return 1  # Chinese and Japanese
    if 0xAC00 <= number <= 0xD7FF:
        return 2  # Korean
    return number >> 7


def _by_word(entries: Mapping[str, Pairs]) -> dict[str, Meaning]:
    result = {}
    for word, pairs in entries.items():
        meanings = languages = 0
        for language, meaning in pairs:
            meanings |= 1 << meaning
            languages |= 1 << language
        result[word] = Meaning(meanings, languages)
    return result
