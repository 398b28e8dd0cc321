"""What the commands share: exit codes, error lines, the configuration's file, the store's path, new secret files."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.config.model import Loaded
    from relay.config.partial import Control

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2
DEFAULT_CONFIG = "config/relay.yaml"
NOT_READ = "not read: every command takes it"
"""the help of `-c`, of a command that needs no configuration"""
CONFIG_VARIABLE = "OTP_RELAY_CONFIG"

Command = Callable[[argparse.Namespace], int]
"""A command: its arguments → its exit code"""


class CommandFailed(Exception):
    """The command can't do what was asked for. The text is one line for the operator."""

    def __init__(self, text: str, code: int = EXIT_FAILED) -> None:
        super().__init__(text)
        self.code = code


def add_config(
    parser: argparse.ArgumentParser, text: str = f"the configuration (default: ${CONFIG_VARIABLE}, or {DEFAULT_CONFIG})"
) -> None:
    """Add the option `-c`, with a text for its help."""
    parser.add_argument(
        "-c",
        "--config",
        metavar="FILE",
        type=Path,
        help=text,
    )


def set_command(parser: argparse.ArgumentParser, command: Command) -> None:
    """Let the parser's arguments run a command, with failures as one line on stderr and an exit code."""
    parser.set_defaults(run=_run, command=command)


def _run(args: argparse.Namespace) -> int:
    """The command's exit code; 1 for a store that can't be used, 2 for arguments that make no sense."""
    command: Command = args.command
    try:
        return command(args)
    except CommandFailed as error:
        return fail(str(error), error.code)
    except Exception as error:
        from relay.store.base import StoreError
        from relay.web.query import BadQuery

        if isinstance(error, BadQuery):
            return fail(str(error), EXIT_USAGE)
        if isinstance(error, StoreError | PermissionError):
            return fail(_store_failure(error, args))
        raise


def fail(text: str, code: int = EXIT_FAILED) -> int:
    """Print one line on stderr. Returns the exit code."""
    print(f"otp-relay: {text}", file=sys.stderr)
    return code


def configured_duration(ms: float) -> str:
    """As a configuration has it: `10m`, `300ms`."""
    for unit, length_ms in (("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000)):
        if ms >= length_ms and ms % length_ms == 0:
            return f"{ms / length_ms:.0f}{unit}"
    return f"{ms:.0f}ms"


STDIN = "-"
"""as the name of a file"""


def content_of(file: str, most_bytes: int) -> bytes:
    """The first bytes of a file, or of stdin. Raises OSError."""
    if file == STDIN:
        return sys.stdin.buffer.read(most_bytes)
    with Path(file).open("rb") as source:
        return source.read(most_bytes)


def printable(text: str) -> str:
    """A text from outside (mail, DNS, upstreams) for a terminal: one line, without control characters."""
    return "".join(char if char.isprintable() else "�" for char in text)


def config_path(args: argparse.Namespace) -> Path:
    """The configuration's file: from -c, else from the environment, else the default."""
    given: Path | None = args.config
    return given if given is not None else Path(os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG)


def load_or_exit(path: Path, *, may_lack_users: bool = False) -> Loaded:
    """The configuration. If it has errors, print each on a line of stderr and exit with 2. `may_lack_users`: see
    `load`."""
    from relay.config.errors import ConfigErrors
    from relay.config.load import load

    try:
        return load(path, os.environ, may_lack_users=may_lack_users)
    except ConfigErrors as errors:
        missing = errors.errors[0].message == "no such file"
        print(f"{errors}{hint_on_path(path) if missing else ''}", file=sys.stderr)
        raise SystemExit(EXIT_USAGE) from None


def hint_on_path(path: Path) -> str:
    """How to name another file, behind an error about one that is missing; '' for one that was named with -c."""
    if os.environ.get(CONFIG_VARIABLE) and path == Path(os.environ[CONFIG_VARIABLE]):
        return f" (named by ${CONFIG_VARIABLE})"
    return f"; name it with -c FILE or ${CONFIG_VARIABLE}" if path == Path(DEFAULT_CONFIG) else ""


def store_path(args: argparse.Namespace) -> Path:
    """The store's path. The rest of the configuration is loaded only if the path can't be read without it."""
    from relay.config.partial import find_store

    path = config_path(args)
    return find_store(path, os.environ) or load_or_exit(path).config.store


def control(args: argparse.Namespace) -> Control:
    """The store's path and the HTTP service. The rest of the configuration is loaded as in `store_path`."""
    from relay.config.partial import Control, find_control

    path = config_path(args)
    if (found := find_control(path, os.environ)) is not None:
        return found
    loaded = load_or_exit(path)
    http, hashed = loaded.config.http, loaded.config.log.addresses == "hashed"
    token = None if http.token is None else http.token.get_secret_value()
    return Control(loaded.config.store, hashed, http.address, token, loaded.places)


def unknown_lane(args: argparse.Namespace) -> str | None:
    """An error text if `--lane` names a lane that the configuration doesn't have."""
    from relay.config.partial import find_lanes

    lanes = find_lanes(config_path(args), os.environ)
    if args.lane is None or not lanes or args.lane in lanes:
        return None
    return f"there is no lane {args.lane}; there are {', '.join(lanes)}"


def write_secret(path: Path, data: bytes) -> None:
    """Write a new file with mode 0600, in a folder that is made if it is missing. Raises CommandFailed; an existing
    file is never overwritten."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise CommandFailed(f"{path} exists; it is left as it is", EXIT_USAGE) from None
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", EXIT_USAGE) from None


def _store_failure(error: Exception, args: argparse.Namespace) -> str:
    """Why the store can't be used; what to do, if this user lacks the permissions."""
    from relay.store.sqlite.files import is_denial

    return _permission_denied(args) if is_denial(error) and not _may_use(store_path(args)) else str(error)


def _permission_denied(args: argparse.Namespace) -> str:
    from relay.config.partial import find_contact

    text = "permission denied: run it as root or as the relay's user"
    contact = find_contact(config_path(args), os.environ)
    if not contact.asks_for_token:  # then the API answers root and the relay's user only
        return text
    is_url = ":" in contact.address and not contact.address.startswith(("unix:", "systemd:"))
    return f"{text}, or ask {f'http://{contact.address}/' if is_url else contact.address} with its token"


def _may_use(store: Path) -> bool:
    """Whether this user may read and write all of the store's files. SQLite writes beside a file even to read it."""
    try:
        files = [path for path in store.parent.iterdir() if path.name.startswith(store.stem)]
    except OSError as error:
        return not isinstance(error, PermissionError)
    return all(os.access(path, os.R_OK | os.W_OK, effective_ids=True) for path in (store.parent, *files))
