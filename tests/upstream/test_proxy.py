"""Connections by SOCKS and HTTP proxies, real and lying ones."""

from __future__ import annotations

import asyncio
import base64
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from relay.upstream.proxy import MAX_ANSWER_BYTES, ProxiedAddresses, ProxyRefused
from tests.delivery.harness import config, delivering, outcomes
from tests.delivery.test_api import CODE, api
from tests.support.api import ApiServer
from tests.support.esps import Esp
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

WITHIN_S = 5.0
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(handler: Handler) -> AsyncIterator[int]:
    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(handle, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


class Proxy:
    """Speaks SOCKS5 and CONNECT, as the first octet tells; `asked` has the names that it was to connect to."""

    def __init__(self, login: str | None = None, *, together: bool = False) -> None:
        """`together`: the answer waits for the first bytes of the server, and leaves with them."""
        self.asked: list[tuple[str, int]] = []
        self._login = login
        self._together = together

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"\x05":
            answer = await self._socks(reader, writer)
        else:
            answer = await self._connect(first, reader, writer)
        if answer is None:
            return
        host, port = self.asked[-1]
        there = await asyncio.open_connection("127.0.0.1" if host.endswith(".test") else host, port)
        if self._together:
            answer += await there[0].read(1000)
        writer.write(answer)
        await asyncio.gather(_pump(reader, there[1]), _pump(there[0], writer), return_exceptions=True)
        there[1].close()

    async def _socks(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        await reader.readexactly((await reader.readexactly(1))[0])
        if self._login is None:
            writer.write(b"\x05\x00")
        else:
            writer.write(b"\x05\x02")
            await reader.readexactly(1)
            user = await reader.readexactly((await reader.readexactly(1))[0])
            password = await reader.readexactly((await reader.readexactly(1))[0])
            right = f"{user.decode()}:{password.decode()}" == self._login
            writer.write(b"\x01\x00" if right else b"\x01\x01")
            if not right:
                return None
        head = await reader.readexactly(4)
        assert head[3] == 3, "the proxy is to look the name up"
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
        self.asked.append((host, int.from_bytes(await reader.readexactly(2), "big")))
        return b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00"

    async def _connect(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes | None:
        head = (first + await reader.readuntil(b"\r\n\r\n")).decode()
        wanted = None if self._login is None else base64.b64encode(self._login.encode()).decode()
        if wanted is not None and f"Proxy-Authorization: Basic {wanted}".lower() not in head.lower():
            writer.write(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return None
        host, _, port = head.split()[1].rpartition(":")
        self.asked.append((host, int(port)))
        return b"HTTP/1.1 200 Connection established\r\n\r\n"


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "http"])
@pytest.mark.parametrize("login", [None, "user:se cret"], ids=["open", "login"])
async def test_mail_goes_by_smtp_through_a_proxy_which_looks_the_name_up(
    tmp_path: Path, scheme: str, login: str | None
) -> None:
    proxy = Proxy(login, together=True)
    async with listening(proxy) as port, Upstream() as smtp:
        user = "user:se%20cret@" if login else ""
        upstream = {
            "host": "mail.example.test",
            "port": smtp.port,
            "tls": "none",
            "allow_plaintext": True,
            "proxy": f"{scheme}://{user}127.0.0.1:{port}",
        }
        async with delivering(tmp_path, config({"far": upstream})) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert outcomes(view)[-1] == ("far", "sent")
        assert set(proxy.asked) == {("mail.example.test", smtp.port)}


async def test_an_api_over_tls_is_verified_behind_a_proxy(tmp_path: Path, certificates: Certificates) -> None:
    proxy = Proxy()
    async with listening(proxy) as port, ApiServer(esp := Esp("resend"), tls=certificates.good) as server:
        upstream = api("resend", server.url, ca_file=certificates.ca_file, proxy=f"http://127.0.0.1:{port}")
        async with delivering(tmp_path, config({"resend": upstream})) as bench:
            await bench.ended(await bench.send("u@example.net", content=CODE))
        assert len(esp.mails) == 1
        assert set(proxy.asked) == {("localhost", server.port)}


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()


def _says(data: bytes) -> Handler:
    async def say(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(data)
        await writer.drain()
        if data:
            await reader.read()

    return say


async def _endless(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        await writer.drain()


LIES: list[tuple[str, str, Handler]] = [
    ("http refuses", "http", _says(b"HTTP/1.1 403 Forbidden\r\n\r\n")),
    ("http garbles", "http", _says(b"\x00\xff\r\n\r\n" * 10)),
    ("http endless", "http", _endless),
    ("http long line", "http", _says(b"HTTP/1.1 200 " + b"x" * (MAX_ANSWER_BYTES + 10))),
    ("socks refuses", "socks5", _says(b"\x05\xff")),
    ("socks garbles", "socks5", _says(b"HTTP/1.1 400 Bad\r\n\r\n")),
    ("socks closes", "socks5", _says(b"")),
]


@pytest.mark.parametrize(("scheme", "handler"), [lie[1:] for lie in LIES], ids=[lie[0] for lie in LIES])
async def test_a_proxy_that_lies_is_no_way_and_its_text_isnt_repeated(scheme: str, handler: Handler) -> None:
    async with listening(handler) as port:
        addresses = ProxiedAddresses(f"{scheme}://user:s3cret@127.0.0.1:{port}", "mail.example.test", 25)
        with pytest.raises(ProxyRefused) as raised:
            await asyncio.wait_for(addresses.connected(), WITHIN_S)
        assert "s3cret" not in str(raised.value)


@pytest.mark.parametrize("handler", [_silent, *(lie[2] for lie in LIES[:3])], ids=["silent", "no", "junk", "endless"])
async def test_mail_goes_to_the_next_upstream_within_the_attempt(tmp_path: Path, handler: Handler) -> None:
    async with listening(handler) as port, Upstream() as other:
        far: dict[str, Any] = {
            "host": "mail.example.test",
            "port": 25,
            "tls": "none",
            "allow_plaintext": True,
            "proxy": f"http://127.0.0.1:{port}",
        }
        async with delivering(tmp_path, config({"far": far, "other": other})) as bench:
            view = await bench.ended(await bench.send("u@example.net", content=CODE))
        assert view["recipients"][0]["upstream"] == "other"


async def test_a_proxy_that_isnt_there_is_told_as_such() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    addresses = ProxiedAddresses(f"socks5://127.0.0.1:{port}", "mail.example.test", 25)
    with pytest.raises(ProxyRefused, match="can't be reached"):
        await addresses.connected()
