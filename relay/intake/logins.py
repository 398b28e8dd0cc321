"""Logins of all clients: which are right, and what guessing costs a client.

A client's wrong logins count over its connections, and one login of a client is verified at a time: one that guesses
holds up no other.
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
"""so many, and a client hears 454 without its password being looked at"""
FORGIVEN_EVERY_S = 30.0
"""one of them"""
_CLIENTS = 4_096
"""remembered; those beyond that failed last"""

Verdict = Literal["right", "wrong", "too many"]


class Logins:
    """One for a server."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._wrong: dict[str, tuple[float, float]] = {}
        """by client: how many, and when that was so; the one that failed last stands last"""
        self._places: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def verify(self, users: Users, peer: Peer, name: str, password: bytes) -> Verdict:
        """Whether that is the user's password."""
        if users.remembers(name, password):
            return "right"
        client = _client(peer, name)
        place = self._places.get(client)
        if place is None:
            self._places[client] = place = asyncio.Lock()
        async with place:
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
    """What guesses: an address, or all that one customer has of IPv6. Apps on this machine share theirs, so there one
    user's wrong password is that user's."""
    if peer.local:
        return f"{peer.name} {name[:255]}"
    if isinstance(peer.ip, IPv6Address):
        return str(ip_network((peer.ip, 64), strict=False))
    return peer.name
