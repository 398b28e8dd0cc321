"""`otp-relay user add`: who may log in at a listener with `auth: required`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

EXIT_USAGE = 2


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    from relay.cli.common import add_config

    parser = subparsers.add_parser(
        "user", help="manage who may log in", description="Manages the users file of listeners with `auth: required`."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_parser = actions.add_parser(
        "add",
        help="add a user, or change a password",
        description="Adds a user or changes the password, which is asked for, or read from stdin's first line. "
        "A running relay takes it up at a reload (SIGHUP).",
    )
    add_config(add_parser)
    add_parser.add_argument("name", metavar="NAME")
    add_parser.add_argument(
        "--file", metavar="FILE", type=Path, help="the users file (default: the first in the configuration)"
    )
    add_parser.set_defaults(run=add)


def add(args: argparse.Namespace) -> int:
    """Exit 0, or 2 with a line on stderr; then the file is as it was."""
    from relay.intake.users import UsersError, hash_password, put_user, valid_name

    if not valid_name(args.name):
        return _fail("a user's name has no blanks, colons or control characters, and doesn't begin with #")
    path: Path | None = args.file or _configured(args)
    if path is None:
        return _fail("no listener in the configuration has a users_file; name it with --file")
    password = _password()
    if not password:
        return _fail("no password given, or not the same twice")
    try:
        put_user(path, args.name, hash_password(password))
    except UsersError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{path}: {error.strerror}")
    print(f"{args.name} may log in with the users file {path}")
    return 0


def _configured(args: argparse.Namespace) -> Path | None:
    from relay.cli.common import config_path, load_or_exit

    listeners = load_or_exit(config_path(args), may_lack_users=True).config.listen
    return next((each.users_file for each in listeners if each.users_file is not None), None)


def _password() -> bytes:
    """Never from the command line, where `ps` shows it. b'' when there is none."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    from getpass import getpass

    first = getpass("Password: ")
    return os.fsencode(first) if first == getpass("Again: ") else b""


def _fail(text: str) -> int:
    print(f"otp-relay user: {text}", file=sys.stderr)
    return EXIT_USAGE
