"""Access tokens of an upstream: one source, which every session shares and which renews them before they expire."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from relay.config.access import OAuth2, endpoint
from relay.config.model import Upstream
from relay.config.named_file import read_named_file
from relay.config.network import is_loopback
from relay.mail.reply import Reply
from relay.providers.api import Answer
from relay.providers.oauth2 import (
    Refused,
    ServiceAccount,
    Settings,
    Token,
    default_device_url,
    read_service_account,
    read_token,
    token_form,
)
from relay.supervise import Supervisor
from relay.upstream.http.fetch import Fetch, FetchFailed, fetch
from relay.upstream.oauth_file import TokenFile, TokenFileError
from relay.upstream.results import OpenFailed
from relay.upstream.server import verifying_context

RETRY_S = (1.0, 5.0, 15.0, 60.0)
"""after a failed fetch; the last repeats, and is the only one where asking again is of no use"""
RETRY_WITHOUT_TOKEN_S = 15.0
"""the longest of them while there is no valid token: a recovered upstream is preferred again within 30 s"""
FETCH_WITHIN_S = 20.0
RENEWED_SHARE = 0.8
RENEWED_BEFORE_S = 300.0
"""A token is renewed at this share of its life, or so long before its end, whichever comes first"""

Fetcher = Callable[[Fetch], Awaitable[Answer]]
"""Raises FetchFailed"""


class Tokens(Protocol):
    """Where sessions get their access tokens."""

    @property
    def expires_at(self) -> float | None:
        """When the token that is in use expires, in seconds since the epoch; None: there is none."""

    async def token(self) -> str:
        """A valid token. It waits for a fetch only where there is none. Raises OpenFailed."""

    async def renewed(self, refused: str) -> str:
        """Another token, after the server refused this one. All that ask about the same one share a fetch. Raises
        OpenFailed."""


def unavailable(reason: str) -> OpenFailed:
    """There is no access token."""
    return OpenFailed("auth", Reply.own(454, "4.7.0", f"no access token: {reason}"))


def settings_of(upstream: Upstream) -> Settings:
    """Where the tokens of an upstream with `oauth2` come from. Reads the key file of a service account. Raises
    ValueError with one line."""
    given = upstream.oauth2
    if given is None:
        raise ValueError("the upstream has no oauth2")
    account = _account(given) if given.grant == "jwt_bearer" else None
    token_url = given.token_url or (account.token_url if account is not None else "")
    if account is not None and not _is_safe(token_url):
        raise ValueError(f"token_uri in {given.service_account_file}: expected an https URL")
    return Settings(
        grant=given.grant,
        token_url=token_url,
        client_id=given.client_id or "",
        client_secret=given.client_secret.get_secret_value() if given.client_secret is not None else "",
        scope=given.scope or "",
        subject=(given.subject or upstream.username or "") if account is not None else "",
        service_account=account,
        device_url=given.device_url or default_device_url(token_url),
    )


def configured_refresh_token(upstream: Upstream) -> str | None:
    """The first refresh token, as configured."""
    given = upstream.oauth2
    return None if given is None or given.refresh_token is None else given.refresh_token.get_secret_value()


def fetcher_of(upstream: Upstream) -> Fetcher:
    """Asks over the upstream's proxy. Its `ca_file` is trusted beside the system's CAs: the mail server may have a
    private one, and the token endpoint a public one. Raises ValueError for a `ca_file` that can't be read."""
    context = None
    if upstream.ca_file is not None:
        try:
            context = verifying_context()
            context.load_verify_locations(str(upstream.ca_file))
        except OSError as error:
            raise ValueError(f"{upstream.ca_file}: {error.strerror or 'unreadable'}") from None
    proxy = None if upstream.proxy is None else upstream.proxy.get_secret_value()
    return partial(fetch, within_s=FETCH_WITHIN_S, tls_context=context, proxy=proxy)


def _account(given: OAuth2) -> ServiceAccount:
    path = given.service_account_file
    if path is None:
        raise ValueError("service_account_file is missing")
    try:
        return read_service_account(read_named_file(path))
    except ValueError as error:
        text = str(error)
        raise ValueError(text if str(path) in text else f"{path}: {text}") from None


def _is_safe(url: str) -> bool:
    """Whether a secret may be sent there. `check` has looked at the URLs in the configuration."""
    try:
        where = endpoint(url)
    except ValueError:
        return False
    return where.is_secure or is_loopback(where.host)


def renewal_after_s(life_s: float) -> float:
    """How long after its fetch a token is renewed. One of a short life isn't renewed before half of it: five minutes
    before its end would be at once."""
    return max(min(life_s * RENEWED_SHARE, life_s - RENEWED_BEFORE_S), life_s / 2, 1.0)


