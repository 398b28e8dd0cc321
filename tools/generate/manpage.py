"""The man page otp-relay(1)."""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator, Mapping

import relay
from relay.cli.common import CONFIG_VARIABLE, DEFAULT_CONFIG
from tools.generate.commands import Argument, Command, Option, program
from tools.generate.descriptions import SOURCE

REFERENCE = SOURCE.with_name("reference.md")
_ENVIRONMENT = {
    CONFIG_VARIABLE: f"the configuration, where no -c is given; without it, {DEFAULT_CONFIG}",
    "OTP_RELAY_URL": "a relay elsewhere, which commands with --url ask where neither -c nor a configuration is named",
    "OTP_RELAY_TOKEN": "its token; OTP_RELAY_TOKEN_FILE names a file with it",
    "OTP_RELAY_SUBMIT": "where `sendmail` submits to: host:port or unix:/path",
}
_EXAMPLES = {
    "Set up, start, and send a code:": (
        "otp-relay init",
        "otp-relay run -c otp-relay/relay.yaml",
        "otp-relay send-test user@example.net -c otp-relay/relay.yaml",
    ),
    "What became of the mail to one address:": ("otp-relay log --to user@example.net --since 1h",),
}
_COLUMNS = 78


def text() -> str:
    whole = program()
    parts = (
        _head(whole), _commands(whole), _options(whole), _environment(), _files(), _exit(), _examples(), _see_also(),
    )  # fmt: skip
    return "\n".join(line for part in parts for line in part) + "\n"


def _head(whole: Command) -> Iterator[str]:
    yield '.\\" Made by `python -m tools.generate`.'
    yield f'.TH OTP-RELAY 1 "" "otp-relay {relay.__version__}" "User Commands"'
    yield ".SH NAME"
    yield "otp\\-relay \\- a local SMTP relay that lets one\\-time codes out first"
    yield ".SH SYNOPSIS"
    yield ".B otp\\-relay"
    yield ".I COMMAND"
    yield "[\\fIOPTION\\fR...] [\\fIARGUMENT\\fR...]"
    yield ".SH DESCRIPTION"
    yield _roff(whole.description)
    yield ".PP"
    yield _roff(
        "Apps submit mail to it on this machine. It knows one-time codes from other mail, signs both with DKIM, and "
        "hands codes to an e-mail provider at once, in a lane of their own."
    )


def _options(whole: Command) -> Iterator[str]:
    yield ".SH OPTIONS"
    for option in whole.options:
        yield from _option(option)


def _commands(whole: Command) -> Iterator[str]:
    exits = exit_codes()
    yield ".SH COMMANDS"
    yield _roff("Every command takes -h, and -c FILE for the configuration.")
    for command in whole.all():
        if not command.path or (command.subcommands and not command.arguments):
            continue
        yield f".SS {_synopsis(command)}"
        yield _roff(command.description or f"{command.help[0].upper()}{command.help[1:]}.")
        for argument in command.arguments:
            if argument.help:
                yield from _tagged(f"\\fI{_roff(argument.value.name)}\\fR", argument.help)
        for option in command.options:
            if "-h" not in option.names and "-c" not in option.names:
                yield from _option(option)
        if (codes := exits.get(command.path[0])) is not None and len(command.path) == 1:
            yield ".PP"
            yield _roff(f"Exit status: {codes}.")


def exit_codes() -> Mapping[str, str]:
    """Of each command that the reference has one line for."""
    found: dict[str, list[str]] = {}
    for name, codes in re.findall(r"^\| `([\w-]+)[^`]*` \|.*\| ([^|]+) \|$", REFERENCE.read_text(), re.MULTILINE):
        found.setdefault(name, []).append(codes)
    return {name: codes[0] for name, codes in found.items() if len(codes) == 1}


def _synopsis(command: Command) -> str:
    words = [f"\\fB{_roff(command.name)}\\fR"]
    if any("-h" not in option.names for option in command.options):
        words.append("[\\fIOPTION\\fR...]")
    words += [_argument(one) for one in command.arguments]
    return " ".join(words)


def _argument(one: Argument) -> str:
    name = f"\\fI{_roff(one.value.name)}\\fR"
    return {"?": f"[{name}]", "*": f"[{name}...]", "...": f"[{name}...]", "+": f"{name}..."}.get(one.nargs or "", name)


def _option(option: Option) -> Iterator[str]:
    name = "" if option.value is None else option.value.name
    value = f" \\fI{_roff(name)}\\fR" if name else ""
    tag = ", ".join(f"\\fB{_roff(name)}\\fR" for name in option.names) + value
    yield from _tagged(tag, option.help or f"the {name.lower()}")


def _tagged(tag: str, text: str) -> Iterator[str]:
    yield ".TP"
    yield tag
    yield _roff(text)


def _environment() -> Iterator[str]:
    yield ".SH ENVIRONMENT"
    for name, what in _ENVIRONMENT.items():
        yield from _tagged(f"\\fB{_roff(name)}\\fR", what)


def _files() -> Iterator[str]:
    yield ".SH FILES"
    yield from _tagged(
        f"\\fI{_roff(DEFAULT_CONFIG)}\\fR", "the configuration; `otp-relay schema` prints its JSON Schema"
    )


def _exit() -> Iterator[str]:
    yield ".SH EXIT STATUS"
    yield from _tagged("0", "It is done.")
    yield from _tagged("1", "It isn't: nothing was found or changed, or the store or the relay can't be asked.")
    yield from _tagged("2", "The command line or the configuration is wrong.")
    yield from _tagged("74", "Standard output could not be written.")
    yield from _tagged("130", "It was ended by Ctrl-C.")


def _examples() -> Iterator[str]:
    yield ".SH EXAMPLES"
    for at, (what, lines) in enumerate(_EXAMPLES.items()):
        if at:
            yield ".PP"
        yield _roff(what)
        yield ".PP"
        yield ".nf"
        yield from (f"    {_roff(line)}" for line in lines)
        yield ".fi"


def _see_also() -> Iterator[str]:
    yield ".SH SEE ALSO"
    yield ".BR sendmail (8),"
    yield ".BR systemd.service (5)"


def _roff(text: str) -> str:
    """A text for troff: no line of it is a request, and a minus can be copied."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    escaped = re.sub(r"`([^`]+)`", r"\\fB\1\\fR", escaped)
    lines = textwrap.wrap(escaped, _COLUMNS, break_long_words=False, break_on_hyphens=False)
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in lines)
