"""Where an upstream is reached: TLS, addresses, a proxy, and what proves the relay there."""

from __future__ import annotations

import ssl
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

from relay.config.access import endpoint
from relay.config.access_checks import api_key
from relay.config.model import Upstream
from relay.providers.api import Credentials
from relay.providers.apis.registry import api_named
from relay.upstream.oauth import Tokens
from relay.upstream.results import OpenFailed
from relay.upstream.server import ApiServer, Contexts, Dialer, dialer


class CredentialSource(Protocol):
    """What proves the relay to an API."""

    async def current(self) -> Credentials:
        """Valid ones; waits only for the first. Raises OpenFailed where there are none."""

    async def renewed(self, refused: Credentials) -> Credentials | None:
        """Other ones, after the API refused these; None: there are none."""


class Access(Protocol):
    """Finds what an upstream's credentials come from, where they aren't in the configuration."""

    def tokens(self, name: str, config: Upstream) -> Tokens:
        """Of OAuth 2."""

    def aws(self, name: str, config: Upstream) -> CredentialSource:
        """Of AWS: those of the machine."""

    async def keep(self, names: Collection[str]) -> None:
        """End what is for upstreams of other names."""


@dataclass(frozen=True, slots=True)
class FixedKey:
    """The API key of the configuration."""

    credentials: Credentials

    async def current(self) -> Credentials:
        return self.credentials

    async def renewed(self, refused: Credentials) -> Credentials | None:  # noqa: ARG002
        return None


@dataclass(frozen=True, slots=True)
class TokenAsKey:
    """An API whose key is an access token."""

    tokens: Tokens
    username: str

    async def current(self) -> Credentials:
        return Credentials(key=await self.tokens.token(), username=self.username)

    async def renewed(self, refused: Credentials) -> Credentials | None:
        try:
            return Credentials(key=await self.tokens.renewed(refused.key), username=self.username)
        except OpenFailed:
            return None


@dataclass(frozen=True, slots=True)
class ApiEndpoint:
    """An API's server, and what proves the relay there."""

    server: ApiServer
    credentials: CredentialSource = field(compare=False)


@dataclass(frozen=True, slots=True)
class Target:
    """An upstream, ready to be connected to."""

    name: str
    config: Upstream
    hostname: str
    """our EHLO name"""
    tls_context: ssl.SSLContext | None
    addresses: Dialer = field(compare=False)
    tokens: Tokens | None = field(default=None, compare=False)
    """with `auth: xoauth2`"""
    api: ApiEndpoint | None = field(default=None, compare=False)
    """with `via: api` or `auto`"""

    @classmethod
    def of(
        cls,
        name: str,
        config: Upstream,
        hostname: str,
        contexts: Contexts | None = None,
        access: Access | None = None,
    ) -> Target:
        """`access` is needed where credentials aren't in the configuration. Raises OSError or ssl.SSLError for an
        unreadable `ca_file`."""
        contexts = contexts if contexts is not None else Contexts()
        dial = dialer(_proxy_of(config))
        tokens = access.tokens(name, config) if access is not None and config.oauth2 is not None else None
        return cls(
            name,
            config,
            hostname,
            None if config.tls == "none" or config.via == "api" else contexts.trusting(config.ca_file),
            dial(config.host, config.port),
            tokens if config.auth == "xoauth2" else None,
            None if config.via == "smtp" else _api(name, config, contexts, access, tokens),
        )

    def is_same(self, other: Target) -> bool:
        """Whether a session opened for one serves the other as well. A `ca_file` is compared by the certificates that
        were read from it."""
        return (self.name, self.config, self.hostname, self._own_cas()) == (
            other.name,
            other.config,
            other.hostname,
            other._own_cas(),
        )

    def _own_cas(self) -> frozenset[bytes]:
        """Of the `ca_file`, in DER; none where the system's are trusted."""
        context = self.tls_context or (self.api.server.tls_context if self.api is not None else None)
        if context is None or self.config.ca_file is None:
            return frozenset()
        return frozenset(context.get_ca_certs(binary_form=True))


def _api(
    name: str, config: Upstream, contexts: Contexts, access: Access | None, tokens: Tokens | None
) -> ApiEndpoint | None:
    kind, url = config.api.kind, config.api.url
    if kind is None or url is None:
        raise AssertionError("a configuration without its API")
    where = endpoint(url)
    credentials: CredentialSource
    match api_named(kind).needs:
        case "aws" if config.api.access_key_id is not None and config.api.secret_access_key is not None:
            credentials = FixedKey(
                Credentials(
                    access_key_id=config.api.access_key_id.get_secret_value(),
                    secret_access_key=config.api.secret_access_key.get_secret_value(),
                    region=config.api.region or "",
                )
            )
        case "aws":
            if access is None:
                return None
            credentials = access.aws(name, config)
        case "token":
            if tokens is None:
                return None
            credentials = TokenAsKey(tokens, config.username or "")
        case _:
            credentials = FixedKey(Credentials(key=api_key(config) or "", username=config.username or ""))
    context = contexts.trusting(config.ca_file) if where.is_secure else None
    server = ApiServer(where, context, dialer(_proxy_of(config))(where.host, where.port))
    return ApiEndpoint(server, credentials)


def _proxy_of(config: Upstream) -> str | None:
    return config.proxy.get_secret_value() if config.proxy is not None else None
