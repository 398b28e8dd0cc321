"""What is wrong with a configuration, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Loc = tuple[str | int, ...]
"""The way to a value: ("lanes", "otp", "retry", 2)"""


class Mark(NamedTuple):
    """A place in the file, from 1."""

    line: int
    column: int


class Finding(NamedTuple):
    """Something to say about a value, before its place in the file is known.

    `note`: worth knowing, nothing is refused. `at` "key": the key itself is meant, not its value. `mark`: where, if it
    isn't simply where `loc` stands.
    """

    loc: Loc
    message: str
    kind: Literal["error", "note"] = "error"
    at: Literal["value", "key"] = "value"
    mark: Mark | None = None


def note(loc: Loc, message: str) -> Finding:
    return Finding(loc, message, "note")


class ConfigError(NamedTuple):
    """One mistake. `line` and `column` count from 1; 0 when the file as a whole is meant. `key` is dotted, with list
    positions from 0: `rules[2].match.sender`; '' for the file."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigErrors(Exception):
    """Everything found wrong with a configuration, in the order of the file. Its text never holds a secret."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)


class Places(NamedTuple):
    """Where the values of a file stand, for what turns out to be wrong with them only once they are used."""

    file: Path
    marks: Mapping[Loc, Mark] = {}

    def of(self, *loc: str | int) -> str:
        """`relay.yaml:3:12: http.address`. Of a value that the file doesn't have: `relay.yaml: http.address`."""
        # One value may stand for a list of one: then it has no position.
        ways = (loc, tuple(part for part in loc if isinstance(part, str)))
        mark = next((self.marks[way] for way in ways if way in self.marks), Mark(0, 0))
        return str(ConfigError(str(self.file), mark.line, mark.column, dotted(loc), ""))


def dotted(loc: Loc) -> str:
    """("rules", 2, "match") → `rules[2].match`. A key that isn't a plain word is cut short: in a file with a slip of
    the pen it may be anything, a password included."""
    text = ""
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        else:
            text += ("." if text else "") + plain(part)
    return text


def plain(key: str) -> str:
    """The part of a key that looks like one: letters, digits, `_ - . @`, up to 60 of them."""
    end = next((n for n, c in enumerate(key) if not (c.isalnum() or c in "_-.@</")), len(key))
    return key if end == len(key) <= 60 else key[: min(end, 60)] + "..."
