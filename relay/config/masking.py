"""Keep secrets out of error messages: values of the environment, passwords, tokens, credentials in URLs."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

SECRETS = frozenset(
    {
        *("password", "secret", "read_token", "send_token", "token", "username", "proxy"),
        *("key", "access_key_id", "secret_access_key", "client_id", "client_secret", "refresh_token"),
    }
)
"""keys whose value no message shows; a user name may be a token"""


class Expanded(str):
    """A text with values of the environment in it. Messages name the variables, never the value. A number or a boolean
    may come as such a text."""

    __slots__ = ("variables",)
    variables: Mapping[str, str]
    """name to value"""

    def __new__(cls, text: str, variables: Mapping[str, str]) -> Expanded:
        self = super().__new__(cls, text)
        self.variables = variables
        return self

    def __repr__(self) -> str:
        if not self.variables:  # all of it is the file's own default
            return _quoted(masked(str(self)))
        return " and ".join(_value_of(name) for name in self.variables)


class RunOn(str):
    """A text without quotes that goes on over a line's end. Messages show its first word: where a key was lost, the
    rest is that key's value."""

    __slots__ = ()


def _value_of(variable: str) -> str:
    return f"the value of ${{{variable}}}"


_USERINFO = re.compile(r"(?<=://).*@", re.DOTALL)
"""Up to the last @: a password that isn't percent-encoded may hold one, or a slash."""
_NO_PORT = re.compile(r"(?<=://)([^/?#:]*:)(?![0-9]*(?:[/?#]|\Z))[^/?#]*")
"""`://user:password` without a host"""
_PARAMETER = re.compile(r"((?:pass\w*|secret|token|key)\s*=\s*)('[^']*'?|[^&\s]*)", re.IGNORECASE)
"""libpq also reads the password from the query, or from `password=...`."""


def masked(text: str) -> str:
    """The text without the credentials of a URL or of a database's connection string."""
    if "://" not in text and "=" not in text:
        return text
    return _PARAMETER.sub(r"\1...", _NO_PORT.sub(r"\1...", _USERINFO.sub("...@", text)))


def shown(value: object) -> str:
    """A value as an error message shows it: short, on one line, without a URL's credentials or the environment's
    values."""
    match value:
        case None:
            return "nothing"
        case bool():
            return str(value).lower()
        case dict():
            return "a mapping"
        case list() | tuple():
            return "a list"
        case RunOn():
            return first_word(value)
        case str() if not isinstance(value, Expanded):
            return _quoted(masked(value))
        case _:
            return repr(value)


def first_word(value: object) -> str:
    """As `shown`, of a value that has no blanks: what follows one may be the value of a key that was lost."""
    if isinstance(value, Expanded) or not isinstance(value, str) or len(words := value.split()) < 2:
        return shown(str(value) if isinstance(value, RunOn) else value)
    return f"{_quoted(masked(words[0]))}..."


def _quoted(text: str) -> str:
    return repr(text) if len(text) <= 60 else repr(text[:60]) + "..."


def masker(data: Any) -> Callable[[str], str]:
    """The last safeguard: a function that replaces every secret of a configuration in a message."""
    secrets: dict[str, str] = {}
    credentials: set[str] = set()
    for key, text in _texts(data):
        if isinstance(text, Expanded) and text.variables:
            secrets[str(text)] = repr(text)
            secrets.update((value, _value_of(name)) for name, value in text.variables.items() if len(value) > 3)
        elif text and key in SECRETS:
            secrets[text] = f"the value of {key}"
        found = _USERINFO.search(text)
        if found is not None and ":" in found[0]:
            credentials.add(found[0])
    longest_first = sorted(secrets.items(), key=lambda item: -len(item[0]))

    def mask(message: str) -> str:
        for text, instead in longest_first:
            message = message.replace(_quoted(text), instead).replace(repr(text), instead)
            if len(text) >= 8:
                message = message.replace(text, instead)
        for text in credentials:  # in a path, for example
            message = message.replace(text, "...@")
        return message

    return mask


def _texts(value: Any, key: str | None = None) -> Iterator[tuple[str | None, str]]:
    """Every text in the data, with the key that it, or the list around it, belongs to."""
    match value:
        case dict():
            for inner, item in value.items():
                yield from _texts(item, inner)
        case tuple():
            for item in value:
                yield from _texts(item, key)
        case str():
            yield key, value
