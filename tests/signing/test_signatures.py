"""The helper that makes a worker's signatures: what it answers, what becomes of the mail when it doesn't."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256

from relay.clock import Clock
from relay.mail.dkim import Key, Signature, Signer, Unsigned
from relay.mail.envelope import Envelope, Recipient
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.signing import client as signing
from relay.signing import helper
from relay.signing.client import HelperClient, HelperUnavailable
from relay.signing.helper import HelperProcess
from relay.signing.signatures import (
    HELP_WITHIN_S,
    LARGE_BYTES,
    MAX_BULK_PENDING,
    MAX_PENDING,
    Signatures,
)
from relay.store.model import Queued
from tests.mail.material import OTP, ed25519_key, keys, rsa_key, signer
from tests.mail.test_dkim import verdicts

BOTH = ("s1", "e1")
WITHIN_S = 10.0
DIGEST = bytes(range(32))


@pytest.fixture
def forked() -> Iterator[HelperProcess]:
    made = helper.fork()
    assert made is not None
    yield made
    with contextlib.suppress(ChildProcessError):  # it was seen off already
        if os.waitpid(made.pid, os.WNOHANG) == (0, 0):
            os.kill(made.pid, signal.SIGKILL)
            os.waitpid(made.pid, 0)


class Helped:
    """A helper as its owner sees it, and how often it was lost."""

    def __init__(self, forked: HelperProcess) -> None:
        self.pid = forked.pid
        self.losses = 0
        self.lost = asyncio.Event()
        self.process = HelperClient(forked, self.lose)

    def lose(self) -> None:
        self.losses += 1
        self.lost.set()


@asynccontextmanager
async def helped(forked: HelperProcess) -> AsyncIterator[Helped]:
    made = Helped(forked)
    try:
        yield made
    finally:
        made.process.close()
        assert is_seen_off(made.pid)


def is_seen_off(pid: int) -> bool:
    """Not even a zombie is left."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


class Here:
    """Signatures that were made by the worker itself."""

    count = 0


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> Here:
    counted = Here()
    real = Unsigned.sign

    def sign(self: Unsigned) -> Signature:
        counted.count += 1
        return real(self)

    monkeypatch.setattr(Unsigned, "sign", sign)
    return counted


def signatures(signs: Signer, helper: HelperClient | None) -> Signatures:
    clock = Clock()
    made = Signatures(clock, MailLog(Metrics(), Recent(), clock=clock.now))
    made.use(signs)
    made.helper = helper
    return made


def queued(content: bytes = OTP) -> Queued:
    envelope = Envelope("no-reply@auth.example.com", (Recipient("user@example.net"),))
    return Queued("01", "bulk", None, envelope, content, 0.0, 600.0, ())


async def sent(by: Signatures) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        return b"".join(await signed(by, queued()))


async def signed(by: Signatures, message: Queued) -> Sequence[bytes]:
    return await by.sign(message, frozenset(), express=False)


async def made_of(signature: Awaitable[bytes]) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        return await signature


async def refused(signature: Awaitable[bytes]) -> None:
    async with asyncio.timeout(WITHIN_S):
        with pytest.raises(HelperUnavailable):
            await signature


# What it makes


@pytest.mark.parametrize("selectors", [("s1",), ("e1",), BOTH])
async def test_the_helpers_signatures_hold_for_dkimpy(
    forked: HelperProcess, here: Here, selectors: tuple[str, ...]
) -> None:
    signs = signer({"example.com": keys(*selectors)})
    async with helped(forked) as to:
        to.process.load(signs.keys)
        for _ in range(3):
            assert verdicts(await sent(signatures(signs, to.process)), *selectors) == [True] * len(selectors)
    assert here.count == 0


async def test_many_messages_at_once_each_get_their_own_signatures(forked: HelperProcess, here: Here) -> None:
    signs = signer({"example.com": keys(*BOTH)})
    async with helped(forked) as to:
        to.process.load(signs.keys)
        made = signatures(signs, to.process)
        contents = [OTP.replace(b"123456", b"%06d" % n) for n in range(30)]
        async with asyncio.timeout(WITHIN_S):
            parts = await asyncio.gather(*(signed(made, queued(content)) for content in contents))
    for each, content in zip(parts, contents, strict=True):
        assert each[1] == content
        assert verdicts(b"".join(each), *BOTH) == [True, True]
    assert here.count == 0


