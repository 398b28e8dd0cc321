"""sd_notify(3) client: tells the service manager the relay's state, and feeds its watchdog.

Without NOTIFY_SOCKET in the environment it sends nothing.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import deque
from collections.abc import Mapping

from relay.logfmt import logfmt

RETRY_AFTER_S = 0.1

_log = logging.getLogger("relay")


class ServiceManager:
    """Sends `ready`, `reloading` and `stopping`; from the first `ready` until `close` it feeds the watchdog."""

    def __init__(self, address: str | None, watchdog_s: float | None = None) -> None:
        """`address`: a path, or `@` and an abstract name; None: send nothing. `watchdog_s`: the service manager kills
        a process that is silent for this time."""
        self._address = address
        self._feed_every_s = watchdog_s / 2 if watchdog_s is not None else None
        self._socket: socket.socket | None = None
        self._unsent: deque[bytes] = deque()
        self._retry: asyncio.TimerHandle | None = None
        self._watchdog: asyncio.TimerHandle | None = None

    @classmethod
    def of(cls, environ: Mapping[str, str], pid: int) -> ServiceManager:
        """The service manager that the environment names; `pid` is this process's."""
        address = environ.get("NOTIFY_SOCKET") or None
        if address is not None and address[0] not in "/@":
            _log.warning(logfmt("trouble", where="notify", reason="NOTIFY_SOCKET is no unix socket"))
            address = None
        # sd_watchdog_enabled(3): WATCHDOG_PID may name another process.
        watchdog_us = environ.get("WATCHDOG_USEC", "")
        is_ours = environ.get("WATCHDOG_PID", str(pid)) == str(pid)
        is_on = is_ours and watchdog_us.isascii() and watchdog_us.isdigit() and int(watchdog_us) > 0
        return cls(address, int(watchdog_us) / 1e6 if is_on else None)

    def ready(self, status: str) -> None:
        """The service is up, or its reload is over. `status`: one line for `systemctl status`."""
        self._send("READY=1", f"STATUS={status}")
        if self._watchdog is None:
            self._feed()

    def reloading(self) -> None:
        """A reload begins; `ready` ends it."""
        self._send("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """A drain begins."""
        self._send("STOPPING=1", "STATUS=draining")

    def close(self) -> None:
        """Send nothing more."""
        for timer in (self._retry, self._watchdog):
            if timer is not None:
                timer.cancel()
        if self._socket is not None:
            self._socket.close()
        self._address = self._socket = None

    def _feed(self) -> None:
        """By a timer of the event loop: the watchdog is there for a loop that hangs."""
        if self._feed_every_s is not None and self._address is not None:
            self._watchdog = asyncio.get_running_loop().call_later(self._feed_every_s, self._feed)
            if not self._unsent:
                self._send("WATCHDOG=1")

    def _send(self, *assignments: str) -> None:
        """One datagram for each call."""
        if self._address is not None:
            self._unsent.append("\n".join(assignments).encode())
            self._flush(self._address)

    def _flush(self, address: str) -> None:
        while self._unsent:
            try:
                self._opened().sendto(self._unsent[0], address if address[0] == "/" else f"\0{address[1:]}")
            except BlockingIOError:  # the receiver's queue is full; the loop must not wait for it
                self._retry = asyncio.get_running_loop().call_later(RETRY_AFTER_S, self._flush, address)
                return
            except OSError as error:  # also when no descriptor is left
                _log.warning(logfmt("trouble", where="notify", reason=error.strerror or str(error)))
            self._unsent.popleft()

    def _opened(self) -> socket.socket:
        """Raises OSError."""
        if self._socket is None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        return self._socket
