"""The completion script for bash. It needs no bash-completion package."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from tools.generate.commands import Command, Value, program

_HEAD = """\
# Completion of otp-relay for bash. Made by `python -m tools.generate`.
_otp_relay() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} command= word i
    COMPREPLY=()
    # readline splits --option=value in three.
    if [[ $cur == = ]]; then cur=; elif [[ $prev == = ]]; then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        case "$command $word" in
"""
_TAIL = """\
    esac
}
complete -F _otp_relay otp-relay
"""
_FILES = 'compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- "$cur")'


def text() -> str:
    return "\n".join([*_HEAD.splitlines(), *_walk(), *_values(), *_words()]) + "\n" + _TAIL


def _walk() -> Iterator[str]:
    """Find the command in the words so far; the values of options aren't looked at."""
    for command in program().all():
        valued = [f'"{command.name} {name}"' for name, _ in _valued(command)]
        if valued:
            yield f"            {' | '.join(valued)}) ((i++)) ;;"
        for one in command.subcommands:
            yield f'            "{command.name} {one.path[-1]}") command="{one.name}" ;;'
    yield "        esac"
    yield "    done"


def _values() -> Iterator[str]:
    """What may stand behind an option."""
    yield '    case "$command $prev" in'
    for command in program().all():
        for name, value in _valued(command):
            yield f'        "{command.name} {name}") {_offer(value)}; return ;;'
    yield "    esac"


def _words() -> Iterator[str]:
    """What may stand there else: options, commands, arguments."""
    yield '    case "$command" in'
    for command in program().all():
        options = [name for option in command.options for name in option.names]
        words = [one.path[-1] for one in command.subcommands]
        words += [word for argument in command.arguments for word in argument.value.words]
        offered = f"if [[ $cur == -* ]]; then {_offer(Value('', tuple(options)))}; else "
        paths = any(argument.value.is_path for argument in command.arguments)
        offered += _FILES if paths and not words else _offer(Value("", tuple(words)))
        yield f'        "{command.name}") {offered}; fi ;;'


def _offer(value: Value) -> str:
    if value.is_path:
        return _FILES
    if not value.words:
        return ":"
    return f'mapfile -t COMPREPLY < <(compgen -W {shlex.quote(" ".join(value.words))} -- "$cur")'


def _valued(command: Command) -> Iterator[tuple[str, Value]]:
    for option in command.options:
        if option.value is not None:
            yield from ((name, option.value) for name in option.names)
