"""Proof of the operator, by token or by user, and the checks that keep other sites' web pages out of a service on
loopback."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal, Protocol

Denial = Literal["token", "host", "operator", "origin", "content type"]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""asked by orchestrators, which carry no token"""
SHOWN_TO_ALL = frozenset({"/metrics", "/", "/console.css", "/console.js"})
"""without a token: they show no address and no message to any user of the machine. The console is an empty page until
the API has answered it."""
WEBHOOKS = "/webhooks/"
"""What stands below is for providers: they carry no token of ours and post what they like from anywhere. Each webhook
proves itself by what it carries (`webhooks`)."""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]+)?")
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


class Peer(Protocol):
    """The other end of the connection."""

    @property
    def unix(self) -> bool:
        """It came over a unix socket."""

    async def is_operator(self) -> bool:
        """It runs as root or as the relay's own user."""


@dataclass(frozen=True, slots=True)
class Guard:
    """`token` None: none is asked for; then the Host must be ours, and what isn't shown to all is the operator's.
    `hosts`: names besides loopback's."""

    token: str | None
    hosts: frozenset[str] = frozenset()

    async def denies(self, method: str, path: str, headers: Mapping[str, str], peer: Peer) -> Denial | None:
        """Why a request is refused, or None. `headers` compares names case-insensitively."""
        if path in OPEN_PATHS or path.startswith(WEBHOOKS):
            return None
        changing = method in CHANGING
        if self.token is not None:
            if not presents(headers.get("Authorization", ""), self.token):
                return "token"
        # DNS rebinding: a page of evil.example whose name now resolves to 127.0.0.1 still says Host: evil.example.
        # A token it doesn't have, and a unix socket it can't reach.
        elif not peer.unix and not self._ours(headers.get("Host", "")):
            return "host"
        elif (changing or path not in SHOWN_TO_ALL) and not await peer.is_operator():
            return "operator"
        return _forged(headers) if changing else None

    def _ours(self, host: str) -> bool:
        found = _HOST.fullmatch(host)
        name = (found[1] or found[2]).lower() if found else ""
        return name == "localhost" or name.endswith(".localhost") or name in self.hosts or _is_ip(name)


def _forged(headers: Mapping[str, str]) -> Denial | None:
    """Cross-site request forgery: a form can't send JSON, and a script of another site shows its Origin."""
    if headers.get("Content-Type", "").partition(";")[0].strip().lower() != "application/json":
        return "content type"
    if headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
        return "origin"
    origin = headers.get("Origin")
    if origin is not None and origin.partition("://")[2].lower() != headers.get("Host", "").lower():
        return "origin"
    return None


def presents(authorization: str, token: str) -> bool:
    """Bearer with the token, or Basic with the token as password (a browser, Prometheus); in constant time."""
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


def _is_ip(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
