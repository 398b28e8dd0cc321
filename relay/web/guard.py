"""Who may ask: the token, and the checks that keep other people's web pages out of a service on loopback."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

Denial = Literal["token", "host", "origin", "content type"]

OPEN_PATHS = frozenset({"/healthz", "/readyz"})
"""asked by orchestrators, which carry no token"""
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]+)?")
CHANGING = frozenset({"POST", "PUT", "PATCH", "DELETE"})


@dataclass(frozen=True, slots=True)
class Guard:
    """`token` None: none is asked for, and then the Host must be ours. `hosts`: names besides loopback's."""

    token: str | None
    hosts: frozenset[str] = frozenset()

    def denies(self, method: str, path: str, headers: Mapping[str, str], *, unix: bool = False) -> Denial | None:
        """Why a request is refused, or None. `headers` compares names case-insensitively."""
        if path in OPEN_PATHS:
            return None
        if self.token is None:
            # DNS rebinding: a page of evil.example whose name now resolves to 127.0.0.1 still says Host: evil.example.
            # A token it doesn't have, and a unix socket it can't reach.
            if not unix and not self._ours(headers.get("Host", "")):
                return "host"
        elif not presents(headers.get("Authorization", ""), self.token):
            return "token"
        return _forged(headers) if method in CHANGING else None

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
