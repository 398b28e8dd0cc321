"""What a worker and the helper that makes its signatures say to each other, cut anywhere."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import struct
import threading
import time
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mail.dkim import Key
from relay.signatures import NotHelped
from relay.workers import signer as signing
from relay.workers.signer import SigningProcess
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


def give(numbered: dict[int, PrivateKey]) -> bytes:
    packed = b""
    for number, key in numbered.items():
        der = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        packed += struct.pack(">II", number, len(der)) + der
    return b"K" + struct.pack(">I", len(packed)) + packed


def said(signature: bytes) -> bytes:
    return struct.pack(">I", len(signature)) + signature


def conversation() -> tuple[bytes, bytes]:
    """What a worker says, and what it must be answered."""
    first, second, third, fourth, fifth = DIGESTS
    asked = [
        ask(1, first), give({1: ed25519_key(), 0x4B000000: rsa_key()}), ask(1, first), ask(0x4B000000, second),
        ask(9, third), ask(1, second), give({1: OTHER}), ask(1, third), ask(0x4B000000, fourth), give({}),
        ask(1, fifth), give({2: OTHER}), ask(2, fifth),
    ]  # fmt: skip
    answers = [
        b"", ed25519_key().sign(first), rsa_key().sign(second, PKCS1v15(), Prehashed(SHA256())), b"",
        ed25519_key().sign(second), OTHER.sign(third), b"", b"", OTHER.sign(fifth),
    ]  # fmt: skip
    return b"".join(asked), b"".join(map(said, answers))


def pieces(data: bytes, at: set[int]) -> list[bytes]:
    cuts = [0, *sorted(each % len(data) for each in at), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(cuts) if start < end]


def served(parts: list[bytes]) -> bytes:
    """What `serve` answers to these, one `recv` each."""
    # Packets, not a stream: what is sent apart is read apart.
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(WITHIN_S)
        thread = threading.Thread(target=signing.serve, args=(theirs,), daemon=True)
        thread.start()
        try:
            for part in parts:
                ours.sendall(part)
        finally:
            ours.shutdown(socket.SHUT_WR)
            thread.join(WITHIN_S)
        assert not thread.is_alive()
        theirs.close()
        answers = b""
        while answer := ours.recv(65_536):
            answers += answer
        return answers


@settings(max_examples=60, deadline=None)
@given(st.sets(st.integers(0, 4_000), max_size=40))
def test_requests_may_be_cut_anywhere_and_are_answered_in_order(at: set[int]) -> None:
    asked, answers = conversation()
    assert served(pieces(asked, at)) == answers


def test_requests_may_come_byte_by_byte() -> None:
    asked, answers = conversation()
    keys_end = asked.index(ask(1, DIGESTS[0]), 37)
    parts = [asked[:37], asked[37 : keys_end - 40], *pieces(asked[keys_end - 40 :], set(range(4_000)))]
    assert served(parts) == answers


class PlayedLink(asyncio.Transport):
    """The helper's end, played by the test."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.process: SigningProcess

    def write(self, data: Any) -> None:
        self.written += data

    def abort(self) -> None:
        self.process.connection_lost(None)


def played() -> tuple[PlayedLink, SigningProcess, list[None]]:
    losses: list[None] = []
    link = PlayedLink()
    link.process = SigningProcess(NO_PROCESS, lambda: losses.append(None))
    link.process.connection_made(link)
    return link, link.process, losses


def answer(process: SigningProcess, signature: bytes) -> None:
    process.data_received(said(signature))


@settings(max_examples=60, deadline=None)
@given(
    answers=st.lists(st.binary(max_size=9), min_size=1, max_size=8),
    at=st.sets(st.integers(0, 200), max_size=20),
    cancelled=st.sets(st.integers(0, 7)),
)
def test_answers_may_be_cut_anywhere_and_go_to_who_asked(
    answers: list[bytes], at: set[int], cancelled: set[int]
) -> None:
    async def talk() -> None:
        link, process, _ = played()
        asked = [asyncio.ensure_future(process.sign(KEY, DIGEST)) for _ in answers]
        await asyncio.sleep(0)
        assert link.written == ask(KEY.number, DIGEST) * len(answers)
        for number in cancelled & set(range(len(answers))):
            asked[number].cancel()
        for part in pieces(b"".join(map(said, answers)), at):
            process.data_received(part)
        for number, signature in enumerate(answers):
            if number in cancelled:
                assert asked[number].cancelled()
            elif signature:
                assert await asked[number] == signature
            else:
                with pytest.raises(NotHelped):
                    await asked[number]
        process.close()

    asyncio.run(asyncio.wait_for(talk(), WITHIN_S))


async def test_one_that_nobody_asks_or_that_goes_on_slowly_does_not_hang() -> None:
    _, process, losses = played()
    first, second = process.sign(KEY, DIGEST), process.sign(KEY, DIGEST)
    answer(process, b"one")
    process._look()
    assert losses == []
    answer(process, b"two")
    for _ in range(3):
        process._look()
    assert losses == []
    assert [await first, await second] == [b"one", b"two"]
    third, slow = process.sign(KEY, DIGEST), process.sign(KEY, DIGEST)
    for _ in range(signing.SILENT_LOOKS - 1):
        process._look()
    answer(process, b"three")
    for _ in range(signing.SILENT_LOOKS):
        process._look()
    assert losses == []
    assert await third == b"three"
    process._look()
    with pytest.raises(NotHelped):
        await slow
    assert losses == [None]


def test_the_helper_ends_with_the_other_end_and_holds_nothing_else_open() -> None:
    os.dup2(1, 900)  # what is open in the worker, with a higher number than the link's
    pid, ours = signing.fork()
    os.close(900)
    try:
        ours.settimeout(WITHIN_S)
        ours.sendall(ask(1, DIGEST))
        assert ours.recv(100) == said(b"")  # it is past its beginning
        held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
        links = [os.readlink(f"/proc/{pid}/fd/{each}") for each in held - {0, 1, 2}]
        assert [link.partition(":")[0] for link in links] == ["socket"]
        ours.close()
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
