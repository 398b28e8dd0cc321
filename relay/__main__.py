"""The command line: `otp-relay COMMAND`, the same as `python -m relay COMMAND`."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence
    from typing import Any, TextIO

GROUPS = {
    "run": ("run",),
    "config": ("check", "explain"),
    "mail": ("log", "queue", "report"),
    "keys": ("keygen", "lint"),
    "store": ("store",),
    "user": ("user",),
    "doctor": ("doctor",),
    "demo": ("demo",),
    "sendmail": ("sendmail",),
}
"""Modules of relay.cli and their commands. Each has `register(subparsers)`; none imports more than argparse before it
is asked."""


def parser(groups: Iterable[str] = GROUPS) -> argparse.ArgumentParser:
    """Of the commands of these groups."""
    import argparse
    import importlib

    from relay import __version__

    top = argparse.ArgumentParser(
        prog="otp-relay",
        description="A local SMTP relay that lets one-time codes out first: signed, timed, never behind bulk mail.",
    )
    top.add_argument("--version", action="version", version=f"otp-relay {__version__}")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for group in groups:
        importlib.import_module(f"relay.cli.{group}").register(subparsers)
    return top


EXIT_OUTPUT = 74
"""EX_IOERR of sysexits(3): what a command had to say could not be written; no command has another use for it"""
EXIT_INTERRUPTED = 130
"""as a shell has it for what Ctrl-C ended"""


class Unwritable(Exception):
    """stdout doesn't take what is written; the cause is the system's OSError."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["run"]:
        import signal

        # Before the other imports, which take a while: a signal to stop ends it with 0 from the first moment.
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGINT, _end)
    if argv[:1] == ["sendmail"]:
        # Started once a message, and its arguments are its own to read: no argparse, none of the other commands.
        from relay.cli.sendmail import send

        return send(argv[1:])
    if sys.stdout is sys.__stdout__:  # not where a test has put another in its place
        sys.stdout = _told_apart(sys.stdout)
    # The others' parsers would take longer to make than a look at the log.
    asked = [group for group, commands in GROUPS.items() if argv and argv[0] in commands]
    try:
        try:
            code = _run(parser(asked or GROUPS), argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Unwritable as error:
        # Python flushes once more at its end: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error.__cause__, BrokenPipeError):  # the reader (`| head`) has what it wanted
            return 0
        print(f"otp-relay: standard output: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OUTPUT
    return code


def _end(number: int, frame: object) -> None:  # noqa: ARG001
    """Nothing is open yet. No exception: an import may swallow it (Python 3.11's __set_name__)."""
    os._exit(0)


def _run(top: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    args, rest = top.parse_known_args(argv)
    if rest:
        # argparse takes the IDs of `queue retry -c FILE ID...` for unknown: it reads a list in one place only.
        if not getattr(args, "action", None) or any(one.startswith("-") for one in rest):
            top.error(f"unrecognized arguments: {' '.join(rest)}")
        args.ids += rest
    code: int = args.run(args)
    return code


def _told_apart(stdout: TextIO | None) -> TextIO:
    """The same output. What it doesn't take is raised as Unwritable, which no command takes for an error of its own.
    Python's is None where the descriptor is closed."""
    import io

    class Output(io.FileIO):
        def write(self, data: Any, /) -> int:
            try:
                return super().write(data)
            except OSError as error:
                raise Unwritable(error.strerror) from error

    if stdout is None:
        return open(os.devnull, "w")
    return io.TextIOWrapper(
        io.BufferedWriter(Output(stdout.fileno(), "wb", closefd=False)),
        encoding=stdout.encoding,
        errors=stdout.errors,
        line_buffering=stdout.isatty(),
        write_through=getattr(stdout, "write_through", False),
    )


if __name__ == "__main__":
    sys.exit(main())
