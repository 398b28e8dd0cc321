"""The link between two processes: exceptions, broken frames, lost peers."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.ipc import Link, LinkLost, RemoteError
from relay.store.base import StoreError
from relay.supervise import listen_to


class Unpackable(Exception):
    """Can't be pickled."""

    def __init__(self) -> None:
        super().__init__("code 123456")
        self.lock = threading.Lock()


class OneWay(Exception):
    """Can be pickled, and not unpickled: its constructor wants what pickle doesn't give it."""

    def __init__(self, *, code: str) -> None:
        super().__init__("refused")


async def answer(kind: str, value: Any) -> Any:
    match kind:
        case "echo":
            return value
        case "store":
            raise StoreError("the disk is full")
        case "unpackable":
            raise Unpackable
        case "one way":
            raise OneWay(code="x")
        case "lock":
            return threading.Lock()
        case _:
            return await asyncio.sleep(60)


class End:
    def __init__(self) -> None:
        self.lost = asyncio.Event()

    async def over(self, sock: socket.socket) -> Link:
        return await Link.over(sock, answer, lambda kind, value: None, self.lost.set)


@asynccontextmanager
async def linked() -> AsyncIterator[tuple[Link, Link, End]]:
    ours, theirs = socket.socketpair()
    end = End()
    here, there = await end.over(ours), await End().over(theirs)
    yield here, there, end
    here.close()
    there.close()


async def test_an_exception_of_the_peers_handler_is_raised_by_ask() -> None:
    async with linked() as (here, _, _):
        with pytest.raises(StoreError, match="the disk is full"):
            await here.ask("store")


@pytest.mark.parametrize(
    ("kind", "error", "text"),
    [
        ("unpackable", RemoteError, "^Unpackable$"),
        ("one way", RemoteError, "^OneWay$"),
        ("lock", TypeError, "cannot pickle"),
    ],
)
async def test_what_cant_be_pickled_is_an_error_and_the_link_goes_on(
    kind: str, error: type[Exception], text: str
) -> None:
    async with linked() as (here, _, _):
        async with asyncio.timeout(5):
            with pytest.raises(error, match=text):
                await here.ask(kind)
            assert await here.ask("echo", 7) == 7


async def test_all_pending_requests_fail_when_the_peer_ends() -> None:
    async with linked() as (here, there, end):
        asking = [asyncio.create_task(here.ask("never")) for _ in range(3)]
        await asyncio.sleep(0)
        there.close()
        async with asyncio.timeout(5):
            assert [type(one) for one in await asyncio.gather(*asking, return_exceptions=True)] == [LinkLost] * 3
            await end.lost.wait()
        with pytest.raises(LinkLost):
            await here.ask("echo")
        here.notify("nobody")


@pytest.mark.parametrize(
    "sent",
    [b"\0\0", struct.pack(">I", 1000) + b"half of a frame", struct.pack(">I", 5) + b"frame"],
    ids=["half of a length", "half of a frame", "no frame at all"],
)
async def test_a_truncated_or_invalid_frame_ends_the_link(sent: bytes) -> None:
    ours, theirs = socket.socketpair()
    end = End()
    link = await end.over(ours)
    asking = asyncio.create_task(link.ask("echo"))
    await asyncio.sleep(0)
    theirs.sendall(sent)
    theirs.shutdown(socket.SHUT_WR)
    async with asyncio.timeout(5):
        with pytest.raises(LinkLost):
            await asking
        await end.lost.wait()
    theirs.close()


async def test_after_a_failing_notification_the_link_and_the_next_frames_go_on() -> None:
    ours, theirs = socket.socketpair()
    heard: list[str] = []
    failed: list[str] = []
    listen_to(asyncio.get_running_loop(), lambda where, error: failed.append(type(error).__name__))

    def notice(kind: str, value: Any) -> None:
        if kind == "unknown":
            raise ValueError(kind)
        heard.append(kind)

    lost = asyncio.Event()
    near = await Link.over(ours, answer, notice, lost.set)
    far = await End().over(theirs)
    try:
        async with asyncio.timeout(10):
            far.notify("unknown")
            far.notify("status")
            assert await far.ask("echo", 1) == 1
        assert (heard, failed, lost.is_set()) == (["status"], ["ValueError"], False)
    finally:
        near.close()
        far.close()


async def test_an_unreadable_frame_is_reported_and_ends_the_link() -> None:
    ours, theirs = socket.socketpair()
    failed: list[str] = []
    listen_to(asyncio.get_running_loop(), lambda where, error: failed.append(type(error).__name__))
    end = End()
    near = await end.over(ours)
    theirs.setblocking(True)
    theirs.sendall(struct.pack(">I", 4) + b"\x00\x01\x02\x03")
    async with asyncio.timeout(10):
        await end.lost.wait()
    assert failed == ["UnpicklingError"]
    with pytest.raises(LinkLost):
        await near.ask("echo")
    theirs.close()
