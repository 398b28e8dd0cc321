"""What speaks for and against a token being a one-time code: features of the token, of its neighbourhood and of the
mail. tools/train_detector.py finds out what each is worth."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from relay.mail.codes import lexicon as lex
from relay.mail.codes.lexicon import Lexicon
from relay.mail.codes.reading import Text
from relay.mail.codes.shapes import MOST_SHAPES, Shape, letter_shape, shapes
from relay.mail.codes.words import NOT_CODE, Words

_DISTANCES = (2, 8, 20, 60, 150)
"""characters"""
_MOST_SEARCHED_CHARS = 8_192
"""of lines with digits, in which tokens are looked for"""
_SHORT_LINE_CHARS = 20
"""A code of letters alone stands on a shorter line, or behind a colon."""
_BEYOND_REACH = _DISTANCES[-1] + 1

_NEAR = {
    "code": lex.CODE, "not_code": NOT_CODE, "verify": lex.VERIFY, "once": lex.ONCE, "enter": lex.ENTER,
    "order": lex.ORDER, "gift": lex.GIFT, "password": lex.PASSWORD, "secondary": lex.SECONDARY, "phone": lex.PHONE,
}  # fmt: skip
_ANYWHERE = {
    **_NEAR, "unit": lex.UNIT, "valid": lex.VALID, "ignore": lex.IGNORE, "secret": lex.SECRET, "state": lex.STATE,
    "link": lex.LINK,
}  # fmt: skip
# What counts differently beside a word for code than without one: a linear model can't multiply.
_DEPENDS_ON_CODE = frozenset((
    "subject:code", "subject:verify", "subject:gift", "subject:order", "subject:not_code", "subject:state",
    "subject:ticket", "mail:gift", "mail:order>2", "mail:not_code", "mail:verify", "mail:once", "mail:minutes",
    "mail:secret", "mail:ignore", "mail:password", "mail:state>2", "mail:link>2", "mail:phone", "links>2", "money",
    "date", "tokens>1", "tokens>3", "kind:mixed", "kind:letters", "lower_case", "alone", "colon", "first",
    "in_subject",
))  # fmt: skip
_WITH_CODE = {name: f"with&{name}" for name in _DEPENDS_ON_CODE}
_WITHOUT_CODE = {name: f"without&{name}" for name in _DEPENDS_ON_CODE}

_ANY_DIGIT = re.compile(r"[0-9]")
# `10 minutes`, `5-10 minutes`
_SMALL_NUMBER = re.compile(r"(?<!\d)\d{1,2}(?: ?[-–/] ?\d{1,2})?\W{0,2}\Z")
_SMALL_NUMBER_CHARS = 9
_NUMBER_SIGN = re.compile(r"(?:#|№|n[ro°º]\.?|no\.) ?\Z", re.IGNORECASE)
# Neither matches an IP address. Each alternative begins with what is rare, since that is searched for fastest.
_MONEY = re.compile(
    r"[€$£¥₹₽] ?\d|\d(?: ?[€$£¥₹₽%]|,\d\d(?!\.?\d)|\.\d\d(?!\.?\d)(?<!\.\d\.\d\d)(?<!\.\d\d\.\d\d)(?<!\.\d\d\d\.\d\d))"
)
_CURRENCY = re.compile(r"\b(?:EUR|USD|CHF|GBP)\b")
_DATE = re.compile(r"\d{1,4}[./-]\d{1,2}[./-]\d{1,4}(?!\.?\d)|\d{1,2}:\d\d")
_TICKET = re.compile(r"#\d|\[[A-Za-z]+-\d+\]")
# `10115 Berlin`
_NAME_BEHIND = re.compile(r" [A-ZÀ-Þ][^\W\d_]+(?:[ -][A-ZÀ-Þ][^\W\d_]+){0,2}[,.]?\Z")
_FRAME = " \t*_.:\"“”'|-–—[]()<>#`~=!"


class Candidate(NamedTuple):
    """A token, the number of its line (0: the subject), and its features."""

    shape: Shape
    line: int
    of_mail: frozenset[str]
    """the same object for all tokens that stand beside a word for code, and for all others"""
    of_token: frozenset[str]

    @property
    def features(self) -> frozenset[str]:
        return self.of_mail | self.of_token


class _Names(dict[int, tuple[str, ...]]):
    """Meanings, as bits, by their names in the features."""

    def __init__(self, named: Mapping[str, int], prefix: str = "") -> None:
        super().__init__()
        self._named = [(prefix + name, bit) for name, bit in named.items()]

    def __missing__(self, meanings: int) -> tuple[str, ...]:
        names = self[meanings] = tuple(name for name, bit in self._named if meanings & bit)
        return names


_names_near = _Names(_NEAR)
_names_before, _names_behind = _Names(_NEAR, "before:"), _Names(_NEAR, "behind:")
_names_around = {where: _Names(_NEAR, f"{where}:") for where in ("above", "above2", "below")}
_names_anywhere = _Names(_ANYWHERE)
_KIND = {f"{where}:{name}": name for where in ("before", "behind") for name in _NEAR}
_WITHIN = {(key, limit): f"{key}<={limit}" for key in _KIND for limit in _DISTANCES}


def candidates(subject: str, text: Text, lexicon: Lexicon) -> Iterator[list[Candidate]]:
    """The tokens that have the shape of a code, at most MOST_SHAPES of them, each with its features: first those of the
    subject and of the text's beginning, then those of its rest. For the mail as a whole the beginning counts."""
    found = _tokens([subject, *text.lines], 0)
    tokens: _Tokens | None = None
    if found:
        tokens = _Tokens(Words(subject, text.lines, lexicon), text.links, found)
        yield tokens.candidates(found)
    rest = text.rest_lines()
    more = _tokens(rest, len(text.lines) + 1)[: MOST_SHAPES - len(found)]
    if more:
        tokens = tokens or _Tokens(Words(subject, text.lines, lexicon), text.links, more)
        tokens.words.add(rest)
        yield tokens.candidates(more)


