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
from relay.upstream.target import CredentialSource, FixedKey

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
        key = _key(config)
        known = self._tokens.get(name)
        if known is None or known[0] != key:
            file = token_file(self.store, name, configured_refresh_token(config))
            source = TokenSource(
                *(name, settings_of(config), fetcher_of(config), self._supervisor),
                file=file,
                on_failure=lambda reason: self._on_failure(name, reason),
            )
            known = self._tokens[name] = key, _StartedTokens(source)
        return known[1]

    def aws(self, name: str, config: Upstream) -> CredentialSource:
        api = config.api
        region = api.region or ""
        if api.access_key_id is not None and api.secret_access_key is not None:
            fixed = (api.access_key_id.get_secret_value(), api.secret_access_key.get_secret_value())
            return FixedKey(Credentials(access_key_id=fixed[0], secret_access_key=fixed[1], region=region))
        key = _key(config)
        known = self._aws.get(name)
        if known is None or known[0] != key:
            source = AwsCredentials(
                *(os.environ, region, self._supervisor),
                failed=lambda reason: self._on_failure(name, reason),
                tls_context=Contexts().trusting(None),
                proxy=config.proxy.get_secret_value() if config.proxy is not None else None,
            )
            known = self._aws[name] = key, _StartedAws(source)
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
    """Tokens whose source begins when it is asked first."""

    def __init__(self, source: TokenSource) -> None:
        self._source = source

    @property
    def expires_at(self) -> float | None:
        return self._source.expires_at

    async def token(self) -> str:
        self._source.start()
        return await self._source.token()

    async def renewed(self, refused: str) -> str:
        self._source.start()
        return await self._source.renewed(refused)

    async def close(self) -> None:
        await self._source.close()


class _StartedAws:
    """Temporary credentials of AWS, whose source begins when it is asked first."""

    def __init__(self, source: AwsCredentials) -> None:
        self._source = source

    async def current(self) -> Credentials:
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


def _key(config: Upstream) -> Hashable:
    """What a source belongs to: the same account, reached the same way."""
    return config.oauth2, config.api.region, config.username, config.ca_file, config.proxy
