"""The configuration in force, as an operator may be shown it: the file's keys and values, without its secrets."""

from __future__ import annotations

import re
from typing import Any

from relay.config.masking import SECRETS, Expanded, masked

HIDDEN = "••••••"
_SECRET_FIELD = re.compile(r"auth|token|key|secret|password", re.IGNORECASE)
"""names of header fields whose value may be a secret"""


def outline(data: Any) -> Any:
    """The data of a file as plain values for YAML. A secret becomes HIDDEN. A value that comes from the environment is
    shown as its variable."""
    return _shown(data, None)


def _shown(value: Any, key: str | None) -> Any:
    match value:
        case dict():
            return {
                name: _field(name, item) if key == "headers" else _shown(item, name) for name, item in value.items()
            }
        case tuple():
            return [_shown(item, key) for item in value]
        case None | bool():
            return value
        case _ if key in SECRETS:
            return HIDDEN
        case Expanded():
            return _by_variables(value)
        case str():
            return masked(value)
        case _:
            return value


def _field(name: str, value: Any) -> Any:
    """A header field that an upstream sets."""
    return HIDDEN if value is not None and _SECRET_FIELD.search(name) else _shown(value, None)


def _by_variables(text: Expanded) -> str:
    """The text with the names of variables in the place of their values."""
    shown = str(text)
    for name, value in sorted(text.variables.items(), key=lambda item: -len(item[1])):
        if value:
            shown = shown.replace(value, f"${{{name}}}")
    return shown
