"""The link between two processes when what goes over it is not what either hoped for."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from relay.store.base import StoreError
from relay.supervise import listen_to
from relay.workers.link import Link, LinkLost, RemoteError


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


async def test_what_the_other_end_raises_is_raised_here() -> None:
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
async def test_what_cant_be_brought_over_is_an_error_and_the_link_goes_on(
    kind: str, error: type[Exception], text: str
) -> None:
    async with linked() as (here, _, _):
        async with asyncio.timeout(5):
            with pytest.raises(error, match=text):
                await here.ask(kind)
            assert await here.ask("echo", 7) == 7


async def test_the_end_of_the_other_process_is_told_to_all_who_wait() -> None:
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
async def test_a_frame_that_breaks_off_or_is_none_ends_the_link(sent: bytes) -> None:
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


async def test_a_notice_that_fails_loses_neither_the_link_nor_what_comes_behind_it() -> None:
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


async def test_what_cant_be_read_ends_the_link_with_a_line() -> None:
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
