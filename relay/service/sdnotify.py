"""What the service manager hears of this process: systemd's sd_notify(3), its watchdog too, in one datagram each.

Without NOTIFY_SOCKET in the environment nothing is said.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import time
from collections import deque
from collections.abc import Mapping

AGAIN_AFTER_S = 0.1

_log = logging.getLogger("relay")


class ServiceManager:
    """`ready`, `reloading`, `ready` again, `stopping`, as they happen; from the first `ready` to `close` its watchdog
    hears that the event loop turns."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """`address`: a path, or `@` and an abstract name; None: nobody listens. `watchdog_s`: silent for so long, this
        process is killed."""
        self._address = address
        self._every_s = watchdog_s / 2 if watchdog_s is not None else None
        self._socket: socket.socket | None = None
        self._unsaid: deque[bytes] = deque()
        self._again: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> ServiceManager:
        """As the environment says; `pid` is this process's."""
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            _log.warning("event=trouble where=notify reason=%s", json.dumps("NOTIFY_SOCKET is no unix socket"))
            address = None
        # sd_watchdog_enabled(3): another process's watchdog isn't ours to feed.
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        fed = ours and watchdog_us.isascii() and watchdog_us.isdigit() and int(watchdog_us) > 0
        return cls(address, int(watchdog_us) / 1e6 if fed else None)

    def ready(self, status: str) -> None:
        """The service is up, or its reload is over; `status` is one line for `systemctl status`."""
        self._say("READY=1", f"STATUS={status}")
        if self._beat is None:
            self._feed()

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """A drain begins."""
        self._say("STOPPING=1", "STATUS=draining")

    def close(self) -> None:
        """Say no more."""
        for timer in (self._again, self._beat):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            self._socket.close()
        self._address = self._socket = None

    def _feed(self) -> None:
        """The watchdog, from the loop itself: a loop that hangs is what it is there for."""
        if self._every_s is not None and self._address is not None:
            self._beat = asyncio.get_running_loop().call_later(self._every_s, self._feed)
            if not self._unsaid:
                self._say("WATCHDOG=1")

    def _say(self, *assignments: str) -> None:
        if self._address is not None:
            self._unsaid.append("\n".join(assignments).encode())
            self._flush(self._address)

    def _flush(self, address: str) -> None:
        while self._unsaid:
            try:
                self._opened().sendto(self._unsaid[0], address if address[0] == "/" else f"\0{address[1:]}")
            except BlockingIOError:  # its queue is full; mail doesn't wait for that
                self._again = asyncio.get_running_loop().call_later(AGAIN_AFTER_S, self._flush, address)
                return
            except OSError as error:  # also where no descriptor is left
                _log.warning("event=trouble where=notify reason=%s", json.dumps(error.strerror or str(error)))
            self._unsaid.popleft()

    def _opened(self) -> socket.socket:
        """Raises OSError."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        return self._socket
