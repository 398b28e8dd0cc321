"""The command line: `otp-relay COMMAND`, the same as `python -m relay COMMAND`."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Sequence

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


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code."""
    argv = sys.argv[1:] if argv is None else argv
    if argv[:1] == ["sendmail"]:
        # Started once a message, and its arguments are its own to read: no argparse, none of the other commands.
        from relay.cli.sendmail import send

        return send(argv[1:])
    # The others' parsers would take longer to make than a look at the log.
    asked = [group for group, commands in GROUPS.items() if argv and argv[0] in commands]
    try:
        args = parser(asked or GROUPS).parse_args(argv)
        code: int = args.run(args)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone. Python flushes once more at its end: into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


if __name__ == "__main__":
    sys.exit(main())
