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
    "init": ("init",),
    "run": ("run",),
    "config": ("check", "explain"),
    "schema": ("schema",),
    "presets": ("presets",),
    "mail": ("log", "queue", "report"),
    "events": ("events",),
    "receivers": ("receivers",),
    "suppress": ("suppress",),
    "keys": ("keygen",),
    "content": ("detect", "lint"),
    "store": ("store",),
    "user": ("user",),
    "oauth": ("oauth",),
    "doctor": ("doctor",),
    "ready": ("ready",),
    "send_test": ("send-test",),
    "demo": ("demo",),
    "completion": ("completion",),
    "sendmail": ("sendmail",),
}
"""Modules of relay.cli and their commands. Each has `register(subparsers)` and imports little before it runs."""


def parser(groups: Iterable[str] = GROUPS) -> argparse.ArgumentParser:
    """The parser of the commands of these groups."""
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
"""EX_IOERR of sysexits(3): stdout could not be written; no command uses it for anything else"""
EXIT_INTERRUPTED = 130
"""the code that a shell gives to what Ctrl-C ended"""


class Unwritable(Exception):
    """stdout could not be written; the cause is the OSError."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["run"]:
        import signal

        # Before the other imports, which take a while: a signal to stop ends it with 0 from the first moment.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _end)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if argv[:1] == ["sendmail"]:
        # It starts once for each message, and parses its own arguments: argparse is not imported.
        from relay.cli.sendmail import send

        return send(argv[1:])
    if sys.stdout is sys.__stdout__:  # a test may have replaced it
        sys.stdout = _raising_unwritable(sys.stdout)
    # Making all parsers would take longer than a look at the log.
    asked = [group for group, commands in GROUPS.items() if argv and argv[0] in commands]
    try:
        try:
            code = _run(parser(asked or GROUPS), argv)
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except Unwritable as error:
        # Python flushes once more at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        if isinstance(error.__cause__, BrokenPipeError):  # the reader (`| head`) has read enough
            return 0
        print(f"otp-relay: standard output: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_OUTPUT
    return code


def _end(number: int, frame: object) -> None:  # noqa: ARG001
    """End at once; nothing is open yet. An exception could be swallowed by an import (Python 3.11's __set_name__)."""
    os._exit(0)


def _run(top: argparse.ArgumentParser, argv: Sequence[str]) -> int:
    args, rest = top.parse_known_args(argv)
    if rest:
        # argparse reads a list of arguments in one place only: the IDs of `queue retry -c FILE ID...` are in `rest`.
        if not getattr(args, "action", None) or any(one.startswith("-") for one in rest):
            top.error(f"unrecognized arguments: {' '.join(rest)}")
        args.ids += rest
    code: int = args.run(args)
    return code


def _raising_unwritable(stdout: TextIO | None) -> TextIO:
    """The same output, which raises Unwritable instead of OSError: no command takes that for an error of its own.
    `stdout` is None when the descriptor is closed."""
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
