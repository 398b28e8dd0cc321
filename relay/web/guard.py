"""Who may send a request: the operator, by token or by local user. Web pages of other sites may not (DNS rebinding,
cross-site request forgery)."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

from relay.config.network import is_ip
from relay.web.paths import is_page

Denial = Literal["token", "host", "operator", "origin", "content type", "read only"]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""for orchestrators, which have no token"""
PUBLIC_WITHOUT_TOKEN = frozenset({"/metrics"})
"""Where no token is configured, every local user may read these, the console's files and the API's description: they
show no address and no message. The console is an empty page until the API answers it."""
WEBHOOKS = "/webhooks/"
"""Paths for providers, which have no token and post from anywhere. Each webhook checks its own proof (`webhooks`)."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]+)?")
SEND = "/api/send"
"""takes mail, with a token of its own"""
_JSON = frozenset({"application/json"})
_MAIL = _JSON | {"message/rfc822"}
"""a form can send neither of them"""
CHANGING_METHODS = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Peer(Protocol):
    """The other end of the connection."""

    @property
    def unix(self) -> bool:
        """It came over a unix socket."""

    async def is_operator(self) -> bool:
        """It runs as root or as the relay's own user."""


class Tokens(NamedTuple):
    """What clients prove themselves with."""

    full: str | None = None
    """may do everything. None: no token is required; then the Host header must name this service, and only root and the
    relay's user may read messages or change anything"""
    send: str | None = None
    """may send mail, and nothing else"""
    read: str | None = None
    """may read everything, and change nothing"""


NO_TOKENS = Tokens()


@dataclass(frozen=True, slots=True)
class Guard:
    """`hosts`: host names besides those of loopback."""

    tokens: Tokens
    hosts: frozenset[str] = frozenset()
    only_sends: bool = False
    """It is the guard of a listener that takes mail only. Without `tokens.send`, each user that can open its unix
    socket may send, as with SMTP."""

    async def denies(self, method: str, path: str, headers: Mapping[str, str], peer: Peer) -> Denial | None:
        """Why a request is refused, or None. `headers` compares names case-insensitively."""
        if path in OPEN_PATHS or path.startswith(WEBHOOKS):
            return None
        if path == SEND and method == "POST":
            return await self._denies_to_send(headers, peer) or _forged(method, headers, _MAIL)
        changing = method in CHANGING_METHODS
        if not self.may_change(headers):
            return "read only" if changing else None
        if self.tokens.full is not None:
            if not self._presents(headers, self.tokens.full):
                return "token"
        elif self._presents(headers, self.tokens.send):
            return "token"  # that token isn't for this
        # DNS rebinding: a page of evil.example, whose name now resolves to 127.0.0.1, still sends Host: evil.example.
        # Such a page has no token, and can't reach a unix socket.
        elif not peer.unix and not self._names_us(headers.get("Host", "")):
            return "host"
        elif (changing or not _is_public(path)) and not await peer.is_operator():
            return "operator"
        return _forged(method, headers, _JSON) if changing else None

    def may_change(self, headers: Mapping[str, str]) -> bool:
        """False: the client has the token for reading, and not the one for everything."""
        return not self._presents(headers, self.tokens.read) or self._presents(headers, self.tokens.full)

    async def _denies_to_send(self, headers: Mapping[str, str], peer: Peer) -> Denial | None:
        if self._presents(headers, self.tokens.full) or self._presents(headers, self.tokens.send):
            return None
        if self._presents(headers, self.tokens.read):
            return "read only"
        if self.only_sends and peer.unix:
            return None if self.tokens.send is None else "token"
        if self.tokens.full is not None:
            return "token"
        if not peer.unix and not self._names_us(headers.get("Host", "")):
            return "host"
        if await peer.is_operator():
            return None
        return "operator" if self.tokens.send is None else "token"

    @staticmethod
    def _presents(headers: Mapping[str, str], token: str | None) -> bool:
        return token is not None and presents(headers.get("Authorization", ""), token)

    def _names_us(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = (found[1] or found[2]).lower() if found else ""
        return name == "localhost" or name.endswith(".localhost") or name in self.hosts or is_ip(name)


def _is_public(path: str) -> bool:
    return path in PUBLIC_WITHOUT_TOKEN or is_page(path)


def _forged(method: str, headers: Mapping[str, str], types: frozenset[str]) -> Denial | None:
    """Detect cross-site request forgery: a form can't send these `types`, a script of another site has another Origin.
    DELETE has no body and needs no Content-Type: a form can't send that method either."""
    is_bare = method == "DELETE" and "Content-Type" not in headers
    if not is_bare and headers.get("Content-Type", "").partition(";")[0].strip().lower() not in types:
        return "content type"
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return "origin"
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
        return "origin"
    return None


def presents(authorization: str, token: str) -> bool:
    """Whether an Authorization header has the token: as Bearer, or as the password of Basic. In constant time."""
    scheme, _, value = authorization.partition(" ")
    given = ""
    if scheme.lower() == "bearer":
        given = value.strip()
    elif scheme.lower() == "basic":
        try:
            given = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            given = ""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())
