"""Mistakes in a configuration, and where its values stand in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

Loc = tuple[str | int, ...]
"""The path to a value: ("lanes", "otp", "retry", 2)"""


class Mark(NamedTuple):
    """Line and column in the file, from 1."""

    line: int
    column: int


class Diagnostic(NamedTuple):
    """An error or a note about a value, before its place in the file is known.

    A note refuses nothing. `at` "key": the message is about the key, not its value. `mark` is the place, where it
    isn't simply that of `loc`.
    """

    loc: Loc
    message: str
    kind: Literal["error", "note"] = "error"
    at: Literal["value", "key"] = "value"
    mark: Mark | None = None


def note(loc: Loc, message: str) -> Diagnostic:
    return Diagnostic(loc, message, "note")


class ConfigError(NamedTuple):
    """One mistake. `line` and `column` count from 1; 0 means the file as a whole. `key` is dotted, with list positions
    from 0: `rules[2].match.sender`; '' for the file."""

    file: str
    line: int
    column: int
    key: str
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return ": ".join(part for part in (place, self.key, self.message) if part)


class ConfigErrors(Exception):
    """Every mistake in a configuration, in the order of the file. The text holds no secret."""

    def __init__(self, errors: Sequence[ConfigError]) -> None:
        super().__init__("\n".join(str(error) for error in errors))
        self.errors = tuple(errors)


class Places(NamedTuple):
    """Where the values and keys of a file stand."""

    file: Path
    marks: Mapping[Loc, Mark] = {}
    key_marks: Mapping[Loc, Mark] = {}

    def of(self, *loc: str | int) -> str:
        """`relay.yaml:3:12: http.address`. Of a value that the file doesn't have: `relay.yaml: http.address`."""
        mark = self.marks.get(self.written(loc), Mark(0, 0))
        return str(ConfigError(str(self.file), mark.line, mark.column, dotted(loc), ""))

    def written(self, loc: Loc) -> Loc:
        """The path as the file has it: one value that stands for a list of one has no position."""
        way: Loc = ()
        for part in loc:
            if isinstance(part, str) or way not in self.marks or (*way, part) in self.marks:
                way = (*way, part)
        return way

    def mark(self, diagnostic: Diagnostic) -> Mark:
        """The place of a diagnostic whose `loc` is as written."""
        if diagnostic.mark is not None:
            return diagnostic.mark
        known = diagnostic.loc
        while known and known not in self.marks:
            known = known[:-1]
        mark = self.marks.get(known, Mark(1, 1))
        # A missing key is missing from the section that `known` opens.
        is_about_key = diagnostic.at == "key" or any(isinstance(part, str) for part in diagnostic.loc[len(known) :])
        return self.key_marks.get(known, mark) if is_about_key else mark


def dotted(loc: Loc) -> str:
    """("rules", 2, "match") → `rules[2].match`. A key that isn't a plain word is cut: after a typing mistake it can be
    anything, even a password."""
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