def _tokens(lines: Iterable[str], first: int) -> list[tuple[int, Shape]]:
    """The tokens of lines, with the number of the line; `first` is that of the first one."""
    found: list[tuple[int, Shape]] = []
    chars = 0
    for number, line in enumerate(lines, start=first):
        if _ANY_DIGIT.search(line) is not None:
            found += [(number, shape) for shape in shapes(line)]
            chars += len(line)
        letters = letter_shape(line) if len(line) < _SHORT_LINE_CHARS or ":" in line else None
        if letters is not None:
            found.append((number, letters))
        if len(found) >= MOST_SHAPES or chars > _MOST_SEARCHED_CHARS:
            break
    return found[:MOST_SHAPES]


class _Tokens:
    """Makes candidates of the tokens of one text."""

    def __init__(self, words: Words, links: int, found: list[tuple[int, Shape]]) -> None:
        """`words`: of the text's beginning. `found`: the first tokens."""
        self.words = words
        of_mail = frozenset([*_of_mail(words, links), *_of_numbers(words.texts[1:], found)])
        self._with_code = _with_renamed(of_mail, _WITH_CODE)
        self._without_code = _with_renamed(of_mail, _WITHOUT_CODE)
        self._counts = Counter(shape.code for _, shape in found)
        self._in_subject = {shape.code for number, shape in found if not number}

    def candidates(self, found: list[tuple[int, Shape]]) -> list[Candidate]:
        result = []
        for number, shape in found:
            of_token = _of_token(self.words, number, shape, self._counts, self._in_subject)
            if "no_code_near" in of_token:
                result.append(Candidate(shape, number, self._without_code, _with_renamed(of_token, _WITHOUT_CODE)))
            else:
                result.append(Candidate(shape, number, self._with_code, _with_renamed(of_token, _WITH_CODE)))
        return result


def _with_renamed(features: AbstractSet[str], renamed: Mapping[str, str]) -> frozenset[str]:
    return frozenset(features).union(map(renamed.__getitem__, features & _DEPENDS_ON_CODE))


