"""The open sessions of a server: how many there may be, of which clients, and their end at a shutdown."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import suppress

from relay.config.model import Limits, Listener
from relay.intake import replies
from relay.intake.connection import Connection
from relay.intake.peer import Peer
from relay.intake.types import Reason, Settings
from relay.mail.reply import Reply

_CONNECTIONS_PER_REMOTE_CLIENT = 100
"""where the configuration has no limit"""


class SessionRegistry:
    """Knows each connection from its first moment, and its client once that is known."""

    def __init__(self, settings: Settings) -> None:
        self.draining = False
        self._settings = settings
        self._open: dict[Connection, Peer | None] = {}
        self._of_client: Counter[str] = Counter()
        self._local = 0
        """sessions of clients on this machine"""
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def connected(self, connection: Connection) -> None:
        """A connection was made; one `session_ended` follows."""
        self._open[connection] = None
        self._empty.clear()

    def check_client(self, connection: Connection, peer: Peer, listener: Listener) -> tuple[Reply, Reason] | None:
        """Count the connection for its client. Returns why it may not have a session; None: it may."""
        self._of_client[peer.name] += 1
        self._open[connection] = peer
        self._local += peer.local
        if self.draining:
            return replies.SHUTTING_DOWN, "busy"
        # A unix socket is guarded by its directory. Without `allow`, every client may connect.
        if peer.ip is not None and listener.allow and not peer.inside(listener.allow):
            return replies.NOT_ALLOWED, "allow"
        if self._too_many(peer, self._settings.limits):
            return replies.CONNECTIONS, "connections"
        return None

    def session_ended(self, connection: Connection) -> None:
        peer = self._open.pop(connection)
        if peer is not None:
            self._local -= peer.local
            self._of_client[peer.name] -= 1
            if not self._of_client[peer.name]:
                del self._of_client[peer.name]
        if not self._open:
            self._empty.set()

    def begin_shutdown(self) -> None:
        """Admit no more sessions; end the idle ones now, and the others when their message is done."""
        self.draining = True
        for connection in list(self._open):
            connection.begin_shutdown()

    async def drain(self, timeout_s: float) -> int:
        """Wait for all sessions to end, then cut off the rest; returns how many those were."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        rest = list(self._open)
        for connection in rest:
            connection.abort()
        return len(rest)

    def _too_many(self, peer: Peer, limits: Limits) -> bool:
        """Whether this client's newest connection is one too many. A fifth is kept for clients on this machine."""
        most, kept = limits.connections, max(1, limits.connections // 5)
        allowed = connections_allowed(peer, limits)
        if allowed is not None and self._of_client[peer.name] > allowed:
            return True
        if peer.local:
            return len(self._open) > most and self._local > kept
        return len(self._open) > most or len(self._open) - self._local > max(1, most - kept)


def connections_allowed(peer: Peer, limits: Limits) -> int | None:
    """How many connections this client may have at once; None: no limit of its own."""
    if limits.connections_per_client is not None:
        return limits.connections_per_client
    return None if peer.local else _CONNECTIONS_PER_REMOTE_CLIENT
