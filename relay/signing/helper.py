"""A helper: a process that makes private keys' signatures while the event loop of its owner goes on.

An RSA-2048 signature takes a third of what a bulk message costs a worker, and a fifth of a code's time in the relay;
it needs nothing of Python. A thread for it asks for the interpreter's lock twice a signature, of a loop that has none
to spare. The helper is forked before its owner has a thread, a loop or a store, and before it has imported what a relay
needs: so it is small. It never outlives its owner.

What is said, a packet each: `F`, forget all keys; `K`, a number and the key with it (PKCS #8); `S`, a key's number and
a digest, answered with the signature, or with one byte: it could not be made.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
from itertools import pairwise
from typing import NamedTuple, cast

from cryptography.hazmat.primitives.serialization import load_der_private_key

from relay.mail.private import PrivateKey, sign_digest

FORGET, KEY, SIGN = b"F", b"K", b"S"
NUMBER = struct.Struct(">I")
NOT_MADE = b"\0"
PACKET_BYTES = 65_536


class Forked(NamedTuple):
    """A helper that was begun."""

    pid: int
    link: socket.socket
    """our end of it"""
    bell: int
    """an eventfd: rung when packets were sent. A packet alone wakes nobody: the kernel takes who writes to a socket for
    done, and runs the reader on the same processor in its place"""

    def end(self) -> None:
        """See it off."""
        self.link.close()
        os.close(self.bell)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def fork() -> Forked | None:
    """Begin the helper. Only while this process has one thread and no event loop. None: it can't be had here."""
    try:
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except (OSError, AttributeError):
        return None
    try:
        pid = os.fork()
    except OSError:
        link.close()
        theirs.close()
        os.close(bell)
        return None
    if pid:
        theirs.close()
        return Forked(pid, link, bell)
    try:
        ignore_signals()  # it ends with its owner, which may still have mail to sign
        # Least of all may it hold open what tells it, or others, that its owner is gone.
        link.close()
        close_all_but(theirs.fileno(), bell)
        serve(theirs, bell)
    finally:
        os._exit(0)


def ignore_signals() -> None:
    """Those that a terminal, or a service manager, gives to the whole group: when to stop isn't said by them."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def close_all_but(*descriptors: int) -> None:
    """Close what was inherited, but for these and the standard streams."""
    for low, high in pairwise((2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX"))):
        os.closerange(low + 1, high)


def serve(link: socket.socket, bell: int) -> None:
    """Until the other end is gone."""
    keys: dict[int, PrivateKey] = {}
    waiting = select.poll()
    waiting.register(bell, select.POLLIN)
    waiting.register(link, 0)  # its end only
    while True:
        waiting.poll()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(bell)
        with contextlib.suppress(BlockingIOError):
            while packet := link.recv(PACKET_BYTES, socket.MSG_DONTWAIT):
                _obey(packet, keys, link)
            return


def _obey(packet: bytes, keys: dict[int, PrivateKey], link: socket.socket) -> None:
    what, rest = packet[:1], packet[1 + NUMBER.size :]
    if what == FORGET:
        keys.clear()
        return
    (number,) = NUMBER.unpack_from(packet, 1)
    if what == SIGN:
        link.sendall(_signed(keys, number, rest))
    else:
        # It was proven when the configuration was loaded.
        keys[number] = cast(PrivateKey, load_der_private_key(rest, None, unsafe_skip_rsa_key_validation=True))


def _signed(keys: dict[int, PrivateKey], number: int, digest: bytes) -> bytes:
    try:
        return sign_digest(keys[number], digest)
    except Exception:  # noqa: BLE001 - the owner makes it then, and meets what is wrong itself
        return NOT_MADE
