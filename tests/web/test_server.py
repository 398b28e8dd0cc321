"""Where the HTTP service listens, on either event loop: start, requests, stop."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvloop

from relay.config.network import AnyAddress, TcpAddress, UnixAddress
from relay.demo.process import RelayProcess
from relay.intake.sockets import bind
from relay.store.sqlite.store import open_store
from tests.support.relay import write_config
from tests.web.conftest import NOW, Served, make_backend

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
WITHIN_S = 20.0

type_of_loop = pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
kind_of_address = pytest.mark.parametrize("kind", ["tcp", "unix"])


def run(new_loop: Callable[[], asyncio.AbstractEventLoop], test: Coroutine[None, None, None]) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(test)


@asynccontextmanager
async def listening(folder: Path, kind: str) -> AsyncIterator[Served]:
    store = await open_store(folder / "relay.db", now=lambda: NOW)
    server = Served(make_backend(store, folder))
    address: AnyAddress = UnixAddress(str(folder / "http.sock")) if kind == "unix" else TcpAddress("127.0.0.1", 0)
    await server.start(bind(address, {}))
    yield server
    await server.stop()
    await store.close()


async def connect(server: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    match server.address:
        case UnixAddress(path):
            return await asyncio.open_unix_connection(path)
        case TcpAddress(host, port):
            return await asyncio.open_connection(host, port)
        case other:
            raise AssertionError(other)


async def answered(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(WITHIN_S):
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length is not None
        await reader.readexactly(int(length[1]))
    return head.split(b"\r\n")[0]


@type_of_loop
@kind_of_address
def test_requests_in_pieces_and_one_after_the_other_are_answered(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop], kind: str
) -> None:
    async def test() -> None:
        async with listening(tmp_path, kind) as server:
            at_once, later, gone = [await connect(server) for _ in range(3)]
            at_once[1].write(REQUEST)
            gone[1].transport.abort()
            assert await answered(at_once[0]) == b"HTTP/1.1 200 OK"
            later[1].write(REQUEST[:20])
            later[1].write(REQUEST[20:])
            assert await answered(later[0]) == b"HTTP/1.1 200 OK"
            at_once[1].write(REQUEST)  # the same connection goes on
            assert await answered(at_once[0]) == b"HTTP/1.1 200 OK"
            for _, writer in (at_once, later):
                writer.close()

    run(new_loop, test())


@type_of_loop
def test_a_stop_closes_connections_and_takes_no_new_ones(
    tmp_path: Path, new_loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def test() -> None:
        async with listening(tmp_path, "tcp") as server:
            reader, writer = await connect(server)
            writer.write(REQUEST)
            assert await answered(reader) == b"HTTP/1.1 200 OK"
            await server.stop()
            with pytest.raises(ConnectionRefusedError):
                await connect(server)
            assert await asyncio.wait_for(reader.read(), WITHIN_S) == b""
            writer.close()

    run(new_loop, test())


async def test_a_request_right_at_ready_is_answered(tmp_path: Path) -> None:
    nowhere = {"host": "127.0.0.1", "port": 1, "tls": "none"}
    async with RelayProcess(write_config(tmp_path, {"nowhere": nowhere}, workers=0)) as relay:
        host, _, port = relay.http_address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(REQUEST.replace(b"/healthz", b"/readyz"))
        assert await answered(reader) == b"HTTP/1.1 200 OK"
        writer.close()
        assert await relay.terminate() == 0
