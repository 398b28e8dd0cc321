"""The helper: a process that makes private keys' signatures while its owner's event loop goes on.

An RSA-2048 signature takes a third of a bulk message's time in a worker, and a fifth of a code's time in the relay. The
helper is forked before its owner has a thread, a loop or a store, and before it has imported what a relay needs: so it
is small. It ends with its owner.

Protocol, one packet each: `F`: forget all keys. `K`, a number and a key (PKCS #8): keep the key. `S`, a key's number
and a digest: answer with the signature, or with one byte if it can't be made.
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

from relay import prctl
from relay.mail.private_key import PrivateKey, sign_digest

FORGET, KEY, SIGN = b"F", b"K", b"S"
NUMBER = struct.Struct(">I")
NOT_MADE = b"\0"
PACKET_BYTES = 65_536


class HelperProcess(NamedTuple):
    """A helper as its owner holds it."""

    pid: int
    link: socket.socket
    """the owner's end"""
    wakeup_fd: int
    """an eventfd, written after packets were sent. A packet alone must not wake the helper: the kernel would run it on
    the sender's processor, in the sender's place"""

    def terminate(self) -> None:
        """Terminate and reap it."""
        self.link.close()
        os.close(self.wakeup_fd)
        with contextlib.suppress(OSError):
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)


def fork() -> HelperProcess | None:
    """Start a helper, while this process has one thread and no event loop. None: this system can't."""
    try:
        link, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        wakeup_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    except (OSError, AttributeError):
        return None
    try:
        pid = os.fork()
    except OSError:
        link.close()
        theirs.close()
        os.close(wakeup_fd)
        return None
    if pid:
        theirs.close()
        return HelperProcess(pid, link, wakeup_fd)
    try:
        prctl.set_name("signing helper")
        ignore_signals()  # it ends with its owner, which may still have mail to sign
        # It must not hold open a descriptor by which it, or another process, notices the owner's end.
        link.close()
        close_all_but(theirs.fileno(), wakeup_fd)
        serve(theirs, wakeup_fd)
    finally:
        os._exit(0)


def ignore_signals() -> None:
    """Ignore the signals that a terminal or a service manager sends to the whole group."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)


def close_all_but(*descriptors: int) -> None:
    """Close what was inherited, except these and the standard streams."""
    for low, high in pairwise((2, *sorted(descriptors), os.sysconf("SC_OPEN_MAX"))):
        os.closerange(low + 1, high)


def serve(link: socket.socket, wakeup_fd: int) -> None:
    """Answer packets until the owner's end is closed."""
    keys: dict[int, PrivateKey] = {}
    waiting = select.poll()
    waiting.register(wakeup_fd, select.POLLIN)
    waiting.register(link, 0)  # its end only
    while True:
        waiting.poll()
        with contextlib.suppress(BlockingIOError):
            os.eventfd_read(wakeup_fd)
        with contextlib.suppress(BlockingIOError):
            while packet := link.recv(PACKET_BYTES, socket.MSG_DONTWAIT):
                _handle(packet, keys, link)
            return


def _handle(packet: bytes, keys: dict[int, PrivateKey], link: socket.socket) -> None:
    kind, rest = packet[:1], packet[1 + NUMBER.size :]
    if kind == FORGET:
        keys.clear()
        return
    (number,) = NUMBER.unpack_from(packet, 1)
    if kind == SIGN:
        link.sendall(_signature(keys, number, rest))
    else:
        # The key was validated when the configuration was loaded.
        keys[number] = cast(PrivateKey, load_der_private_key(rest, None, unsafe_skip_rsa_key_validation=True))


def _signature(keys: dict[int, PrivateKey], number: int, digest: bytes) -> bytes:
    try:
        return sign_digest(keys[number], digest)
    except Exception:  # noqa: BLE001 - the owner then makes the signature, and meets the fault itself
        return NOT_MADE
