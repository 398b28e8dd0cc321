"""What every parser of a configuration value needs: where it comes from, and how an error message shows it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple


class Origin(NamedTuple):
    """Where a configuration comes from: relative paths in it are relative to `folder`."""

    folder: Path


class Expanded(str):
    """A text into which the environment was substituted. Error messages name the variables, never the value,
    and a number or a boolean may be spelled by it."""

    __slots__ = ("variables",)
    variables: Mapping[str, str]
    """name to value"""

    def __new__(cls, text: str, variables: Mapping[str, str]) -> Expanded:
        self = super().__new__(cls, text)
        self.variables = variables
        return self

    def __repr__(self) -> str:
        return " and ".join(the_value_of(name) for name in self.variables)


def the_value_of(variable: str) -> str:
    return f"the value of ${{{variable}}}"


_USERINFO = re.compile(r"(?<=://).*@", re.DOTALL)
"""To the last @: a password that isn't percent-encoded may have one, or a slash."""
_NO_PORT = re.compile(r"(?<=://)([^/?#:]*:)(?![0-9]*(?:[/?#]|\Z))[^/?#]*")
"""`://user:password` whose host was forgotten"""
_PARAMETER = re.compile(r"((?:pass\w*|secret|token|key)\s*=\s*)('[^']*'?|[^&\s]*)", re.IGNORECASE)
"""libpq takes the password in the query or as a word, too."""


def masked(text: str) -> str:
    """Without the credentials that a URL or a database's connection string carries."""
    if "://" not in text and "=" not in text:
        return text
    return _PARAMETER.sub(r"\1...", _NO_PORT.sub(r"\1...", _USERINFO.sub("...@", text)))


def userinfo(text: str) -> str | None:
    """The `user:password@` of a URL."""
    found = _USERINFO.search(text)
    return found[0] if found is not None and ":" in found[0] else None


def shown(value: object) -> str:
    """A value as an error message may show it: short, on one line, without a URL's credentials, nothing out of the
    environment."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case Expanded():
            return repr(value)
        case str():
            text = masked(value)
            return repr(text) if len(text) <= 60 else repr(text[:60]) + "..."
        case _:
            return repr(value)
