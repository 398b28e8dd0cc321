"""Read a JSON document (RFC 8259) of any size, without holding the interpreter's lock for long.

`json.loads` is one call into C that keeps the lock until the document ends: 5 MB of it hold the event loop up, and with
it each code. A larger document's values are found in Python here, its texts are decoded in pieces, and `pause` is
called in between. The library has no documented way to do that.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable

SMALL_BYTES = 16_384
"""A document up to this is read by one call of `json.loads`, in a fifth of a millisecond."""
MAX_VALUES = 20_000
"""of a document"""
MAX_DEPTH = 50
"""of lists and objects in each other"""
VALUES_PER_PAUSE = 100
LONG_PIECE_CHARS = 1_000
"""A pause follows each piece of a text from this length on."""
DECODED_AT_ONCE = 262_144
"""bytes of UTF-8"""
_BLANKS = re.compile(r"[ \t\n\r]{1,65536}+")
# A number's digits are bounded: the library's conversion of long ones takes quadratic time.
_SCALAR = re.compile(
    r"(?:true|false|null|-?(?:0|[1-9][0-9]{0,300})(?:\.[0-9]{1,300})?(?:[eE][+-]?[0-9]{1,9})?)(?![0-9A-Za-z.+-])"
)
# At most 64,000 characters a match. A surrogate pair is one unit, so no piece ends within it. What was matched is never
# given back (`++`): with nothing behind the group there is nothing to try again for.
_PIECE = re.compile(
    r'(?:[^"\\\x00-\x1f]{1,64}+'
    r"|\\u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}"
    r'|\\u[0-9a-fA-F]{4}|\\["\\/bfnrt]){1,1000}+'
)


class BadJson(ValueError):
    """It is no JSON in UTF-8, or is nested too deeply, or has a number of hundreds of digits."""


class TooManyValues(Exception):
    """The document has more than MAX_VALUES."""


class RepeatedKey(Exception):
    """An object has a key twice. RFC 8259 4: each program would see another of its values."""


def read_json(body: bytes, pause: Callable[[], None]) -> object:
    """The value of a document in UTF-8. Raises BadJson, TooManyValues, RepeatedKey."""
    if len(body) <= SMALL_BYTES:
        return _read_small(body)
    text = _decoded(body, pause)
    reader = _Reader(text, pause)
    value = reader.value(0)
    reader.skip_blanks()
    if reader.at != len(text):
        raise BadJson
    return value


def _read_small(body: bytes) -> object:
    try:
        found: object = json.loads(
            body.decode(), object_pairs_hook=_without_repeated_keys, parse_constant=_refuse_constant
        )
    except (ValueError, RecursionError):
        raise BadJson from None
    return found


def _without_repeated_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RepeatedKey
    return found


def _refuse_constant(_: str) -> object:
    raise ValueError("NaN and Infinity are no JSON")


def _decoded(body: bytes, pause: Callable[[], None]) -> str:
    decoder = codecs.getincrementaldecoder("utf-8")()
    pieces: list[str] = []
    try:
        for at in range(0, len(body), DECODED_AT_ONCE):
            if at:
                pause()
            pieces.append(decoder.decode(body[at : at + DECODED_AT_ONCE]))
        pieces.append(decoder.decode(b"", final=True))
    except UnicodeDecodeError:
        raise BadJson from None
    return "".join(pieces)


class _Reader:
    """Reads from `at` on."""

    def __init__(self, text: str, pause: Callable[[], None]) -> None:
        self._text = text
        self._pause = pause
        self._values = 0
        self.at = 0

    def value(self, depth: int) -> object:
        """The next value."""
        self._values += 1
        if self._values > MAX_VALUES:
            raise TooManyValues
        if self._values % VALUES_PER_PAUSE == 0:
            self._pause()
        self.skip_blanks()
        match self._text[self.at : self.at + 1]:
            case '"':
                return self._string()
            case "{" if depth < MAX_DEPTH:
                return self._object(depth + 1)
            case "[" if depth < MAX_DEPTH:
                return self._list(depth + 1)
        scalar = self._next(_SCALAR)
        if scalar is None:
            raise BadJson
        found: object = json.loads(scalar)
        return found

    def skip_blanks(self) -> None:
        while (blanks := self._next(_BLANKS)) is not None:
            self._pause_after(blanks)

    def _object(self, depth: int) -> dict[str, object]:
        found: dict[str, object] = {}
        self._expect("{")
        if self._found("}"):
            return found
        while True:
            self.skip_blanks()
            key = self._string()
            if key in found:
                raise RepeatedKey
            self._expect(":")
            found[key] = self.value(depth)
            if self._found("}"):
                return found
            self._expect(",")

    def _list(self, depth: int) -> list[object]:
        found: list[object] = []
        self._expect("[")
        if self._found("]"):
            return found
        while True:
            found.append(self.value(depth))
            if self._found("]"):
                return found
            self._expect(",")

    def _string(self) -> str:
        self._expect('"')
        pieces: list[str] = []
        while (piece := self._next(_PIECE)) is not None:
            pieces.append(json.loads(f'"{piece}"') if "\\" in piece else piece)
            self._pause_after(piece)
        # A tab or a line end in front of the closing quote isn't a blank between tokens: it is an error.
        if not self._passed('"'):
            raise BadJson
        return "".join(pieces)

    def _found(self, mark: str) -> bool:
        """Whether that mark comes next; then it is passed."""
        self.skip_blanks()
        return self._passed(mark)

    def _passed(self, mark: str) -> bool:
        """The same, without blanks in front of it."""
        if not self._text.startswith(mark, self.at):
            return False
        self.at += 1
        return True

    def _expect(self, mark: str) -> None:
        if not self._found(mark):
            raise BadJson

    def _pause_after(self, piece: str) -> None:
        if len(piece) >= LONG_PIECE_CHARS:
            self._pause()

    def _next(self, pattern: re.Pattern[str]) -> str | None:
        """What the pattern matches here; then it is passed."""
        found = pattern.match(self._text, self.at)
        if found is None:
            return None
        self.at = found.end()
        return found[0]
