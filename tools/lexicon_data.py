"""Compile lexicon.yaml into the form that `relay/mail/codes/lexicon.py` reads."""

from __future__ import annotations

import unicodedata
from pathlib import Path

import yaml

from relay.mail.codes.lexicon import MEANINGS, LexiconData, is_divided_by_blanks

_LEAST_BARE_CHARS = 5
"""a word as long as this is known without its accents, too"""


def compiled(path: Path) -> LexiconData:
    """Raises ValueError where an entry can't be read."""
    languages: dict[str, dict[str, str]] = yaml.safe_load(path.read_text("utf-8"))
    ways: dict[str, dict[str, list[list[int]]]] = {
        way: {} for way in ("exact", "prefix", "suffix", "inside", "phrase", "anywhere")
    }
    for language, meanings in enumerate(languages.values()):
        for meaning, words in meanings.items():
            for entry in words.split():
                way, word = _parsed(entry)
                forms = {word}
                if way not in ("phrase", "anywhere") and len(_bare(word)) >= _LEAST_BARE_CHARS:
                    forms.add(_bare(word))
                for form in forms:
                    ways[way].setdefault(form, []).append([language, MEANINGS.index(meaning)])
    return {
        "languages": list(languages),
        "exact": ways["exact"],
        "prefix": ways["prefix"],
        "suffix": ways["suffix"],
        "inside": ways["inside"],
        "phrase": ways["phrase"],
        "anywhere": ways["anywhere"],
    }


def _parsed(entry: str) -> tuple[str, str]:
    """How an entry matches, and the word or words to match."""
    word = unicodedata.normalize("NFKC", entry).replace("İ", "i").casefold()
    way = "prefix"
    if len(word) > 2 and word[0] == word[-1] == "*":
        way, word = "inside", word[1:-1]
    elif word[0] == "=":
        way, word = "exact", word[1:]
    elif word[0] == "~":
        way, word = "suffix", word[1:]
    word = word.replace("_", " ")
    if any(sign in word for sign in "*=~"):
        raise ValueError(f"not an entry of the lexicon: {entry}")
    if not is_divided_by_blanks(word):
        return "anywhere", word.replace("\u200c", "").replace("\u200d", "")
    return ("phrase" if " " in word else way), word


def _bare(word: str) -> str:
    """The word without accents."""
    marks = unicodedata.normalize("NFD", word)
    return unicodedata.normalize("NFC", "".join(char for char in marks if not "\u0300" <= char <= "\u036f"))
