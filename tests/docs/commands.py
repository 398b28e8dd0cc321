"""The commands of the relay in shell blocks and in running text."""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator
from functools import cache

from relay.__main__ import parser
from tests.docs.blocks import Block

PROGRAM = re.compile(r"(?:\S*/)?otp-relay")
_ENDS = {"|", "||", "&&", ";", "&", ">", ">>", "<", "<<", "2>", ")", "(", "}"}
_OPTIONAL = re.compile(r"\[[^\]]*\]")


def lines(block: Block) -> Iterator[str]:
    """The commands of a shell block; in a `console` block what stands behind `$ ` or `# `, without its answers."""
    text = block.text.replace("\\\n", " ")
    for line in text.splitlines():
        if block.language != "console":
            yield line
        elif line.startswith(("$ ", "# ")):
            yield line[2:]


def invocations(block: Block) -> Iterator[list[str]]:
    """The arguments of each `otp-relay` in a block."""
    for line in lines(block):
        yield from invocations_in(line)


def invocations_in(line: str) -> Iterator[list[str]]:
    """The arguments of each `otp-relay` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|&;()<>")
    lexer.whitespace_split, lexer.commenters = True, "#"
    try:
        words = list(lexer)
    except ValueError:  # a text over several lines
        return
    for at, word in enumerate(words):
        begins = at == 0 or words[at - 1] in {*_ENDS, "sudo", "exec", "then"} or _sets_variable(words[at - 1])
        if begins and PROGRAM.fullmatch(word):
            end = next((n for n, one in enumerate(words[at + 1 :], at + 1) if one in _ENDS), len(words))
            yield words[at + 1 : end]


def _sets_variable(word: str) -> bool:
    return re.match(r"[A-Z_][A-Z0-9_]*=", word) is not None


@cache
def commands() -> dict[str, argparse.ArgumentParser]:
    (subparsers,) = (one for one in parser()._actions if isinstance(one, argparse._SubParsersAction))
    return dict(subparsers.choices)


def mistake(arguments: list[str]) -> str | None:
    """What the command line says about the arguments; None where it takes them."""
    if not arguments or arguments[0] == "--version":
        return None
    if arguments[0] not in commands():
        return f"no command {arguments[0]!r}"
    if arguments[0] == "sendmail":
        return None
    try:
        args, rest = parser().parse_known_args(arguments)
    except SystemExit as ended:
        return None if ended.code == 0 else f"not understood: {shlex.join(arguments)}"
    if rest and (not getattr(args, "action", None) or any(one.startswith("-") for one in rest)):
        return f"unrecognized: {' '.join(rest)}"
    return None


def mentioned(text: str) -> Iterator[tuple[str, set[str]]]:
    """Command and long options of each `otp-relay ...` in running text, where placeholders may stand."""
    prose = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    for found in re.findall(r"`(?:\S*/)?otp-relay ([a-z][^`]*)`", prose):
        words = found.split()
        yield words[0].strip(";,."), set(re.findall(r"--[a-z][a-z-]+", found))


def options(command: str) -> set[str]:
    """The long options of a command and of its actions."""
    found: set[str] = set()
    waiting = [commands()[command]]
    while waiting:
        for action in waiting.pop()._actions:
            found.update(one for one in action.option_strings if one.startswith("--"))
            if isinstance(action, argparse._SubParsersAction):
                waiting.extend(action.choices.values())
    return found
