"""Where the commands that show mail read: the store's files, or a relay elsewhere by its URL."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from relay.cli.common import CONFIG_VARIABLE, EXIT_USAGE, CommandFailed, config_path, control, store_path

if TYPE_CHECKING:
    from relay.config.network import AnyAddress
    from relay.config.partial import Control
    from relay.store.model import LaneCount
    from relay.store.search_text import Found
    from relay.web.client import Url

URL_VARIABLE = "OTP_RELAY_URL"
TOKEN_VARIABLE, TOKEN_FILE_VARIABLE = "OTP_RELAY_TOKEN", "OTP_RELAY_TOKEN_FILE"
UNAUTHORIZED = 401
Json = Mapping[str, Any]
Filters = Mapping[str, str]
"""as `web.query` reads them"""


class Server(NamedTuple):
    """A relay elsewhere, and the token for it."""

    address: Url
    token: str | None = None


class Source(Protocol):
    """What a relay's log, queue and events show. Each call raises CommandFailed, BadQuery or StoreError."""

    def message(self, begin: str) -> Json | None:
        """The message whose id is, or begins with, this. Raises CommandFailed where several do."""

    def find(self, filters: Filters) -> Found:
        """Messages, newest first."""

    def waiting(self, filters: Filters) -> tuple[Sequence[Json], Sequence[LaneCount]]:
        """Unfinished messages, earliest due first, and how many wait in all."""

    def report(self, since: str) -> Json:
        """As `/api/report` answers it."""

    def events(self, filters: Filters) -> Sequence[Json]:
        """Oldest first."""

    def news(self) -> Iterator[Sequence[Json]]:
        """The events that happen from now on, some at a time, and nothing from time to time; without end."""


def add_url(parser: argparse.ArgumentParser) -> None:
    """Add `--url` and `--token-file`."""
    parser.add_argument(
        "--url",
        metavar="URL",
        help=f"ask the relay there, such as https://relay.example.com:8025 (default: ${URL_VARIABLE}); its token comes "
        f"from --token-file, ${TOKEN_FILE_VARIABLE} or ${TOKEN_VARIABLE}",
    )
    parser.add_argument("--token-file", metavar="FILE", type=Path, help="a file with the token of --url in one line")


def open_source(args: argparse.Namespace) -> AbstractContextManager[Source]:
    """The relay that the arguments or the environment name by a URL, else the configuration's store."""
    if (there := server(args)) is not None:
        from relay.cli.remote import Remote

        return nullcontext(Remote(there))
    from relay.cli.offline import Offline

    return closing(Offline(store_path(args), config_path(args)))


def server(args: argparse.Namespace) -> Server | None:
    """The relay that is named by a URL. What the command line names goes before the environment. Raises CommandFailed.

    A token isn't taken from the command line, which every user of the machine can read.
    """
    url = args.url
    if url is None and args.config is None and not os.environ.get(CONFIG_VARIABLE):
        url = os.environ.get(URL_VARIABLE)
    if not url:
        return None
    from relay.web.client import parse_url

    try:
        address = parse_url(url)
    except ValueError as error:
        raise CommandFailed(f"{'--url' if args.url else f'${URL_VARIABLE}'}: {error}", EXIT_USAGE) from None
    return Server(address, _token(args))


def reached(args: argparse.Namespace) -> Control | Server:
    """What carries out a change: the relay that is named by a URL, else the configuration's. Raises CommandFailed."""
    return server(args) or control(args)


def contact(where: Control | Server) -> tuple[AnyAddress | Url | None, str | None]:
    """Its HTTP service, and the token for it. No address: the configuration's can't be read by itself."""
    return (where.address if isinstance(where, Server) else where.http), where.token


def token_hint(where: Control | Server, status: int) -> str:
    """Behind a refusal with that status: where its token comes from; '' where the token isn't the reason."""
    if status != UNAUTHORIZED:
        return ""
    place = (
        f"${TOKEN_VARIABLE} or --token-file has the token"
        if isinstance(where, Server)
        else where.places.of("http", "token")
    )
    return f" ({place})"


def _token(args: argparse.Namespace) -> str | None:
    file: Path | None = args.token_file
    if file is None and os.environ.get(TOKEN_FILE_VARIABLE):
        file = Path(os.environ[TOKEN_FILE_VARIABLE])
    if file is None:
        return os.environ.get(TOKEN_VARIABLE) or None
    try:
        return file.read_text(encoding="utf-8").strip() or None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise CommandFailed(f"{file}: {reason}", EXIT_USAGE) from None
