"""What the commands share: where the configuration is, and what happens when it is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.config.model import Loaded
    from relay.config.partial import Control

DEFAULT_CONFIG = "config/relay.yaml"
CONFIG_VARIABLE = "OTP_RELAY_CONFIG"
EXIT_CONFIG = 2


class Refused(Exception):
    """What was asked for could not be done; the text is one line for the operator."""


def add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help=f"the configuration (default: ${CONFIG_VARIABLE}, or {DEFAULT_CONFIG})",
    )


def config_path(args: argparse.Namespace) -> Path:
    """What -c says, else the environment, else the default."""
    given: Path | None = args.config
    return given if given is not None else Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def store_path(args: argparse.Namespace) -> Path:
    """Where the store is. The rest of the configuration is looked at only where that can't be told without; then as
    `load_or_exit` does."""
    from relay.config.partial import find_store

    path = config_path(args)
    return find_store(path, os.environ) or load_or_exit(path).config.store


def control(args: argparse.Namespace) -> Control:
    """Where the store and the relay's HTTP service are; the rest of the configuration as in `store_path`."""
    from relay.config.partial import Control, find_control

    path = config_path(args)
    if (found := find_control(path, os.environ)) is not None:
        return found
    loaded = load_or_exit(path)
    http, hashed = loaded.config.http, loaded.config.log.addresses == "hashed"
    token = None if http.token is None else http.token.get_secret_value()
    return Control(loaded.config.store, hashed, http.address, token, loaded.places)


def told(error: Exception, args: argparse.Namespace) -> str:
    """One line about a store that can't be used; what to do, where this user has no right to it."""
    from relay.store.sqlite.files import is_denial

    return _denied(args) if is_denial(error) and not _may_use(store_path(args)) else str(error)


def _denied(args: argparse.Namespace) -> str:
    from relay.config.partial import find_contact

    denied = "permission denied: run it as root or as the relay's user"
    contact = find_contact(config_path(args), os.environ)
    if not contact.asks_for_token:  # then the API answers root and the relay's user only
        return denied
    is_url = ":" in contact.address and not contact.address.startswith(("unix:", "systemd:"))
    return f"{denied}, or ask {f'http://{contact.address}/' if is_url else contact.address} with its token"


def _may_use(store: Path) -> bool:
    """May this user read and write all of the store's files? To read one, SQLite writes beside it."""
    try:
        files = [path for path in store.parent.iterdir() if path.name.startswith(store.stem)]
    except OSError as error:
        return not isinstance(error, PermissionError)
    return all(os.access(path, os.R_OK | os.W_OK, effective_ids=True) for path in (store.parent, *files))


def write_secret(path: Path, data: bytes) -> None:
    """A new file, 0600 from its first moment. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def load_or_exit(path: Path, *, may_lack_users: bool = False) -> Loaded:
    """The configuration; or every mistake in it, a line each on stderr, and exit 2. `may_lack_users`: see `load`."""
    from relay.config.errors import ConfigErrors
    from relay.config.load import load

    try:
        return load(path, os.environ, may_lack_users=may_lack_users)
    except ConfigErrors as errors:
        missing = errors.errors[0].message == "no such file"
        print(f"{errors}{_how_named(path) if missing else ''}", file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None


def _how_named(path: Path) -> str:
    """Behind a configuration that isn't there: how it is named, where -c didn't name it."""
    if os.environ.get(CONFIG_VARIABLE) and path == Path(os.environ[CONFIG_VARIABLE]):
        return f" (named by ${CONFIG_VARIABLE})"
    return f"; name it with -c FILE or ${CONFIG_VARIABLE}" if path == Path(DEFAULT_CONFIG) else ""


def no_such_lane(lane: str, args: argparse.Namespace) -> str | None:
    """What to say where nothing was found of a lane that the configuration doesn't have; None: it has it, or that
    isn't plain to see."""
    from relay.config.partial import find_lanes

    lanes = find_lanes(config_path(args), os.environ)
    if not lanes or lane in lanes:
        return None
    return f"there is no lane {lane}; there are {', '.join(lanes)}"
