"""What has the shape of a one-time code: the one place that says it, for masking and for the detector."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

MOST_SHAPES = 24
"""of a text; the ones behind them aren't looked at"""


class Shape(NamedTuple):
    """A token that can be a code. `code` is the token without blanks and dashes."""

    start: int
    end: int
    code: str
    kind: str
    """`digits`, `grouped` (`123 456`, `123-456`), `spaced` (`1 2 3 4`), `mixed` (`A1B2C3`) or `letters` (`KQZVTB`)"""


# Marks that can't be seen, and those that make `1` a keycap; then what many texts have that form KC changes.
_REPLACED = dict.fromkeys(
    map(chr, (0xAD, 0x34F, 0x61C, 0x180E, *range(0x200B, 0x2010), *range(0x202A, 0x202F), *range(0x2060, 0x2065),
              0xFE0F, 0xFEFF, 0x20E3)),
    "",
) | {"\xa0": " ", "…": "...", "，": ", ", "。": ". ", "\u0e33": "\u0e4d\u0e32", "\u0eb3": "\u0ecd\u0eb2"}  # fmt: skip
# Words and units of one character, which form KC makes many of: the time for that is out of all proportion.
_SQUARED = frozenset(map(chr, (*range(0x3300, 0x3400), *range(0xFDF0, 0xFE00))))

# Letters of Latin, Greek and Cyrillic beside a token make it a part of a word. Those of Chinese, Japanese and Thai
# don't: a code stands amid them without a blank.
_LETTER = "A-Za-z0-9_À-ɏͰ-ϿЀ-ӿ"
_BEFORE = rf"(?<![{_LETTER}@/.,=&%+\\$€£¥-])(?<!\d[ –-])"
# `1234,50`, but not `482913,5分钟` or `482913,10 min`
_DECIMALS = r"[.,]\d(?!\d?\s?(?:[分秒분]|[Mm]in|мин|хв))"
_SHAPE = re.compile(
    # At least four characters: most of what doesn't fit is left here.
    rf"{_BEFORE}(?=[A-Za-z0-9](?:[ \t–-]{{0,3}}[A-Za-z0-9]){{3}})(?:"
    r"(?P<spaced>[A-Z0-9](?:[ \t]{1,3}[A-Z0-9]){3,9})"
    r"|(?P<grouped>\d\d(?:[ –-]\d\d){1,4}|\d{3}(?:[ –-]\d{3}){1,2}|\d{4}[ –-]\d{4})"
    r"|(?P<token>[A-Za-z]{0,9}\d[A-Za-z0-9]{0,11}(?:-[A-Za-z0-9]{2,6}){0,2}"
    r"|[A-Z]{1,3}-\d{4,8}|[A-Za-z]{2,6}-[A-Z0-9]{2,6}(?:-[A-Z0-9]{2,6})?))"
    rf"(?![{_LETTER}@%€£$¥°]|[/:]\w|{_DECIMALS}|-\w|[ –-]\d\d)"
)
_DIGIT = re.compile(r"\d")
_NOT_PART_OF_CODE = re.compile(r"[^A-Za-z0-9]")
# `Level4`, `2nd`, `24h`, `24-hour`
_WORD_AND_NUMBER = re.compile(r"[A-Za-z][a-z]+\d{1,2}|\d{1,4}[a-z]{1,2}|\d{1,2}[A-Z][a-z]+|\d{1,3}-[a-z]+")
_DATE = re.compile(r"(?:19|20)\d\d-\d\d-\d\d|\d\d-\d\d-(?:19|20)\d\d|\d\d-\d\d-\d\d")
_CURRENCY = r"(?:EUR|USD|CHF|GBP|CZK|PLN|SEK|NOK|DKK|HUF|RON|BGN|RUB|UAH|TRY|INR|JPY|CNY|KRW|BRL|[€$£¥₹₽₺₴₩₫₪฿])"
_MONEY_BEFORE = re.compile(rf"{_CURRENCY} ?\Z")
_MONEY_BEHIND = re.compile(rf" ?{_CURRENCY}(?![A-Za-z])|[.,]-")
# `2001:db8::a208`, `12:4530`
_COLONS = re.compile(r"(?:[0-9A-Fa-f]*\d[0-9A-Fa-f]*|:):\Z|::\Z")
_LETTERS = re.compile(r"[A-Z]{4,10}|[A-Z]{3,5}-[A-Z]{3,5}|(?=[A-Za-z]*[a-z][A-Z])[A-Za-z]{5,10}")
_LETTERS_BEHIND_COLON = re.compile(rf"(?<=[:：]) {{0,2}}[\"“'*]{{0,2}}({_LETTERS.pattern})(?=[\"”'*]{{0,2}}\.?\Z)")
NO_CODE = frozenset(
    "your code codes this that here below from with the use enter login logon sign account security secure "  # noqa: SIM905
    "verification verify verified confirm confirmation authentication access password passcode token time once "
    "temporary expires expired minutes only never share please important dein deine ihre hier dies diese votre notre "
    "voici pour esta este aquí questo ecco para hello welcome important urgent invoice order reminder test".split()
)
"""words that are no code in whatever case"""
_MOST_CHARS = 12


