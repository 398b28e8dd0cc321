"""A worker's helper: a process that makes its private keys' signatures while the worker's event loop goes on.

An RSA-2048 signature takes a third of what a bulk message costs a worker, and nothing of Python. A thread for it would
ask for the interpreter's lock twice a signature, of a loop that has none to spare. The helper is forked before the
worker has a loop, a thread or a file open, so that it shares nearly all of its memory. It never outlives the worker.

What is said over the socket pair: `K`, a length and keys (number, length, PKCS #8 each), which replace those it had;
`S`, a key's number and a digest, answered with a length and a signature; a length of 0: it could not be made.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, load_der_private_key

from relay.mail.dkim import Key, sign_digest
from relay.signatures import NotHelped

LOOK_EVERY_S = 1.0
SILENT_LOOKS = 5
"""a helper that is seen so often in a row to have made no signature hangs, and isn't asked again"""

_LENGTH = struct.Struct(">I")
_KEY = struct.Struct(">II")
_SIGN = struct.Struct(">I32s")
_READ_BYTES = 65_536

Private = RSAPrivateKey | Ed25519PrivateKey


def fork() -> tuple[int, socket.socket]:
    """Begin the helper: its process id, and our end of the link to it. Only while this process has one thread and no
    event loop. Raises OSError."""
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if pid:
        theirs.close()
        return pid, ours
    try:
        # Least of all may it hold open what tells others that the worker is gone.
        os.closerange(3, theirs.fileno())
        os.closerange(theirs.fileno() + 1, os.sysconf("SC_OPEN_MAX"))
        serve(theirs)
    finally:
        os._exit(0)


def serve(link: socket.socket) -> None:
    """Until the other end is gone."""
    keys: Mapping[int, Private] = {}
    unread = b""
    while data := link.recv(_READ_BYTES):
        unread += data
        while unread:
            if unread[:1] == b"S" and len(unread) > _SIGN.size:
                number, digest = _SIGN.unpack_from(unread, 1)
                unread = unread[1 + _SIGN.size :]
                link.sendall(_signed(keys, number, digest))
            elif unread[:1] == b"K" and len(unread) >= (end := _end_of_keys(unread)):
                keys, unread = _read_keys(unread[1 + _LENGTH.size : end]), unread[end:]
            else:
                break


def _signed(keys: Mapping[int, Private], number: int, digest: bytes) -> bytes:
    try:
        signature = sign_digest(keys[number], digest)
    except Exception:  # noqa: BLE001 - the worker makes it then, and meets what is wrong itself
        signature = b""
    return _LENGTH.pack(len(signature)) + signature


def _end_of_keys(unread: bytes) -> int:
    start = 1 + _LENGTH.size
    return start + int(_LENGTH.unpack_from(unread, 1)[0]) if len(unread) >= start else start


def _read_keys(data: bytes) -> Mapping[int, Private]:
    keys: dict[int, Private] = {}
    at = 0
    while at < len(data):
        number, length = _KEY.unpack_from(data, at)
        at += _KEY.size
        # They were proven when the configuration was loaded.
        key = load_der_private_key(data[at : at + length], None, unsafe_skip_rsa_key_validation=True)
        keys[number] = cast(Private, key)
        at += length
    return keys


class SigningProcess(asyncio.Protocol):
    """The helper as its worker sees it (signatures.Helper). `lost` is called once, when it is gone."""

    def __init__(self, pid: int, lost: Callable[[], None]) -> None:
        """`pid`: seen off once the link is gone."""
        self._pid = pid
        self._lost = lost
        self._pending: deque[asyncio.Future[bytes]] = deque()
        self._outgoing: list[bytes] = []
        self._unread = b""
        self._made = self._made_before = self._silent = 0
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._watch: asyncio.TimerHandle | None = None

    @classmethod
    async def over(cls, pid: int, ours: socket.socket, lost: Callable[[], None]) -> SigningProcess:
        """Take over what `fork` gave."""
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        _, process = await loop.create_unix_connection(lambda: cls(pid, lost), sock=ours)
        return process

    def load(self, keys: Iterable[Key]) -> None:
        """The keys it can sign with from now on."""
        packed = b"".join(_KEY.pack(key.number, len(der := _der(key))) + der for key in keys)
        self._write(b"K" + _LENGTH.pack(len(packed)) + packed)

    def sign(self, key: Key, digest: bytes) -> Awaitable[bytes]:
        future: asyncio.Future[bytes] = self._loop.create_future()
        if self._transport is None:
            _refuse(future)
            return future
        self._pending.append(future)
        self._write(b"S" + _SIGN.pack(key.number, digest))
        if self._watch is None:
            self._made_before, self._silent = self._made, 0
            self._watch = self._loop.call_later(LOOK_EVERY_S, self._look)
        return future

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _write(self, data: bytes) -> None:
        """What is asked within one turn of the loop leaves together."""
        if not self._outgoing:
            self._loop.call_soon(self._flush)
        self._outgoing.append(data)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None:
            self._transport.writelines(outgoing)

    def _look(self) -> None:
        """In several looks: while this process itself was stopped one of them passes, and not all of them."""
        self._watch = None
        if not self._pending:
            return
        self._silent = self._silent + 1 if self._made == self._made_before else 0
        self._made_before = self._made
        if self._silent >= SILENT_LOOKS:
            self.close()
        else:
            self._watch = self._loop.call_later(LOOK_EVERY_S, self._look)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, not a check: uvloop's transports are asyncio's in all but the class.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        data = self._unread + data if self._unread else data
        at = 0
        while len(data) - at >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(data, at)
            end = at + _LENGTH.size + length
            if len(data) < end:
                break
            self._take(data[at + _LENGTH.size : end])
            at = end
        self._unread = data[at:]

    def _take(self, signature: bytes) -> None:
        self._made += 1
        future = self._pending.popleft()
        if future.done():
            return
        if signature:
            future.set_result(signature)
        else:
            _refuse(future)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._transport = None
        if self._watch is not None:
            self._watch.cancel()
        for future in self._pending:
            if not future.done():
                _refuse(future)
        self._pending.clear()
        with contextlib.suppress(OSError):
            os.kill(self._pid, signal.SIGKILL)
            os.waitpid(self._pid, 0)
        self._lost()


def _refuse(future: asyncio.Future[bytes]) -> None:
    future.set_exception(NotHelped())
    # Looked at: of a message's signatures only the first that fails is waited for, and asyncio would log the others.
    future.exception()


def _der(key: Key) -> bytes:
    return key.private.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
