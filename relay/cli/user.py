"""`otp-relay user add`: add users who may log in at listeners with `auth: required`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from relay.cli.common import (
    EXIT_OK,
    EXIT_USAGE,
    CommandFailed,
    add_config,
    config_path,
    load_or_exit,
    set_command,
)


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "user", help="manage users", description="Manages the users file of listeners with `auth: required`."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    add_parser = actions.add_parser(
        "add",
        help="add a user, or change a password",
        description="Adds a user or changes a password. The password is asked for, or read from the first line of "
        "stdin. A running relay reads the file again at a reload (SIGHUP).",
    )
    add_config(add_parser)
    add_parser.add_argument("name", metavar="NAME")
    add_parser.add_argument(
        "--file", metavar="FILE", type=Path, help="the users file (default: the first in the configuration)"
    )
    add_parser.add_argument(
        "--senders",
        metavar="PATTERN",
        nargs="+",
        help="addresses that the user may send as (default: those that it had; a new user: all)",
    )
    set_command(add_parser, add)


def add(args: argparse.Namespace) -> int:
    """Exit 0; or 2, and the file is unchanged."""
    from relay.intake.users import UsersError, check_senders, hash_password, put_user, valid_name

    if not valid_name(args.name):
        raise CommandFailed(
            "a user's name has no blanks, colons or control characters, and doesn't begin with #", EXIT_USAGE
        )
    try:
        check_senders(args.senders or ())
    except ValueError as error:
        raise CommandFailed(f"--senders: {error}", EXIT_USAGE) from None
    path: Path | None = args.file or _configured(args)
    if path is None:
        raise CommandFailed("no listener in the configuration has a users_file; name it with --file", EXIT_USAGE)
    password = _password()
    if not password:
        raise CommandFailed("no password given, or not the same twice", EXIT_USAGE)
    try:
        put_user(path, args.name, hash_password(password), args.senders)
    except UsersError as error:
        raise CommandFailed(str(error), EXIT_USAGE) from None
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", EXIT_USAGE) from None
    print(f"{args.name} may log in with the users file {path}")
    return EXIT_OK


def _configured(args: argparse.Namespace) -> Path | None:
    listeners = load_or_exit(config_path(args), may_lack_users=True).config.listen
    return next((each.users_file for each in listeners if each.users_file is not None), None)


def _password() -> bytes:
    """The password; never from the command line, where `ps` shows it. b'' if there is none."""
    if not sys.stdin.isatty():
        return sys.stdin.buffer.readline().rstrip(b"\r\n")
    from getpass import getpass

    first = getpass("Password: ")
    return os.fsencode(first) if first == getpass("Again: ") else b""
