"""Verifies logins, and limits how often a client may guess.

A client's wrong logins count over its connections. One login of a client is verified at a time, so that a client that
guesses delays no other.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from ipaddress import IPv6Address, ip_network
from typing import Literal
from weakref import WeakValueDictionary

from relay.intake.peer import Peer
from relay.intake.users import Users

WRONG = 10
"""After so many wrong logins a client gets 454, and its password isn't looked at."""
FORGIVEN_EVERY_S = 30.0
"""One wrong login is forgiven after so long."""
_CLIENTS = 4_096
"""How many clients with wrong logins are remembered: those that failed last."""

Verdict = Literal["right", "wrong", "too many"]


class Logins:
    """One for all listeners of a server."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wrong: dict[str, tuple[float, float]] = {}
        """by client, the latest failure last: how many, and when that was so"""
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def verify(self, users: Users, peer: Peer, name: str, password: bytes) -> Verdict:
        """Whether that is the user's password."""
        if users.remembers(name, password):
            return "right"
        client = _client(peer, name)
        turn = self._turns.get(client)
        if turn is None:
            self._turns[client] = turn = asyncio.Lock()
        async with turn:
            if self._count(client) > WRONG - 1:
                return "too many"
            if await users.verify(name, password):
                return "right"
            self._failed(client)
            return "wrong"

    def _count(self, client: str) -> float:
        count, at = self._wrong.get(client, (0.0, 0.0))
        return max(0.0, count - (self._now() - at) / FORGIVEN_EVERY_S)

    def _failed(self, client: str) -> None:
        count = self._count(client) + 1.0
        self._wrong.pop(client, None)
        self._wrong[client] = count, self._now()
        while len(self._wrong) > _CLIENTS:
            del self._wrong[next(iter(self._wrong))]


def _client(peer: Peer, name: str) -> str:
    """Whose guesses count together: an address, or an IPv6 /64 (one customer's). Apps on this machine share an
    address, so there the user's name counts."""
    if peer.local:
        return f"{peer.name} {name[:255]}"
    if isinstance(peer.ip, IPv6Address):
        return str(ip_network((peer.ip, 64), strict=False))
    return peer.name
