"""What every parser of a configuration value needs: where it comes from, and how an error message shows it."""

from __future__ import annotations

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


def shown(value: object) -> str:
    """A value as an error message may show it: short, on one line, nothing out of the environment."""
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
        case str() if len(value) > 60:
            return repr(value[:60]) + "..."
        case _:
            return repr(value)