def _of_mail(words: Words, links: int) -> Iterator[str]:
    names: list[str] = []
    chars, has_minutes = 0, False
    for number in range(1, len(words.texts)):
        text = words.texts[number]
        for hit in words.hits(number):
            names += _names_anywhere[hit.meanings]
            if hit.meanings & lex.UNIT and not has_minutes:
                at = hit.start - words.offset(number)
                has_minutes = _SMALL_NUMBER.search(text, max(0, at - _SMALL_NUMBER_CHARS), at) is not None
        chars += len(text)
    for name, count in Counter(names).items():
        yield f"mail:{name}"
        if count > 2:
            yield f"mail:{name}>2"
    if has_minutes:
        yield "mail:minutes"
    for hit in words.hits(0):
        for name in _names_anywhere[hit.meanings]:
            yield f"subject:{name}"
    if _TICKET.search(words.texts[0]):
        yield "subject:ticket"
    if links:
        yield "links>2" if links > 2 else "links"
    yield "chars<60" if chars < 60 else "chars<250" if chars < 250 else "chars<700" if chars < 700 else "chars>700"


def _of_numbers(lines: Iterable[str], found: list[tuple[int, Shape]]) -> Iterator[str]:
    text = "\n".join(filter(_ANY_DIGIT.search, lines))
    if _MONEY.search(text) or _CURRENCY.search(text):
        yield "money"
    if _DATE.search(text):
        yield "date"
    different = len({shape.code for _, shape in found if shape.kind != "letters"})
    if different > 1:
        yield "tokens>3" if different > 3 else "tokens>1"


def _of_token(words: Words, number: int, shape: Shape, counts: Counter[str], in_subject: set[str]) -> set[str]:
    line = words.texts[number]
    alone = shape.end - shape.start >= len(line.strip(_FRAME))
    features = set(_of_shape(shape))
    before = line[max(0, shape.start - 12) : shape.start].rstrip(" \t*_\"“”'`<>")
    if line.startswith(">"):
        features.add("quoted")
    if alone:
        features.add("alone")
    elif not shape.start:
        features.add("name_behind" if _NAME_BEHIND.match(line, shape.end) else "first")
    if before.endswith((":", "：")):
        features.add("colon")
    if _NUMBER_SIGN.search(before):
        features.add("number_sign")
    if not number:
        features.add("in_subject")
    elif shape.code in in_subject:
        features.add("also_in_subject")
    if counts[shape.code] > 1:
        features.add("twice")
    kinds = set()
    for key, distance in _nearest(words, number, shape).items():
        features.add(_WITHIN[key, _rounded_up(distance)])
        kinds.add(_KIND[key])
    for where, line_number in _around(number, shape, alone):
        meanings = words.meanings(line_number)
        features.update(_names_around[where][meanings])
        kinds.update(_names_near[meanings])
    features.update(_together(kinds))
    return features


def _of_shape(shape: Shape) -> Iterator[str]:
    yield f"kind:{shape.kind}"
    if shape.kind == "letters":
        return
    yield f"length:{min(len(shape.code), 9)}"
    if shape.kind == "mixed" and shape.code.upper() != shape.code:
        yield "lower_case"
    if shape.kind == "digits" and len(shape.code) == 4 and shape.code[:2] in ("19", "20"):
        yield "year"


def _nearest(words: Words, number: int, shape: Shape) -> dict[str, int]:
    """`before:code` or `behind:order` by the characters between the token and the nearest such word on its line."""
    nearest: dict[str, int] = {}
    offset = words.offset(number)
    start, end = shape.start + offset, shape.end + offset
    for hit in words.hits(number):
        if hit.end <= start:
            names, distance = _names_before, start - hit.end
        elif hit.start >= end:
            names, distance = _names_behind, hit.start - end
        else:
            continue
        if distance <= _DISTANCES[-1]:
            for key in names[hit.meanings]:
                if distance < nearest.get(key, _BEYOND_REACH):
                    nearest[key] = distance
    return nearest


def _rounded_up(distance: int) -> int:
    return next(limit for limit in _DISTANCES if distance <= limit)


def _around(number: int, shape: Shape, alone: bool) -> Iterator[tuple[str, int]]:
    """The lines beside a token's that can lead in to it."""
    if number and (alone or shape.start < 30):
        yield "above", number - 1
    if number and alone:
        yield "above2", number - 2
        yield "below", number + 1


def _together(kinds: Iterable[str]) -> Iterator[str]:
    """What counts only together with a word for code, or without one."""
    if "code" not in kinds:
        yield "no_code_near"
        for kind in ("password", "order", "gift", "not_code", "phone"):
            if kind in kinds:
                yield f"{kind}_near_without_code"
        return
    for kind in ("verify", "once", "enter", "order", "gift", "not_code", "password"):
        if kind in kinds:
            yield f"code+{kind}"
