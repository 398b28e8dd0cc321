"""What a process and the helper that makes its signatures say to each other."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Awaitable
from typing import Self

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.dkim import Key
from relay.signing import client as signing
from relay.signing import helper
from relay.signing.client import HelperClient, HelperUnavailable
from relay.signing.helper import HelperProcess
from tests.mail.material import PrivateKey, ed25519_key, rsa_key

WITHIN_S = 10.0
NO_PROCESS = 2**31 - 1
"""larger than any process id"""
DIGEST = bytes(range(32))
OTHER = Ed25519PrivateKey.generate()
KEY = Key("e1", OTHER, b"")
DIGESTS = [bytes([n]) * 31 + b"K" for n in b"SK\x00\x01\xff"]


def ask(number: int, digest: bytes) -> bytes:
    return b"S" + struct.pack(">I", number) + digest


def give(number: int, key: PrivateKey) -> bytes:
    return b"K" + struct.pack(">I", number) + key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())


FORGET, NOT_MADE = b"F", b"\0"


def conversation() -> tuple[list[bytes], list[bytes]]:
    """What an owner says, and what it must be answered."""
    first, second, third, fourth, fifth = DIGESTS
    asked = [
        ask(1, first), give(1, ed25519_key()), give(0x4B000000, rsa_key()), ask(1, first), ask(0x4B000000, second),
        ask(9, third), ask(1, second), FORGET, give(1, OTHER), ask(1, third), ask(0x4B000000, fourth), FORGET,
        ask(1, fifth), give(2, OTHER), ask(2, fifth),
    ]  # fmt: skip
    answers = [
        NOT_MADE, ed25519_key().sign(first), rsa_key().sign(second, PKCS1v15(), Prehashed(SHA256())), NOT_MADE,
        ed25519_key().sign(second), OTHER.sign(third), NOT_MADE, NOT_MADE, OTHER.sign(fifth),
    ]  # fmt: skip
    return asked, answers


def served(packets: list[bytes], rung_after: set[int]) -> list[bytes]:
    """What `serve` answers, the wakeup_fd being rung behind those packets and the last."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    wakeup_fd = os.eventfd(0, os.EFD_NONBLOCK)
    with ours, theirs:
        ours.settimeout(WITHIN_S)
        thread = threading.Thread(target=helper.serve, args=(theirs, wakeup_fd), daemon=True)
        thread.start()
        try:
            for at, packet in enumerate(packets):
                ours.sendall(packet)
                if at in rung_after:
                    os.eventfd_write(wakeup_fd, 1)
            os.eventfd_write(wakeup_fd, 1)
            return [ours.recv(65_536) for packet in packets if packet[:1] == b"S"]
        finally:
            ours.close()
            thread.join(WITHIN_S)
            assert not thread.is_alive()
            os.close(wakeup_fd)


@settings(max_examples=40, deadline=None)
@given(st.sets(st.integers(0, 14)))
def test_what_is_asked_is_answered_in_order_however_often_the_bell_rings(rung_after: set[int]) -> None:
    asked, answers = conversation()
    assert served(asked, rung_after) == answers


class Played:
    """A helper played by the test."""

    def __init__(self) -> None:
        ours, self.link = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.link.settimeout(WITHIN_S)
        self.losses = 0
        self.process = HelperClient(HelperProcess(NO_PROCESS, ours, os.eventfd(0, os.EFD_NONBLOCK)), self._lost)

    def _lost(self) -> None:
        self.losses += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.close()
        self.link.close()


async def refused(asked: Awaitable[bytes]) -> None:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(HelperUnavailable):
            await asked


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.binary(min_size=1, max_size=9), min_size=1, max_size=8),
    cancelled=st.sets(st.integers(0, 7)),
)
def test_answers_go_to_who_asked(answers: list[bytes], cancelled: set[int]) -> None:
    async def talk() -> None:
        with Played() as helper:
            asked = [asyncio.ensure_future(helper.process.sign(KEY, DIGEST)) for _ in answers]
            assert [helper.link.recv(100) for _ in answers] == [ask(KEY.number, DIGEST)] * len(answers)
            for number in cancelled & set(range(len(answers))):
                asked[number].cancel()
            for signature in answers:
                helper.link.sendall(signature)
            for number, signature in enumerate(answers):
                if number in cancelled:
                    assert asked[number].cancelled()
                elif signature == NOT_MADE:
                    await refused(asked[number])
                else:
                    assert await asked[number] == signature
            assert helper.losses == 0

    asyncio.run(asyncio.wait_for(talk(), WITHIN_S))


async def test_one_that_nobody_asks_or_that_goes_on_slowly_does_not_hang() -> None:
    with Played() as helper:
        process = helper.process
        first, second = process.sign(KEY, DIGEST), process.sign(KEY, DIGEST)
        helper.link.sendall(b"one")
        assert await first == b"one"
        process.check()
        helper.link.sendall(b"two")
        assert await second == b"two"
        for _ in range(signing.MAX_IDLE_CHECKS + 1):
            process.check()
        third, slow = process.sign(KEY, DIGEST), process.sign(KEY, DIGEST)
        for _ in range(signing.MAX_IDLE_CHECKS - 1):
            process.check()
        helper.link.sendall(b"three")
        assert await third == b"three"
        for _ in range(signing.MAX_IDLE_CHECKS):
            process.check()
        assert helper.losses == 0
        process.check()
        await refused(slow)
        assert helper.losses == 1


async def test_a_code_waits_for_it_so_long_and_what_comes_late_is_nobody_elses() -> None:
    with Played() as helper:
        late = helper.process.sign(KEY, DIGEST, within_s=0.01)
        await refused(late)
        asked = helper.process.sign(KEY, DIGEST)
        for signature in (b"late", b"asked"):
            helper.link.sendall(signature)
        assert await asked == b"asked"
        assert helper.losses == 0


async def test_one_that_has_more_to_do_than_fits_is_not_waited_for() -> None:
    with Played() as helper:
        asked = [helper.process.sign(KEY, DIGEST) for _ in range(5_000)]
        await refused(asked[-1])
        helper.link.sendall(b"made")
        assert await asked[0] == b"made"
        assert helper.losses == 0


async def test_closed_by_its_owner_it_is_not_said_to_be_lost() -> None:
    with Played() as helper:
        asked = helper.process.sign(KEY, DIGEST)
        helper.process.close()
        await refused(asked)
        await refused(helper.process.sign(KEY, DIGEST))
        helper.process.load(())
        assert helper.losses == 0


def test_the_helper_ends_with_the_other_end_and_holds_nothing_else_open() -> None:
    os.dup2(1, 900)  # what is open in the worker, with a higher number than the link's
    forked = helper.fork()
    assert forked is not None
    pid, ours, wakeup_fd = forked
    os.close(900)
    try:
        ours.settimeout(WITHIN_S)
        ours.sendall(ask(1, DIGEST))
        os.eventfd_write(wakeup_fd, 1)
        assert ours.recv(100) == NOT_MADE  # it is past its beginning
        held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        links = [os.readlink(f"/proc/{pid}/fd/{each}") for each in held - {0, 1, 2}]
        assert sorted(link.partition(":")[0] for link in links) == ["anon_inode", "socket"]
        ours.close()
        os.close(wakeup_fd)
        ends = time.monotonic() + WITHIN_S
        while (seen := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            assert time.monotonic() < ends
            time.sleep(0.005)
        assert seen == (pid, 0)
    except BaseException:
        with contextlib.suppress(ChildProcessError):
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise
