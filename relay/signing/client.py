"""The helper for signatures (`helper`) as its owner's event loop sees it."""

from __future__ import annotations

import asyncio
import os
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.mail.dkim import Key
from relay.signing import helper
from relay.signing.helper import Forked
from relay.signing.signatures import NotHelped

LOOK_EVERY_S = 0.4
SILENT_LOOKS = 5
"""a helper that is seen so often in a row to have made no signature hangs, and isn't asked again"""
LINK_HOLDS = 256
"""packets, about"""


class SigningProcess:
    """The helper as its owner sees it (signatures.Helper). `lost` is called once, if it goes before it is closed."""

    def __init__(self, forked: Forked, lost: Callable[[], None]) -> None:
        self._forked = forked
        self._link, self._bell = forked.link, forked.bell
        self._keys: set[int] = set()
        """numbers of those it was given"""
        self._lost = lost
        self._pending: deque[asyncio.Future[bytes]] = deque()
        self._ringing = False
        self._is_gone = False
        self._made = self._made_before = self._silent = 0
        self._watch: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self._link.setblocking(False)
        self._loop.add_reader(self._link.fileno(), self._read)

    def load(self, keys: Iterable[Key]) -> None:
        self._send(helper.FORGET)
        self._keys = {key.number for key in keys if self._send(helper.KEY + helper.NUMBER.pack(key.number) + _der(key))}
        self._ring()

    def has(self, key: Key) -> bool:
        return key.number in self._keys and not self._is_gone

    def sign(
        self, key: Key, digest: bytes, most_waiting: int = LINK_HOLDS, within_s: float | None = None
    ) -> Awaitable[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        packet = helper.SIGN + helper.NUMBER.pack(key.number) + digest
        if len(self._pending) > most_waiting or not self._send(packet):
            _refuse(future)
            return future
        if within_s is not None:
            self._loop.call_later(within_s, _refuse, future)
        if not self._pending:
            self._ring()
        elif not self._ringing:
            self._ringing = True
            self._loop.call_soon(self._ring)
        self._pending.append(future)
        if self._watch is None:
            self._made_before, self._silent = self._made, 0
            self._watch = self._loop.call_later(LOOK_EVERY_S, self._look)
        return future

    def close(self) -> None:
        """See it off. What was asked of it is refused."""
        if self._is_gone:
            return
        self._is_gone = True
        if self._watch is not None:
            self._watch.cancel()
        self._loop.remove_reader(self._link.fileno())
        self._forked.end()
        for future in self._pending:
            _refuse(future)
        self._pending.clear()

    def _give_up(self) -> None:
        self.close()
        self._lost()

    def _send(self, packet: bytes) -> bool:
        """False: it is gone, or has more to do than fits."""
        try:
            return not self._is_gone and self._link.send(packet) > 0
        except OSError:
            return False

    def _ring(self) -> None:
        self._ringing = False
        if not self._is_gone:
            os.eventfd_write(self._bell, 1)

    def _read(self) -> None:
        try:
            while packet := self._link.recv(helper.PACKET_BYTES):
                self._made += 1
                _answer(self._pending.popleft(), packet)
        except BlockingIOError:
            return
        except OSError:
            pass
        except IndexError as error:  # more answers than questions: which is whose isn't known any more
            self._loop.call_exception_handler({"message": "a helper's answers don't fit", "exception": error})
        self._give_up()

    def _look(self) -> None:
        """In several looks: while this process itself was stopped one of them passes, and not all of them."""
        self._watch = None
        if not self._pending:
            return
        self._silent = self._silent + 1 if self._made == self._made_before else 0
        self._made_before = self._made
        if self._silent >= SILENT_LOOKS:
            self._give_up()
        else:
            self._watch = self._loop.call_later(LOOK_EVERY_S, self._look)


def _answer(future: asyncio.Future[bytes], packet: bytes) -> None:
    if packet == helper.NOT_MADE:
        _refuse(future)
    elif not future.done():
        future.set_result(packet)


def _refuse(future: asyncio.Future[bytes]) -> None:
    if not future.done():
        future.set_exception(NotHelped())
        # Looked at: of a message's signatures only the first that fails is waited for; asyncio would log the others.
        future.exception()


def _der(key: Key) -> bytes:
    return key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