def searchable(text: str) -> str:
    """The text in normal form KC, with ASCII digits, and without invisible marks and squared words."""
    if text.isascii():
        return text
    # To replace one character after the other is much faster than a pattern for all of them.
    chars = set(text)
    for char in _REPLACED.keys() & chars:
        text = text.replace(char, _REPLACED[char])
    if not unicodedata.is_normalized("NFKC", text):
        for char in _SQUARED & chars:
            text = text.replace(char, " ")
        text = unicodedata.normalize("NFKC", text)
        chars = set(text)
    for char in chars:
        if char > "\x7f" and char.isdecimal():
            text = text.replace(char, str(unicodedata.decimal(char)))
    return text


def shapes(line: str) -> Iterator[Shape]:
    """The tokens of 4 to 12 characters with a digit; digits alone at most 10. Not dates, times, amounts, addresses.

    The line is `searchable`.
    """
    if _DIGIT.search(line) is None:
        return
    for match in _SHAPE.finditer(line):
        text = match[0]
        code = text if text.isalnum() else _NOT_PART_OF_CODE.sub("", text)
        digits = len(code) if code.isdigit() else sum(map(str.isdigit, code))
        if not digits or not 4 <= len(code) <= _MOST_CHARS:
            continue
        kind = match.lastgroup or ""
        if kind == "token":
            kind = "mixed" if digits < len(code) else "grouped" if "-" in text else "digits"
        if (kind != "mixed" and len(code) > 10) or (kind == "mixed" and _WORD_AND_NUMBER.fullmatch(text)):
            continue
        if kind == "grouped" and _DATE.fullmatch(text):
            continue
        before = line[max(0, match.start() - 12) : match.start()]
        if _MONEY_BEFORE.search(before) or _COLONS.search(before) or _MONEY_BEHIND.match(line, match.end()):
            continue
        yield Shape(match.start(), match.end(), code, kind)


def letter_shape(line: str) -> Shape | None:
    """A code of letters alone: it makes up the line, or stands at its end behind a colon."""
    bare = line.strip(" *\"'“”.")
    if len(bare) <= 10:
        if _LETTERS.fullmatch(bare) is None or bare.casefold() in NO_CODE:
            return None
        start = line.index(bare)
        return Shape(start, start + len(bare), bare.replace("-", ""), "letters")
    found = _LETTERS_BEHIND_COLON.search(line) if len(line) <= 200 and (":" in line or "：" in line) else None
    if found is None or found[1].casefold() in NO_CODE:
        return None
    return Shape(found.start(1), found.end(1), found[1].replace("-", ""), "letters")
