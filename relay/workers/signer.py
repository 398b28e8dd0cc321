"""A helper: a process that makes private keys' signatures while the event loop of its owner goes on.

An RSA-2048 signature takes a third of what a bulk message costs a worker, and a fifth of a code's time in the relay;
it needs nothing of Python. A thread for it asks for the interpreter's lock twice a signature, of a loop that has none to
spare. The helper is forked before its owner has a loop, a thread or a store, so that it shares nearly all of its
memory. It never outlives its owner.

What is said, a packet each: `F`, forget all keys; `K`, a number and the key with it (PKCS #8); `S`, a key's number and
a digest, answered with the signature, or with one byte: it could not be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import select
import signal
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from relay.mail.dkim import Key, sign_digest
from relay.signatures import NotHelped

LOOK_EVERY_S = 0.4
SILENT_LOOKS = 5
"""a helper that is seen so often in a row to have made no signature hangs, and isn't asked again"""

_FORGET, _KEY, _SIGN = b"F", b"K", b"S"
_NUMBER = struct.Struct(">I")
_NOT_MADE = b"\0"
_PACKET_BYTES = 65_536

Private = RSAPrivateKey | Ed25519PrivateKey


class HelperEnded(Exception):
    """Only to be said: signatures are made without it."""

    def __init__(self) -> None:
        super().__init__("the helper for signatures ended; they are made without it")


class Forked(NamedTuple):
    """A helper that was begun."""

    pid: int
    link: socket.socket
    """our end of it"""
    bell: int
    """an eventfd: rung when packets were sent. A packet alone wakes nobody: the kernel takes who writes to a socket for
    done, and runs the reader on the same processor in its place"""


def fork() -> Forked | None:
    """Begin the helper. Only while this process has one thread and no event loop. None: it can't be had here."""
    try:
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        pid = os.fork()
    except (OSError, AttributeError):
        return None
    if pid:
        theirs.close()
        return Forked(pid, link, bell)
    try:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # it ends with its owner, which may still have mail to sign
        # Least of all may it hold open what tells others that its owner is gone.
        low, high = sorted((theirs.fileno(), bell))
        os.closerange(3, low)
        os.closerange(low + 1, high)
        os.closerange(high + 1, os.sysconf("SC_OPEN_MAX"))
        serve(theirs, bell)
    finally:
        os._exit(0)


def serve(link: socket.socket, bell: int) -> None:
    """Until the other end is gone."""
    keys: dict[int, Private] = {}
    waiting = select.poll()
    waiting.register(bell, select.POLLIN)
    waiting.register(link, 0)  # its end only
    while True:
        waiting.poll()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(bell)
        with contextlib.suppress(BlockingIOError):
            while packet := link.recv(_PACKET_BYTES, socket.MSG_DONTWAIT):
                _obey(packet, keys, link)
            return


def _obey(packet: bytes, keys: dict[int, Private], link: socket.socket) -> None:
    what, rest = packet[:1], packet[1 + _NUMBER.size :]
    if what == _FORGET:
        keys.clear()
        return
    (number,) = _NUMBER.unpack_from(packet, 1)
    if what == _SIGN:
        link.sendall(_signed(keys, number, rest))
    else:
        # It was proven when the configuration was loaded.
        keys[number] = cast(Private, load_der_private_key(rest, None, unsafe_skip_rsa_key_validation=True))


def _signed(keys: dict[int, Private], number: int, digest: bytes) -> bytes:
    try:
        return sign_digest(keys[number], digest)
    except Exception:  # noqa: BLE001 - the owner makes it then, and meets what is wrong itself
        return _NOT_MADE


class SigningProcess:
    """The helper as its owner sees it (signatures.Helper). `lost` is called once, if it goes before it is closed."""

    def __init__(self, forked: Forked, lost: Callable[[], None]) -> None:
        self._pid, self._link, self._bell = forked
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
        packets = [_KEY + _NUMBER.pack(key.number) + _der(key) for key in keys]
        for packet in (_FORGET, *packets):
            self._send(packet)
        self._ring()

    def sign(self, key: Key, digest: bytes, within_s: float | None = None) -> Awaitable[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        if not self._send(_SIGN + _NUMBER.pack(key.number) + digest):
            _refuse(future)
            return future
        self._pending.append(future)
        if within_s is not None:
            self._loop.call_later(within_s, _refuse, future)
            self._ring()
        elif not self._ringing:
            self._ringing = True
            self._loop.call_soon(self._ring)
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
        self._link.close()
        os.close(self._bell)
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
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
            while packet := self._link.recv(_PACKET_BYTES):
                self._made += 1
                _answer(self._pending.popleft(), packet)
        except BlockingIOError:
            return
        except OSError:
            pass
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
    if packet == _NOT_MADE:
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