async def test_the_keys_of_a_second_load_replace_the_first(forked: HelperProcess, here: Here) -> None:
    old, new = signer({"example.com": keys("s1")}), signer({"example.com": keys("e2", "s2")})
    async with helped(forked) as to:
        to.process.load(old.keys)
        assert verdicts(await sent(signatures(old, to.process)), "s1") == [True]
        before = to.process.sign(old.keys[0], DIGEST)
        to.process.load(new.keys)
        after = to.process.sign(old.keys[0], DIGEST)
        rsa_key().public_key().verify(await made_of(before), DIGEST, PKCS1v15(), Prehashed(SHA256()))
        await refused(after)
        assert verdicts(await sent(signatures(new, to.process)), "e2", "s2") == [True, True]
        to.process.load(())
        await refused(to.process.sign(new.keys[0], DIGEST))
    assert here.count == 0


async def test_the_helper_has_the_keys_of_the_configuration_in_force(forked: HelperProcess) -> None:
    async with helped(forked) as to:
        by = signatures(Signer((), {}), to.process)
        first, second = (signer({"example.com": keys(selector)}) for selector in BOTH)
        by.use(first)
        assert await made_of(to.process.sign(first.keys[0], DIGEST)) == first.keys[0].sign(DIGEST)
        by.use(second)
        assert await made_of(to.process.sign(second.keys[0], DIGEST)) == second.keys[0].sign(DIGEST)
        await refused(to.process.sign(first.keys[0], DIGEST))


# What it can't make


async def test_what_a_key_it_does_not_have_should_sign_is_signed_here(forked: HelperProcess, here: Here) -> None:
    signs = signer({"example.com": keys(*BOTH)})
    async with helped(forked) as to:
        to.process.load(signs.keys[1:])
        await refused(to.process.sign(signs.keys[0], DIGEST))
        assert verdicts(await sent(signatures(signs, to.process)), *BOTH) == [True, True]
        assert to.losses == 0
    assert here.count == 1


async def test_a_key_that_cannot_sign_harms_no_other(forked: HelperProcess) -> None:
    other: Any = ec.generate_private_key(ec.SECP256R1())
    bad, good = Key("x", other, b""), Key("e1", ed25519_key(), b"")
    async with helped(forked) as to:
        to.process.load((bad, good))
        asked = [to.process.sign(key, DIGEST) for key in (bad, good, bad)]
        await refused(asked[0])
        ed25519_key().public_key().verify(await made_of(asked[1]), DIGEST)
        await refused(asked[2])
        assert to.losses == 0


async def test_without_a_helper_the_worker_signs(here: Here) -> None:
    signs = signer({"example.com": keys(*BOTH)})
    assert verdicts(await sent(signatures(signs, None)), *BOTH) == [True, True]
    assert here.count == 1


# When it is gone


async def test_a_helper_that_was_killed_is_noticed_once_and_the_mail_is_signed_here(
    forked: HelperProcess, here: Here
) -> None:
    signs = signer({"example.com": keys(*BOTH)})
    async with helped(forked) as to:
        to.process.load(signs.keys)
        made = signatures(signs, to.process)
        os.kill(to.pid, signal.SIGSTOP)  # nothing is answered any more
        waiting = [asyncio.ensure_future(sent(made)) for _ in range(5)]
        asked = to.process.sign(signs.keys[0], DIGEST)
        await asyncio.sleep(0)
        os.kill(to.pid, signal.SIGKILL)
        await refused(asked)
        for content in await asyncio.gather(*waiting):
            assert verdicts(content, *BOTH) == [True, True]
        assert is_seen_off(to.pid)
        await refused(to.process.sign(signs.keys[0], DIGEST))
        to.process.load(signs.keys)
        assert verdicts(await sent(made), *BOTH) == [True, True]
    await asyncio.sleep(0)
    assert (to.losses, here.count) == (1, 6)


@pytest.mark.parametrize("made_before", [0, 3])
async def test_a_helper_that_hangs_is_noticed_once_and_seen_off(
    forked: HelperProcess, monkeypatch: pytest.MonkeyPatch, made_before: int
) -> None:
    monkeypatch.setattr(signing, "CHECK_EVERY_S", 0.02)
    signs = signer({"example.com": keys("e1")})
    async with helped(forked) as to:
        to.process.load(signs.keys)
        for _ in range(made_before):
            await made_of(to.process.sign(signs.keys[0], DIGEST))
        os.kill(to.pid, signal.SIGSTOP)
        for asked in [to.process.sign(signs.keys[0], DIGEST) for _ in range(3)]:
            await refused(asked)
        async with asyncio.timeout(WITHIN_S):
            await to.lost.wait()
        assert is_seen_off(to.pid)
    await asyncio.sleep(0)
    assert to.losses == 1


