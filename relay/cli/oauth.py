"""`otp-relay oauth login`: a person lets the relay send in their name, from any device with a browser (RFC 8628)."""

from __future__ import annotations

import argparse
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from relay.cli.common import EXIT_OK, CommandFailed, add_config, config_path, fail, load_or_exit, set_command

if TYPE_CHECKING:
    from relay.config.model import Config, Upstream
    from relay.providers.api import Answer
    from relay.providers.oauth2 import DeviceCode, Form, Settings
    from relay.upstream.oauth import Fetcher

_MOST_INTERVAL_S = 60.0


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "oauth", help="log in at a provider", description="Manages OAuth 2 logins of upstreams with `auth: xoauth2`."
    )
    actions = parser.add_subparsers(title="actions", metavar="ACTION", required=True)
    login_parser = actions.add_parser(
        "login",
        help="log in with a browser, on any device",
        description="Prints a URL and a code to enter there, waits for the login, and keeps the refresh token in a "
        "file beside the store. A running relay uses it within a minute.",
    )
    add_config(login_parser)
    login_parser.add_argument("upstream", metavar="UPSTREAM", help="its name in the configuration")
    set_command(login_parser, login)


def login(args: argparse.Namespace) -> int:
    """Exit 0; or 1, and nothing is changed."""
    import asyncio

    from relay.upstream.oauth import configured_refresh_token, fetcher_of, settings_of
    from relay.upstream.oauth_file import TokenFileError, token_file

    config = load_or_exit(config_path(args)).config
    upstream = _upstream(config, args.upstream)
    try:
        settings = settings_of(upstream)
        if settings.device_url is None:
            raise CommandFailed(f"upstreams.{args.upstream}.oauth2.device_url is missing")
        kept = token_file(config.store, args.upstream, configured_refresh_token(upstream))
        kept.newest()  # before a person logs in for nothing
        kept.replace(asyncio.run(refresh_token_of_login(settings, fetcher_of(upstream), _show, asyncio.sleep)))
    except (TokenFileError, ValueError) as error:
        raise CommandFailed(str(error)) from None
    print(f"logged in; the refresh token is in {kept.path}")
    return EXIT_OK


def _upstream(config: Config, name: str) -> Upstream:
    upstream = config.upstreams.get(name)
    if upstream is None:
        raise CommandFailed(f"there is no upstream {name}; there are {', '.join(config.upstreams)}")
    if upstream.oauth2 is None:
        raise CommandFailed(f"upstream {name} has no oauth2")
    if upstream.oauth2.grant != "refresh_token":
        raise CommandFailed(f"upstream {name} needs no login: its grant is {upstream.oauth2.grant}")
    return upstream


def _show(code: DeviceCode) -> None:
    # Flushed: the wait for the person comes next, and stdout may be a pipe.
    print(f"Open    {code.verification_url}\nEnter   {code.user_code}", flush=True)
    if code.complete_url is not None:
        print(f"or open {code.complete_url}", flush=True)


async def refresh_token_of_login(
    settings: Settings,
    fetch: Fetcher,
    show: Callable[[DeviceCode], None],
    sleep: Callable[[float], Awaitable[None]],
    now: Callable[[], float] = time.time,
) -> str:
    """Begin a login, `show` its code to the person, and wait for them. Raises CommandFailed."""
    from relay.providers.oauth2 import (
        SLOWER_S,
        Pending,
        Refused,
        Token,
        device_form,
        device_token_form,
        read_device_code,
        read_poll,
    )
    from relay.upstream.http.fetch import FetchFailed

    try:
        code = read_device_code(await _ask(fetch, device_form(settings)), now())
    except FetchFailed as error:
        raise CommandFailed(f"no login: {error}") from None
    if isinstance(code, Refused):
        raise CommandFailed(f"no login: {code.reason}")
    show(code)
    interval_s, told = code.interval_s, False
    while True:
        await sleep(interval_s)
        if now() >= code.expires_at:
            raise CommandFailed("no login: the code has expired; run the command again")
        try:
            found = read_poll(await _ask(fetch, device_token_form(settings, code.device_code)), now())
        except FetchFailed as error:
            if not told:
                fail(f"no answer: {error}; asking again until the code expires")
                told = True
            interval_s = min(interval_s * 2, _MOST_INTERVAL_S)  # RFC 8628 3.5
            continue
        match found:
            case Pending(slow_down=True):
                interval_s += SLOWER_S
            case Refused(reason, permanent=True):
                raise CommandFailed(f"no login: {reason}")
            case Token(refresh_token=None):
                raise CommandFailed("the answer has no refresh token; does oauth2.scope name offline_access?")
            case Token(refresh_token=str() as refresh_token):
                return refresh_token


async def _ask(fetch: Fetcher, form: Form) -> Answer:
    from relay.upstream.http.fetch import Fetch

    return await fetch(Fetch(form.url, "POST", form.headers, form.body))
