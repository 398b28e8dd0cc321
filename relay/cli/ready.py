"""`otp-relay ready`: whether the running relay takes mail, for health checks and for scripts that wait for it."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING, NamedTuple

from relay.cli.common import (
    EXIT_OK,
    CommandFailed,
    add_config,
    config_path,
    configured_duration,
    hint_on_path,
    printable,
    set_command,
)
from relay.cli.source import add_url, server

if TYPE_CHECKING:
    from relay.config.network import AnyAddress
    from relay.web.client import Url

ANSWER_WITHIN_S = 4.0
"""of one request: health checks give up after 5 s"""
PAUSE_S = 0.2
"""between two requests of `--wait`"""


def wait_s(text: str) -> float:
    """The seconds of `--wait`, which is a duration such as `30s`. Raises argparse.ArgumentTypeError."""
    from relay.config.parse import parse_duration_or_zero

    try:
        return parse_duration_or_zero(text, None)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class Readiness(NamedTuple):
    """`reasons`: why it isn't ready; empty: it is."""

    reasons: tuple[str, ...] = ()


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "ready",
        help="ask whether the running relay takes mail",
        description="Asks /readyz of the running relay at `http.address`. Exit 0: it takes mail; 1: it doesn't, or "
        "none runs, and the reason is on stderr. Of the configuration only that address is read.",
    )
    parser.add_argument(
        "--wait", type=wait_s, metavar="TIME", default=0.0, help="ask again until it is ready, for so long (30s)"
    )
    add_config(parser)
    add_url(parser)
    set_command(parser, ready)


def ready(args: argparse.Namespace) -> int:
    """Exit 0, or 1 with the reason. Never 2: for a health check of a container that is reserved."""
    address = _address(args)
    ends_at = time.monotonic() + args.wait
    while True:
        left_s = ends_at - time.monotonic()
        found = ask(address, ANSWER_WITHIN_S if not args.wait else min(ANSWER_WITHIN_S, max(left_s, PAUSE_S)))
        if not found.reasons:
            print("ready")
            return EXIT_OK
        if time.monotonic() + PAUSE_S > ends_at:
            waited = f" (waited {configured_duration(args.wait * 1000)})" if args.wait else ""
            raise CommandFailed(printable(f"not ready: {'; '.join(found.reasons)}{waited}"))
        time.sleep(PAUSE_S)


def _address(args: argparse.Namespace) -> AnyAddress | Url:
    """Raises CommandFailed."""
    from relay.config.partial import find_http

    try:
        there = server(args)
    except CommandFailed as error:
        raise CommandFailed(str(error)) from None
    if there is not None:
        return there.address
    path = config_path(args)
    try:
        return find_http(path, os.environ)
    except ValueError as error:
        hint = "" if os.path.exists(path) else hint_on_path(path)
        raise CommandFailed(printable(f"not ready: {error}{hint}")) from None


def ask(address: AnyAddress | Url, within_s: float) -> Readiness:
    """The answer of the relay at `address`. `within_s`: of each network step. Raises CommandFailed for an address that
    can't be asked."""
    from relay.web.client import NoResponse, NotListening, request

    try:
        response = request(address, "GET", "/readyz", within_s=within_s)
    except NotListening:
        return Readiness((f"no relay answers at {address}",))
    except NoResponse as error:
        return Readiness((f"{address}: no proper answer ({error})",))
    except ValueError as error:
        raise CommandFailed(f"not ready: {error}") from None
    reasons = response.document.get("reasons")
    if not isinstance(reasons, list):
        return Readiness((f"{address}: {response.status}, and no answer of a relay",))
    if reasons or response.status != 200:
        return Readiness(tuple(map(str, reasons)) or (f"{address}: {response.status}",))
    return Readiness()
