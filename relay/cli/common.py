"""What the commands share: where the configuration is, and what happens when it is wrong."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.config.model import Loaded

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
    from relay.config.place import find_store

    path = config_path(args)
    return find_store(path, os.environ) or load_or_exit(path).config.store


def write_secret(path: Path, data: bytes) -> None:
    """A new file, 0600 from its first moment. Raises FileExistsError, OSError."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def load_or_exit(path: Path) -> Loaded:
    """The configuration; or every mistake in it, a line each on stderr, and exit 2."""
    from relay.config.errors import ConfigErrors
    from relay.config.load import load

    try:
        return load(path, os.environ)
    except ConfigErrors as errors:
        print(errors, file=sys.stderr)
        raise SystemExit(EXIT_CONFIG) from None
