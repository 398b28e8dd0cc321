"""The commands with their options, out of argparse's parsers: what completions and the man page are made from."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from relay.__main__ import parser
from relay.providers.registry import presets
from relay.setup.plan import LOCAL, OTHER

_PRESETS = tuple(name for name, _, _ in presets())
VALUES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("init", "--preset"): (*_PRESETS, OTHER, LOCAL),
    ("init", "--second"): (*_PRESETS, OTHER, LOCAL),
    ("presets", "NAME"): _PRESETS,
}
"""Values of options and arguments that argparse doesn't check itself, by command and option (or metavar)."""
_FILES = ("FILE", "FILE.eml", "DIR", "DEST")
"""metavars of paths"""


class Value(NamedTuple):
    """What an option or an argument takes. `words`: the only ones, or the known ones."""

    name: str
    """its metavar"""
    words: tuple[str, ...] = ()
    is_path: bool = False


class Option(NamedTuple):
    """`value` None: it takes none."""

    names: tuple[str, ...]
    help: str
    value: Value | None = None


class Argument(NamedTuple):
    """A positional argument."""

    value: Value
    help: str
    nargs: str | None


class Command(NamedTuple):
    """A command, or the program itself (`path` is empty)."""

    path: tuple[str, ...]
    help: str
    description: str
    options: tuple[Option, ...]
    arguments: tuple[Argument, ...]
    subcommands: tuple[Command, ...]

    @property
    def name(self) -> str:
        return " ".join(self.path)

    def all(self) -> Iterator[Command]:
        """It and all below it."""
        yield self
        for one in self.subcommands:
            yield from one.all()


def program() -> Command:
    """`otp-relay`."""
    return _command(parser(), (), "")


def _command(given: argparse.ArgumentParser, path: tuple[str, ...], text: str) -> Command:
    options, arguments, subcommands = [], [], []
    for action in given._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {one.dest: one.help or "" for one in action._choices_actions}
            subcommands += [_command(one, (*path, name), helps.get(name, "")) for name, one in action.choices.items()]
        elif action.help == argparse.SUPPRESS:
            continue
        elif action.option_strings:
            value = None if action.nargs == 0 else _value(path, action)
            options.append(Option(tuple(action.option_strings), _plain(action.help), value))
        else:
            nargs = action.nargs if isinstance(action.nargs, str) else None
            arguments.append(Argument(_value(path, action), _plain(action.help), nargs))
    description = given.description or ""
    return Command(path, text, description, tuple(options), tuple(arguments), tuple(subcommands))


def _value(path: tuple[str, ...], action: argparse.Action) -> Value:
    choices: Any = action.choices or ()
    default = action.dest.upper().replace("_", "-")
    name = action.metavar if isinstance(action.metavar, str) else "|".join(map(str, choices)) or default
    known = VALUES.get((" ".join(path), action.option_strings[0] if action.option_strings else name), ())
    return Value(name, tuple(map(str, choices)) or known, action.type is Path or name in _FILES)


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("%%", "%").split())
