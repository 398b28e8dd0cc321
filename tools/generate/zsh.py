"""The completion script for zsh."""

from __future__ import annotations

from collections.abc import Iterator

from tools.generate.commands import Argument, Command, Option, Value, program

_HEAD = """\
#compdef otp-relay
# Completion of otp-relay for zsh. Made by `python -m tools.generate`.
"""


def text() -> str:
    functions = [line for command in program().all() for line in _function(command)]
    return "\n".join([*_HEAD.splitlines(), *functions, '_otp-relay "$@"']) + "\n"


def _function(command: Command) -> Iterator[str]:
    yield f"{_named(command)}() {{"
    specs = [_quoted(spec) for option in command.options for spec in _option(option)]
    if command.subcommands:
        yield "    local context state state_descr line curcontext=$curcontext"
        yield "    typeset -A opt_args"
        yield from _arguments([*specs, "'1: :->command'", "'*:: :->rest'"], "-C ")
        yield "    case $state in"
        yield "        command)"
        yield "            local -a commands=("
        for one in command.subcommands:
            yield f"                {_quoted(f'{one.path[-1]}:{one.help}')}"
        yield "            )"
        yield "            _describe -t commands command commands ;;"
        yield "        rest)"
        yield "            case $line[1] in"
        for one in command.subcommands:
            yield f"                {one.path[-1]}) {_named(one)} ;;"
        yield "            esac ;;"
        yield "    esac"
    else:
        arguments = [_quoted(_argument(one)) for one in command.arguments]
        yield from _arguments([*specs, *arguments])
    yield "}"


def _arguments(specs: list[str], flags: str = "") -> Iterator[str]:
    yield f"    _arguments -s -S {flags}\\"
    yield " \\\n".join(f"        {spec}" for spec in specs) if specs else "        '*:: :'"


def _option(option: Option) -> Iterator[str]:
    """A spec for each name. It may be given again: some options may."""
    for name in option.names:
        spec = f"*{name}"
        if option.value is not None:
            spec += "=" if name.startswith("--") else "+"
        spec += f"[{_escaped(option.help)}]"
        yield spec if option.value is None else f"{spec}:{_escaped(option.value.name)}:{_action(option.value)}"


def _argument(argument: Argument) -> str:
    many = "*" if argument.nargs in ("*", "+", "...") else ""
    optional = ":" if argument.nargs == "?" else ""
    return f"{many}:{optional}{_escaped(argument.value.name)}:{_action(argument.value)}"


def _action(value: Value) -> str:
    if value.words:
        return f"({' '.join(value.words)})"
    return "_files" if value.is_path else " "


def _named(command: Command) -> str:
    return "_".join(["_otp-relay", *command.path])


def _escaped(text: str) -> str:
    return "".join(f"\\{char}" if char in "[]:\\" else char for char in text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