async def test_what_nobody_waits_for_any_more_is_not_complained_of(forked: HelperProcess) -> None:
    """A message has a signature of each key; the first that fails ends the wait for the others."""
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    signs = signer({"example.com": keys("s1", "e1", "e2")})
    async with helped(forked) as to:
        made = signatures(signs, to.process)  # nothing was loaded: three refusals
        assert verdicts(await sent(made), "s1", "e1", "e2") == [True, True, True]
        os.kill(to.pid, signal.SIGSTOP)
        waiting, given_up = asyncio.ensure_future(sent(made)), asyncio.ensure_future(sent(made))
        await asyncio.sleep(0)
        given_up.cancel()
        os.kill(to.pid, signal.SIGKILL)
        assert verdicts(await waiting, "s1", "e1", "e2") == [True, True, True]
        assert verdicts(await sent(made), "s1", "e1", "e2") == [True, True, True]
    await asyncio.gather(given_up, return_exceptions=True)
    del waiting, given_up
    gc.collect()
    await asyncio.sleep(0)
    assert complaints == []


# Which way is taken


class Asked:
    """A helper that is asked and never answers."""

    def __init__(self) -> None:
        self.limits: list[tuple[int, float | None]] = []
        self.signatures: list[asyncio.Future[bytes]] = []

    def load(self, keys: Iterable[Key]) -> None: ...

    def has(self, key: Key) -> bool:
        return True

    def sign(self, key: Key, digest: bytes, max_pending: int, within_s: float | None) -> Awaitable[bytes]:
        self.limits.append((max_pending, within_s))
        self.signatures.append(asyncio.get_running_loop().create_future())
        return self.signatures[-1]


@pytest.mark.parametrize("express", [True, False])
async def test_the_helper_is_asked_when_sign_returns_and_a_code_waits_for_it_less(here: Here, express: bool) -> None:
    by = signatures(signer({"example.com": keys("s1")}), None)
    helper_process = Asked()
    by.helper = cast(HelperClient, helper_process)
    signing = by.sign(queued(), frozenset(), express=express)
    (pending,) = helper_process.signatures
    limits = (MAX_PENDING, HELP_WITHIN_S) if express else (MAX_BULK_PENDING, None)
    assert helper_process.limits == [limits]
    pending.set_exception(HelperUnavailable())
    assert verdicts(b"".join(await signing), "s1") == [True]
    assert here.count == 1


async def test_with_many_signatures_pending_a_code_is_signed_here(forked: HelperProcess, here: Here) -> None:
    signs = signer({"example.com": keys("s1")})
    async with helped(forked) as to:
        by = signatures(signs, to.process)
        to.process.load(signs.keys)
        os.kill(to.pid, signal.SIGSTOP)
        pending = [to.process.sign(signs.keys[0], DIGEST) for _ in range(MAX_PENDING + 1)]
        async with asyncio.timeout(WITHIN_S):
            parts = await by.sign(queued(), frozenset(), express=True)
        assert verdicts(b"".join(parts), "s1") == [True]
        assert here.count == 1
        os.kill(to.pid, signal.SIGCONT)
        for each in pending:
            assert await made_of(each) == signs.keys[0].sign(DIGEST)


async def test_a_large_content_is_signed_on_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    real, threads = Unsigned.sign, []

    def sign(self: Unsigned) -> Signature:
        threads.append(threading.current_thread())
        return real(self)

    monkeypatch.setattr(Unsigned, "sign", sign)
    by = signatures(signer({"example.com": keys("s1")}), None)
    for size_bytes in (10, LARGE_BYTES):
        content = OTP + b"x" * 70 + b"\r\n" * (size_bytes // 2)
        async with asyncio.timeout(WITHIN_S):
            assert verdicts(b"".join(await signed(by, queued(content))), "s1") == [True]
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


@pytest.mark.parametrize("size_bytes", [10, LARGE_BYTES])
async def test_what_no_key_is_for_and_what_cannot_be_signed_goes_unsigned(
    caplog: pytest.LogCaptureFixture, size_bytes: int
) -> None:
    assert await signed(signatures(Signer((), {}), None), queued()) == (OTP,)
    by = signatures(signer({"example.com": keys("s1")}), None)
    rest = b"\r\nSubject: x\r\n\r\n" + b"line\r\n" * (size_bytes // 6)
    other = b"From: a@other.example" + rest
    assert await signed(by, queued(other)) == (other,)
    assert caplog.records == []
    broken = b"From: a@example.com\r\nno field at all" + rest
    assert await signed(by, queued(broken)) == (broken,)
    (record,) = caplog.records
    assert record.getMessage().startswith("event=unsigned id=01 lane=bulk reason=")
