"""A worker's tokens and temporary credentials: the main process fetches them for all."""

from __future__ import annotations

from collections.abc import Collection

from relay.config.model import Upstream
from relay.ipc import Link, LinkLost, RemoteError
from relay.mail.reply import Reply
from relay.providers.api import Credentials
from relay.upstream.access import Asked, Given
from relay.upstream.results import OpenFailed
from relay.workers import messages

_NO_ANSWER = "451 4.3.2 otp-relay: the main process gave no answer"


class RemoteAccess:
    """`relay.upstream.target.Access`."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def tokens(self, name: str, config: Upstream) -> RemoteTokens:  # noqa: ARG002
        return RemoteTokens(self._link, name)

    def aws(self, name: str, config: Upstream) -> RemoteCredentials:  # noqa: ARG002
        return RemoteCredentials(self._link, name)

    async def keep(self, names: Collection[str]) -> None:
        """Nothing is kept here."""


class RemoteTokens:
    """`relay.upstream.oauth.Tokens`."""

    expires_at: float | None = None

    def __init__(self, link: Link, upstream: str) -> None:
        self._link = link
        self._upstream = upstream

    async def token(self) -> str:
        return (await _ask(self._link, Asked("token", self._upstream))).key

    async def renewed(self, refused: str) -> str:
        return (await _ask(self._link, Asked("token", self._upstream, refused))).key


class RemoteCredentials:
    """`relay.upstream.target.CredentialSource`, of AWS."""

    def __init__(self, link: Link, upstream: str) -> None:
        self._link = link
        self._upstream = upstream

    async def current(self) -> Credentials:
        return await _ask(self._link, Asked("aws", self._upstream))

    async def renewed(self, refused: Credentials) -> Credentials | None:
        current = await self.current()
        return current if current != refused else None


async def _ask(link: Link, asked: Asked) -> Credentials:
    """Raises OpenFailed."""
    try:
        given = await link.ask(messages.ACCESS, asked)
    except (LinkLost, RemoteError):
        raise OpenFailed("auth", Reply(int(_NO_ANSWER[:3]), _NO_ANSWER[4:])) from None
    assert isinstance(given, Given)
    return given.use()
