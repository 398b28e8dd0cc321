"""The completion script for fish."""

from __future__ import annotations

from collections.abc import Iterator

from tools.generate.commands import Command, Option, Value, program

_HEAD = """\
# Completion of otp-relay for fish. Made by `python -m tools.generate`.
complete -c otp-relay -f
"""


def text() -> str:
    return _HEAD + "\n".join(line for command in program().all() for line in _command(command)) + "\n"


def _command(command: Command) -> Iterator[str]:
    begin = f"complete -c otp-relay -n {_quoted(_condition(command))}"
    for one in command.subcommands:
        yield f"{begin} -a {one.path[-1]} -d {_quoted(one.help)}"
    for option in command.options:
        yield f"{begin}{_names(option)}{'' if option.value is None else _value(option.value)} -d {_quoted(option.help)}"
    for argument in command.arguments:
        if argument.value.words:
            yield f"{begin} -a {_quoted(' '.join(argument.value.words))}"
        elif argument.value.is_path:
            yield f"{begin} -F"


def _condition(command: Command) -> str:
    """That this command was given, and none below it."""
    seen = [f"__fish_seen_subcommand_from {name}" for name in command.path]
    if not command.path:
        return "__fish_use_subcommand"
    if command.subcommands:
        seen.append(f"not __fish_seen_subcommand_from {' '.join(one.path[-1] for one in command.subcommands)}")
    return "; and ".join(seen)


def _names(option: Option) -> str:
    return "".join(f" -l {name[2:]}" if name.startswith("--") else f" -s {name[1:]}" for name in option.names)


def _value(value: Value) -> str:
    if value.words:
        return f" -x -a {_quoted(' '.join(value.words))}"
    return " -r -F" if value.is_path else " -x"


def _quoted(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
