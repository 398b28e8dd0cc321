"""Where the upstreams' tokens and temporary credentials come from, in the process that fetches them.

Each source belongs to one upstream's account. It begins with its first use, and stays through a reload that changes
nothing of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from typing import NamedTuple

from relay.config.model import Upstream
from relay.mail.reply import Reply
from relay.providers.api import Credentials
from relay.supervise import Supervisor
from relay.upstream.http.aws import AwsCredentials, CredentialsUnavailable
from relay.upstream.oauth import Tokens, TokenSource, configured_refresh_token, fetcher_of, settings_of
from relay.upstream.oauth_file import token_file
from relay.upstream.results import OpenFailed
from relay.upstream.server import Contexts
from relay.upstream.target import CredentialSource

OnFailure = Callable[[str, str], None]
"""Gets an upstream's name and why its credentials can't be fetched; the reason may be logged."""


class LocalAccess:
    """`relay.upstream.target.Access`."""

    def __init__(self, supervisor: Supervisor, on_failure: OnFailure) -> None:
        self.store = Path("relay.db")
        """rotated refresh tokens are kept beside it"""
        self._supervisor = supervisor
        self._on_failure = on_failure
        self._tokens: dict[str, tuple[Hashable, _StartedTokens]] = {}
        self._aws: dict[str, tuple[Hashable, _StartedAws]] = {}

    def tokens(self, name: str, config: Upstream) -> Tokens:
        """Raises ValueError for a key file that can't be read."""
        settings = settings_of(config)
        key = (settings, configured_refresh_token(config), config.ca_file, config.proxy)
        known = self._tokens.get(name)
        if known is None or known[0] != key:
            file = token_file(self.store, name, configured_refresh_token(config))
            source = TokenSource(
                *(name, settings, fetcher_of(config), self._supervisor),
                file=file,
                on_failure=lambda reason: self._on_failure(name, reason),
            )
            known = self._tokens[name] = key, _StartedTokens(source, known[1] if known is not None else None)
        return known[1]

    def aws(self, name: str, config: Upstream) -> CredentialSource:
        key = (config.api.region, config.proxy)
        known = self._aws.get(name)
        if known is None or known[0] != key:
            source = AwsCredentials(
                *(os.environ, config.api.region or "", self._supervisor),
                failed=lambda reason: self._on_failure(name, reason),
                tls_context=Contexts().trusting(None),
                proxy=config.proxy.get_secret_value() if config.proxy is not None else None,
            )
            known = self._aws[name] = key, _StartedAws(source, known[1] if known is not None else None)
        return known[1]

    async def keep(self, names: Collection[str]) -> None:
        """End the sources of upstreams that are no longer configured."""
        for sources in (self._tokens, self._aws):
            for name in [one for one in sources if one not in names]:
                await sources.pop(name)[1].close()

    async def close(self) -> None:
        """End all of them."""
        await self.keep(())

    async def answer(self, asked: Asked) -> Given:
        """What a worker asks for."""
        try:
            if asked.kind == "token":
                source = self._tokens[asked.upstream][1]
                token = await (source.token() if asked.refused is None else source.renewed(asked.refused))
                return Given(Credentials(key=token))
            return Given(await self._aws[asked.upstream][1].current())
        except KeyError:
            return Given(None, "451 4.3.2 the upstream's credentials changed")
        except OpenFailed as failure:
            return Given(None, str(failure.reply))


class Asked(NamedTuple):
    """A request for credentials that another process fetches."""

    kind: str
    """`token` or `aws`"""
    upstream: str
    refused: str | None = None
    """the token that the server refused"""

    def __repr__(self) -> str:
        return f"Asked({self.kind!r}, {self.upstream!r})"


class Given(NamedTuple):
    """The answer."""

    credentials: Credentials | None
    failure: str = ""
    """a reply, where there are none"""

    def use(self) -> Credentials:
        """Raises OpenFailed."""
        if self.credentials is None:
            raise OpenFailed("auth", Reply(int(self.failure[:3]), self.failure[4:]))
        return self.credentials


class _StartedTokens:
    """Tokens whose source begins when it is asked first, and ends the one before it: two of them would use up one
    refresh token."""

    def __init__(self, source: TokenSource, before: _StartedTokens | None) -> None:
        self._source = source
        self._before = before

    @property
    def expires_at(self) -> float | None:
        return self._source.expires_at

    async def token(self) -> str:
        await self._begin()
        return await self._source.token()

    async def renewed(self, refused: str) -> str:
        await self._begin()
        return await self._source.renewed(refused)

    async def _begin(self) -> None:
        before, self._before = self._before, None
        if before is not None:
            await before.close()
        self._source.start()

    async def close(self) -> None:
        await self._source.close()
        if self._before is not None:
            await self._before.close()


class _StartedAws:
    """Temporary credentials of AWS, whose source begins when it is asked first, and ends the one before it."""

    def __init__(self, source: AwsCredentials, before: _StartedAws | None) -> None:
        self._source = source
        self._before = before

    async def current(self) -> Credentials:
        before, self._before = self._before, None
        if before is not None:
            await before.close()
        self._source.start()
        try:
            return await self._source.current()
        except CredentialsUnavailable as error:
            raise OpenFailed("auth", Reply.own(454, "4.7.0", f"no credentials: {error}")) from None

    async def renewed(self, refused: Credentials) -> Credentials | None:
        """The source renews them in time; those that it has now, if they are others."""
        current = await self.current()
        return current if current != refused else None

    async def close(self) -> None:
        await self._source.close()
        if self._before is not None:
            await self._before.close()
