"""AWS credentials for SES's API: those of the configuration, or temporary ones that are renewed in the background."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from relay.config.named_file import read_named_file
from relay.providers.api import Answer, Credentials
from relay.providers.apis.aws_chain import (
    Container,
    Exchange,
    Fixed,
    Instance,
    Refusal,
    Temporary,
    WebIdentity,
    renewal_at,
    source_of,
)
from relay.providers.reading import line
from relay.supervise import Supervisor
from relay.upstream.http.fetch import Fetch, FetchFailed, fetch

PAUSES_S = (1.0, 2.0, 5.0, 15.0, 60.0)
"""after each failure, before the source is asked again; the last one repeats"""
LOCAL_WITHIN_S = 2.0
"""for one request to a service of this machine; each source needs at most three"""
STS_WITHIN_S = 10.0
MARGIN_S = 10.0
"""Credentials aren't used this close to their end: the request must arrive before it."""
_LONGEST_SLEEP_S = 60.0
"""The time of day may be set meanwhile, and the machine suspended."""


class CredentialsUnavailable(Exception):
    """There are no valid credentials. The text is one line that may be logged: it holds no key and no token."""


class Fetcher(Protocol):
    """`relay.upstream.http.fetch.fetch`, or a test's."""

    async def __call__(
        self, what: Fetch, *, within_s: float, tls_context: ssl.SSLContext | None = None, proxy: str | None = None
    ) -> Answer: ...


class AwsCredentials:
    """Credentials of the environment, the web identity, the container or the instance. Belongs to one event loop."""

    def __init__(
        self,
        environ: Mapping[str, str],
        region: str,
        supervisor: Supervisor,
        *,
        fetcher: Fetcher = fetch,
        failed: Callable[[str], None] = lambda _: None,
        tls_context: ssl.SSLContext | None = None,
        proxy: str | None = None,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`environ` is read once. `failed` is called with a line for the log when a renewal fails, again only once
        the reason is another. `tls_context`, `proxy`: for STS; a service of this machine is never asked through a
        proxy. `clock`: the machine's time of day, which AWS compares with its own."""
        self._source = source_of(environ, region)
        self._supervisor = supervisor
        self._fetcher = fetcher
        self._failed = failed
        self._tls_context = tls_context
        self._proxy = proxy
        self._clock = clock
        self._sleep = sleep
        self._temporary: Temporary | None = None
        self._due_at = 0.0
        self._failures = 0
        self._failure = ""
        self._renewal: asyncio.Task[None] | None = None
        self._keeper: asyncio.Task[None] | None = None
        self._is_closed = False

    def start(self) -> None:
        """Fetch the first credentials, and renew them ahead of their end until `close`."""
        if self._keeper is None:
            self._keeper = self._supervisor.run_forever("aws credentials", self._keep)

    async def close(self) -> None:
        """End the renewal. A call of `current` that waits raises CredentialsUnavailable."""
        self._is_closed = True
        tasks = [task for task in (self._keeper, self._renewal) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def current(self) -> Credentials:
        """Credentials that are valid now. It waits only where there are none: for the first ones, or past the end.

        Raises CredentialsUnavailable; within the pause after a failure at once.
        """
        valid = self._valid()
        if valid is None:
            if not self._is_pausing():
                await self._renewed()
            valid = self._valid()
        elif self._clock() >= self._due_at and not self._is_closed:
            # The keeper is late: the machine was suspended, or its clock set.
            self._renew()
        if valid is None:
            raise CredentialsUnavailable(self._failure or "the credentials expired on their way here")
        return valid

    def _valid(self) -> Credentials | None:
        held = self._temporary
        return held.credentials if held is not None and self._clock() < held.expires_at - MARGIN_S else None

    def _is_pausing(self) -> bool:
        """Whether the last attempt failed a moment ago. A clock that is set back doesn't prolong the pause."""
        return self._failures > 0 and 0 < self._due_at - self._clock() <= PAUSES_S[-1]

    async def _keep(self) -> None:
        while True:
            wait_s = self._due_at - self._clock()
            if wait_s > 0:
                await self._sleep(min(wait_s, _LONGEST_SLEEP_S))
            else:
                await self._renewed()

    async def _renewed(self) -> None:
        """Until the renewal in flight has ended, well or not. Being cancelled doesn't end it: others wait, too."""
        if self._is_closed:
            raise CredentialsUnavailable("the relay is stopping")
        renewal = self._renew()
        await asyncio.wait((renewal,))
        if renewal.cancelled():
            raise CredentialsUnavailable("the relay is stopping")
        renewal.result()

    def _renew(self) -> asyncio.Task[None]:
        """The renewal in flight; a new one where there is none."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._attempt(), name="aws renewal")
        return self._renewal

    async def _attempt(self) -> None:
        outcome = await self._obtain()
        now = self._clock()
        match outcome:
            case Temporary(expires_at=expires_at):
                self._temporary = outcome
                self._failures, self._failure = 0, ""
                self._due_at = renewal_at(now, expires_at)
            case Refusal(reason):
                is_news = reason != self._failure
                self._due_at = now + PAUSES_S[min(self._failures, len(PAUSES_S) - 1)]
                self._failures, self._failure = self._failures + 1, reason
                if is_news:
                    self._failed(reason)

    async def _obtain(self) -> Temporary | Refusal:
        """Ask the source once."""
        match self._source:
            case Fixed(credentials):
                return Temporary(credentials, float("inf"))
            case Refusal() as refusal:
                return refusal
            case source:
                try:
                    token = await _token(source)
                except ValueError as error:
                    return Refusal(line(str(error)) or "the token file can't be read")
                return await self._ask(source.name, source.exchange(token, self._clock()), is_local=source.is_local)

    async def _ask(self, name: str, exchange: Exchange, *, is_local: bool) -> Temporary | Refusal:
        """Carry out the requests of an exchange."""
        try:
            request = next(exchange)
            while True:
                what = Fetch(request.url, request.method, request.headers, request.body)
                if is_local:
                    answer = await self._fetcher(what, within_s=LOCAL_WITHIN_S)
                else:
                    answer = await self._fetcher(
                        what, within_s=STS_WITHIN_S, tls_context=self._tls_context, proxy=self._proxy
                    )
                request = exchange.send(answer)
        except StopIteration as end:
            outcome: Temporary | Refusal = end.value
            return outcome
        except FetchFailed as error:
            return Refusal(f"{name}: {error}")


async def _token(source: WebIdentity | Container | Instance) -> str:
    """What the source is shown; '': nothing. Raises ValueError with a line for the log: its file can't be read."""
    match source:
        case WebIdentity(token_file=path) | Container(token_file=path) if path:
            content = await asyncio.to_thread(read_named_file, Path(path))
            # No token has other bytes; the source refuses one that has.
            return content.decode("ascii", "replace")
        case Container(token=token):
            return token
    return ""
