"""The client of the helper process (`helper`), in its owner's event loop."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.mail.dkim import Key
from relay.signing import helper
from relay.signing.helper import HelperProcess

CHECK_EVERY_S = 0.4
MAX_IDLE_CHECKS = 5
"""a helper that made no signature between so many checks in a row hangs, and is terminated"""
SOCKET_PACKETS = 256
"""about how many packets fit into the socket"""


class HelperUnavailable(Exception):
    """The helper did not make the signature."""


class HelperClient:
    def __init__(self, process: HelperProcess, on_exit: Callable[[], None]) -> None:
        """`on_exit` is called once, if the process ends before `close`."""
        self._process = process
        self._link, self._wakeup_fd = process.link, process.wakeup_fd
        self._keys: set[int] = set()
        """numbers of the keys that it was given"""
        self._on_exit = on_exit
        self._pending: deque[asyncio.Future[bytes]] = deque()
        self._waking = False
        self._is_closed = False
        self._made = self._made_before = self._idle_checks = 0
        self._check_timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._link.setblocking(False)
        self._loop.add_reader(self._link.fileno(), self._read)

    def load(self, keys: Iterable[Key]) -> None:
        """The keys that it can sign with from now on."""
        self._send(helper.FORGET)
        self._keys = {key.number for key in keys if self._send(helper.KEY + helper.NUMBER.pack(key.number) + _der(key))}
        self._wake()

    def has(self, key: Key) -> bool:
        return key.number in self._keys and not self._is_closed

    def sign(
        self, key: Key, digest: bytes, max_pending: int = SOCKET_PACKETS, within_s: float | None = None
    ) -> Awaitable[bytes]:
        """`Key.sign`, under way before this returns. The awaitable raises HelperUnavailable: at once where more than
        `max_pending` are pending, and when it takes longer than `within_s` seconds."""
        future: asyncio.Future[bytes] = self._loop.create_future()
        packet = helper.SIGN + helper.NUMBER.pack(key.number) + digest
        if len(self._pending) > max_pending or not self._send(packet):
            _refuse(future)
            return future
        if within_s is not None:
            self._loop.call_later(within_s, _refuse, future)
        if not self._pending:
            self._wake()
        elif not self._waking:
            self._waking = True
            self._loop.call_soon(self._wake)
        self._pending.append(future)
        if self._check_timer is None:
            self._made_before, self._idle_checks = self._made, 0
            self._check_timer = self._loop.call_later(CHECK_EVERY_S, self.check)
        return future

    def close(self) -> None:
        """Terminate and reap the helper. Pending signatures raise HelperUnavailable."""
        if self._is_closed:
            return
        self._is_closed = True
        if self._check_timer is not None:
            self._check_timer.cancel()
        self._loop.remove_reader(self._link.fileno())
        self._process.terminate()
        for future in self._pending:
            _refuse(future)
        self._pending.clear()

    def _give_up(self) -> None:
        self.close()
        self._on_exit()

    def _send(self, packet: bytes) -> bool:
        """False: the helper ended, or the socket is full."""
        try:
            return not self._is_closed and self._link.send(packet) > 0
        except OSError:
            return False

    def _wake(self) -> None:
        self._waking = False
        if not self._is_closed:
            os.eventfd_write(self._wakeup_fd, 1)

    def _read(self) -> None:
        try:
            while packet := self._link.recv(helper.PACKET_BYTES):
                self._made += 1
                _answer(self._pending.popleft(), packet)
        except BlockingIOError:
            return
        except OSError:
            pass
        except IndexError as error:  # the replies can't be paired any more
            self._loop.call_exception_handler(
                {"message": "the signing helper sent more replies than requests", "exception": error}
            )
        self._give_up()

    def check(self) -> None:
        """Does the helper still make signatures? One check alone proves nothing: this process may have been stopped."""
        self._check_timer = None
        if not self._pending:
            return
        self._idle_checks = self._idle_checks + 1 if self._made == self._made_before else 0
        self._made_before = self._made
        if self._idle_checks >= MAX_IDLE_CHECKS:
            self._give_up()
        else:
            self._check_timer = self._loop.call_later(CHECK_EVERY_S, self.check)


def _answer(future: asyncio.Future[bytes], packet: bytes) -> None:
    if packet == helper.NOT_MADE:
        _refuse(future)
    elif not future.done():
        future.set_result(packet)


def _refuse(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(HelperUnavailable())
        # Of a message's signatures only the first that fails is awaited. Without this, asyncio logs the others.
        future.exception()


def _der(key: Key) -> bytes:
    return key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
