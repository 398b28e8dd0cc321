"""How many connections the HTTP service has, and for how long each may keep it waiting."""

from __future__ import annotations

import asyncio

MOST_CONNECTIONS = 64
HEAD_WITHIN_S = 10.0
"""from the connection, or from a further request's first byte, to the end of its head"""
IDLE_FOR_S = 75.0
"""between two requests; longer than Prometheus waits"""
ANSWER_FOR_S = 60.0
"""from the end of a request's head to the end of its answer: its body, the work, and a client that reads slowly"""
FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nServer: otp-relay\r\nConnection: close\r\nRetry-After: 1\r\n"
    b"Content-Type: application/json; charset=utf-8\r\nContent-Length: 33\r\n\r\n"
    b'{"error": "too many connections"}'
)


class Door:
    """Gives each connection a seat. Where all are taken, the one that has kept the service waiting longest loses its
    own: connections that say nothing shut no client out."""

    def __init__(self, most: int = MOST_CONNECTIONS) -> None:
        self._most = most
        self._seats: dict[Seat, None] = {}

    def __len__(self) -> int:
        return len(self._seats)

    def seat(self, transport: asyncio.Transport) -> Seat | None:
        """None: every connection has a request under way."""
        if len(self._seats) >= self._most:
            idle = next((seat for seat in self._seats if not seat.answering), None)
            if idle is None:
                return None
            idle.end()
        seat = Seat(self, transport)
        self._seats[seat] = None
        return seat

    def leave(self, seat: Seat) -> None:
        self._seats.pop(seat, None)

    def wait_again(self, seat: Seat) -> None:
        """It is the last of those that keep the service waiting."""
        if seat in self._seats:
            self._seats[seat] = self._seats.pop(seat)


class Seat:
    """One connection's place. It is closed when it stays in one state for too long."""

    def __init__(self, door: Door, transport: asyncio.Transport) -> None:
        self._door = door
        self._transport = transport
        self._loop = asyncio.get_running_loop()
        self.answering = False
        """a request's head has come, its answer isn't out"""
        self._idle = False
        self._gone = False
        self._timer = self._loop.call_later(HEAD_WITHIN_S, self.end)

    def arrived(self) -> None:
        """Bytes came."""
        if self._idle:
            self._idle = False
            self._again(HEAD_WITHIN_S)

    def asked(self) -> None:
        """A request's head is complete."""
        self.answering, self._idle = True, False
        self._again(ANSWER_FOR_S)

    def answered(self) -> None:
        """Its answer is out; another request may follow."""
        self.answering, self._idle = False, True
        self._door.wait_again(self)
        self._again(IDLE_FOR_S)

    def end(self) -> None:
        """Close the connection at once."""
        self.leave()
        self._transport.abort()

    def leave(self) -> None:
        """The connection is gone."""
        self._gone = True
        self._timer.cancel()
        self._door.leave(self)

    def _again(self, within_s: float) -> None:
        self._timer.cancel()
        if not self._gone:
            self._timer = self._loop.call_later(within_s, self.end)