class TokenSource:
    """Fetches an upstream's tokens in a background task, and answers from memory. One fetch is under way at a time."""

    def __init__(
        self,
        name: str,
        settings: Settings,
        fetch: Fetcher,
        supervisor: Supervisor,
        *,
        file: TokenFile | None = None,
        on_failure: Callable[[str], None] = lambda _reason: None,
        now: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`name`: the upstream's. `file`: of the refresh tokens, for that grant. `on_failure` gets the reason of each
        failed fetch; it may be logged. `now`: seconds since the epoch."""
        self.settings = settings
        self._name = name
        self._fetch = fetch
        self._supervisor = supervisor
        self._file = file if settings.grant == "refresh_token" else None
        self._on_failure = on_failure
        self._now = now
        self._sleep = sleep
        self._token: Token | None = None
        self._failure: str | None = None
        """why the last fetch failed; None: it didn't, or there was none"""
        self._failures = 0
        """in a row"""
        self._wait_s = 0.0
        """until the next fetch"""
        self._unwritten: tuple[str, str | None] | None = None
        """a rotated refresh token that couldn't be written, and the one that it was got with"""
        self._wanted = asyncio.Event()
        """don't wait for the next fetch's time"""
        self._ended = asyncio.Event()
        """the fetch that is under way, or the next one, has ended; another event then takes its place"""
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    def __repr__(self) -> str:
        return f"TokenSource({self._name!r})"

    @property
    def expires_at(self) -> float | None:
        return None if self._token is None else self._token.expires_at

    @property
    def failure(self) -> str | None:
        """Why the last fetch failed; None: it didn't. It may be shown."""
        return self._failure

    def start(self) -> None:
        """Fetch the first token, and go on renewing it. Does nothing where it runs already, or was closed."""
        if self._task is None and not self._closed:
            self._task = self._supervisor.run_forever(f"oauth {self._name}", self._run)

    async def close(self) -> None:
        """End the task. What waits for a token raises OpenFailed."""
        self._closed, self._failure = True, "shutting down"
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        self._ended.set()

    async def token(self) -> str:
        """See `Tokens`. While fetches fail, the old token is used for as long as it is valid."""
        valid = self._valid()
        if valid is None and self._failure is None:
            await self._fetched()
            valid = self._valid()
        if valid is None:
            raise unavailable(self._failure or "it expired at once")
        return valid

    async def renewed(self, refused: str) -> str:
        """See `Tokens`. While fetches fail, it raises at once: they go on in the background."""
        valid = self._valid()
        if valid is not None and valid != refused:
            return valid
        if self._failure is None:
            await self._fetched()
            valid = self._valid()
        if valid is None or self._failure is not None:
            raise unavailable(self._failure or "it expired at once")
        if valid == refused:
            raise unavailable("the server gives the refused one again")
        return valid

    def _valid(self) -> str | None:
        token = self._token
        return token.access_token if token is not None and self._now() < token.expires_at else None

    async def _fetched(self) -> None:
        """Wait for the end of the fetch that is under way, or of one that begins now."""
        self._wanted.set()
        await self._ended.wait()

    async def _run(self) -> None:
        while True:
            await self._wait()
            try:
                await self._round()
            except Exception:
                self._failed("internal error", permanent=False)
                raise
            finally:
                self._wanted.clear()
                ended, self._ended = self._ended, asyncio.Event()
                ended.set()

    async def _wait(self) -> None:
        """Until the next fetch's time, or until one is wanted."""
        sleeping = asyncio.ensure_future(self._sleep(self._wait_s))
        wanted = asyncio.ensure_future(self._wanted.wait())
        try:
            await asyncio.wait((sleeping, wanted), return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (sleeping, wanted):
                task.cancel()
            await asyncio.gather(sleeping, wanted, return_exceptions=True)

    async def _round(self) -> None:
        """One fetch."""
        try:
            if self._unwritten is not None:
                # The server may take the old refresh token no more, and the new one isn't used before it is durable.
                await self._keep(*self._unwritten)
            refresh_token = await self._refresh_token()
            began = self._now()
            form = token_form(self.settings, refresh_token, began)
            answer = await self._fetch(Fetch(form.url, "POST", form.headers, form.body))
        except FetchFailed as error:
            self._failed(str(error), permanent=False)
            return
        except (TokenFileError, ValueError) as error:
            self._failed(str(error), permanent=True)
            return
        match read_token(answer, began):
            case Refused(reason, permanent):
                self._failed(reason, permanent=permanent)
            case Token() as token:
                await self._take(token, refresh_token, began)

    async def _refresh_token(self) -> str | None:
        """The newest; a login may have written another one since. Raises TokenFileError."""
        if self._file is None:
            return None
        newest = await asyncio.to_thread(self._file.newest)
        if newest is None:
            raise TokenFileError(f"there is no refresh token; run otp-relay oauth login {self._name}")
        return newest

    async def _take(self, token: Token, used: str | None, began: float) -> None:
        """Put a new token to use. Where its refresh token can't be written, mail goes on with the access token."""
        failure = None
        if self._file is not None and token.refresh_token not in (None, used):
            assert token.refresh_token is not None
            self._unwritten = token.refresh_token, used
            try:
                await self._keep(*self._unwritten)
            except TokenFileError as error:
                failure = str(error)
        self._token = token
        if failure is not None:
            self._failed(failure, permanent=False)
            return
        self._failure, self._failures = None, 0
        self._wait_s = renewal_after_s(token.expires_at - began)

    async def _keep(self, refresh_token: str, used: str | None) -> None:
        """Raises TokenFileError."""
        assert self._file is not None
        await asyncio.to_thread(self._file.keep, refresh_token, used=used)
        self._unwritten = None

    def _failed(self, reason: str, *, permanent: bool) -> None:
        wait_s = RETRY_S[-1] if permanent else RETRY_S[min(self._failures, len(RETRY_S) - 1)]
        left_s = self._token.expires_at - self._now() if self._token is not None else 0.0
        # A client secret that was just made may be refused for a while.
        wait_s = min(wait_s, max(left_s, RETRY_WITHOUT_TOKEN_S))
        self._wait_s, self._failure = wait_s, reason
        self._failures += 1
        with contextlib.suppress(Exception):
            self._on_failure(reason)
