"""The quota of sessions of one upstream (`sessions.max`), shared by its lanes."""

from __future__ import annotations

from relay.upstream.fair import TURN_S, QuotaClient, QuotaClients


class SessionQuota:
    """At most `limit` sessions are open or opening at once. Each counts from `acquire` to `release`.

    Express lanes come first: the sessions that they reserve are never given to bulk lanes. Where they reserve all, a
    bulk lane may have one, and closes it as soon as an express lane waits. Bulk lanes share alike (`fair`).
    """

    def __init__(self, limit: int, turn_s: float = TURN_S) -> None:
        self.limit = limit
        self.open = 0
        self._clients = QuotaClients(turn_s)
        self._express_waiting = False
        self._lending = False
        """an express lane is closing an idle session for a bulk lane"""

    def join(self, client: QuotaClient) -> None:
        """From now on its reserved sessions are kept, and it may acquire sessions."""
        self._clients.join(client)

    def leave(self, client: QuotaClient) -> None:
        """The client has no session any more."""
        self._clients.leave(client)

    def acquire(self, client: QuotaClient, *, ahead: bool = False) -> bool:
        """Count one more session of `client`. False: there is none for it now; `on_capacity` says when there is.
        `ahead`: of an express lane that needs it later only, so that no bulk lane gives up a session for it."""
        may_have_one = client.session_count == 0 and self._all_is_reserved()
        if self.open < self.limit and (self.open < self._open_to(client) or may_have_one):
            self.open += 1
            self._clients.served(client)
            return True
        if client.express:
            if ahead:
                return False
            self._express_waiting = not any(
                other.close_idle() for other in self._clients if other is not client and not other.express
            )
            return False
        if not self._lending:
            self._lending = self._close_idle_express(client)
        self._clients.reclaim_for(client)
        return False

    def release(self) -> None:
        """A session was closed, or could not be opened."""
        self.open -= 1
        self._lending = False
        self._shed()
        self._hand_out()

    def resize(self, limit: int) -> None:
        """Change the limit. Sessions above it are closed as they become idle."""
        self.limit = limit
        self._shed()
        self._hand_out()

    def must_close(self, client: QuotaClient) -> bool:
        """Must the client close the session that has just become idle? Another client needs it."""
        if self._clients.is_reclaimed(client):
            return True
        if client.express or not self._express_waiting:
            return False
        self._express_waiting = False
        return True

    def _close_idle_express(self, bulk: QuotaClient) -> bool:
        """Close an idle express session for a bulk lane. False: there is none.

        It is one that is open ahead of need, beyond those reserved. Where all sessions are reserved, a bulk lane
        without any gets a reserved one, so that it isn't starved. The express lane gets the session back with its next
        message.
        """
        starved = bulk.session_count == 0
        if not starved and self.open > self._open_to(bulk):
            return False  # its place would be another express lane's
        every = starved and self._all_is_reserved()
        return any(
            other.close_idle()
            for other in self._clients
            if other.express and (every or other.session_count > other.reserved)
        )

    def _hand_out(self) -> None:
        for client in self._clients.fewest_sessions_first():
            if self.open >= self.limit:
                return
            client.on_capacity()

    def _shed(self) -> None:
        """Reclaim what is above the limit: one session of each of the clients with the most, more as these close."""
        above = max(0, self.open - self.limit)
        for client in self._clients.most_sessions_first()[:above]:
            if client.session_count:
                self._clients.reclaim(client)

    def _open_to(self, client: QuotaClient) -> int:
        """The limit less what other clients reserve and don't use. Where express lanes reserve more than there is, each
        may keep an equal share from the others: else none could open what is free."""
        others = [one for one in self._clients if one.express and one is not client]
        share = self.limit // (len(others) + 1) if client.express else self.limit
        return self.limit - sum(max(0, min(one.reserved, share) - one.session_count) for one in others)

    def _all_is_reserved(self) -> bool:
        return sum(one.reserved for one in self._clients if one.express) >= self.limit
