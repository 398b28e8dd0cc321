"""Which HTTP client gets a small request to the server soonest: h11 over the relay's own connection, aiohttp, httpx.

`python -m bench.http_clients [--count N] [--rounds N]`: loopback, TLS, one warm connection each, in turns. httpx is no
dependency of the project: without it, its column is missing.
"""

from __future__ import annotations

import argparse
import asyncio
import ssl
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp
import h11
import uvloop

from bench.options import table
from bench.process import Child, module
from bench.records import Spread, arrivals, quantiles
from relay.config.access import endpoint
from relay.upstream.http.connect import open_connection
from relay.upstream.server import ApiServer, dialer
from tests.support.tls import make_certificates

_PATH = "/emails"
_FILL = "x" * 2048
_ARRIVE_WITHIN_S = 5.0
Post = Callable[[bytes], Awaitable[int]]
"""sends a body, returns the status"""


def _body(bench_id: int) -> bytes:
    return b'{"headers":{"X-Bench-ID": "%016x"},"text":"%b"}' % (bench_id, _FILL.encode())


async def _own(stack: AsyncExitStack, url: str, context: ssl.SSLContext) -> Post:
    where = endpoint(url)
    server = ApiServer(where, context, dialer(None)(where.host, where.port))
    connection = await open_connection(server, timeout_s=5, express=True)
    stack.callback(connection.abort)

    async def post(body: bytes) -> int:
        headers = [("Host", where.authority), ("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
        head = h11.Request(method="POST", target=_PATH, headers=headers)
        exchange = await connection.exchange(head, body, deadline=time.monotonic() + 5, final_s=5)
        assert exchange.answer is not None
        return exchange.answer.status

    return post


async def _aiohttp(stack: AsyncExitStack, url: str, context: ssl.SSLContext) -> Post:
    session = await stack.enter_async_context(
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=context), auto_decompress=False, cookie_jar=aiohttp.DummyCookieJar()
        )
    )

    async def post(body: bytes) -> int:
        async with session.post(url + _PATH, data=body, headers={"Content-Type": "application/json"}) as response:
            await response.read()
            return response.status

    return post


async def _httpx(stack: AsyncExitStack, url: str, context: ssl.SSLContext) -> Post:
    import httpx

    client = await stack.enter_async_context(httpx.AsyncClient(verify=context))

    async def post(body: bytes) -> int:
        response = await client.post(url + _PATH, content=body, headers={"Content-Type": "application/json"})
        return int(response.status_code)

    return post


CLIENTS = {"relay (h11)": _own, "aiohttp": _aiohttp, "httpx": _httpx}


async def _measure(url: str, context: ssl.SSLContext, out: Path, count: int, rounds: int) -> list[list[str]]:
    last_byte: dict[str, list[float]] = {}
    answered: dict[str, list[float]] = {}
    numbers = iter(range(1, 1 << 40))
    async with AsyncExitStack() as stack:
        posts: dict[str, Post] = {}
        for name, make in CLIENTS.items():
            try:
                posts[name] = await make(stack, url, context)
            except ImportError:
                print(f"{name}: not installed")
        for turn in range(rounds + 1):
            for name, post in posts.items():
                began: dict[int, int] = {}
                waited: list[float] = []
                for _ in range(count if turn else 50):
                    bench_id = next(numbers)
                    body = _body(bench_id)
                    began[bench_id] = at = time.monotonic_ns()
                    assert await post(body) == 200
                    waited.append((time.monotonic_ns() - at) / 1e6)
                    await asyncio.sleep(0.001)
                if turn:  # the first is a warm-up
                    last_byte.setdefault(name, []).append(quantiles(await _arrived(out, began)).p50)
                    answered.setdefault(name, []).append(quantiles(waited).p50)
    return [[name, _cell(last_byte[name]), _cell(answered[name])] for name in last_byte]


async def _arrived(out: Path, began: dict[int, int]) -> list[float]:
    until = time.monotonic() + _ARRIVE_WITHIN_S
    while True:
        found = [one for one in arrivals(out) if one.bench_id in began]
        if len(found) == len(began) or time.monotonic() > until:
            return [(one.at_ns - began[one.bench_id]) / 1e6 for one in found]
        await asyncio.sleep(0.05)


def _cell(values: list[float]) -> str:
    spread = Spread.of(values)
    return f"{spread.median:.3f} ({spread.low:.3f}–{spread.high:.3f})"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.http_clients", description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        certificates = make_certificates(Path(folder))
        good, out = certificates.good, Path(folder, "arrivals")
        argv = module("api_sink", "--kind", "resend", "--out", out, "--cert", good.cert_file, "--key", good.key_file)
        with Child(argv, Path(folder, "sink.log"), talks=True) as sink:
            url = f"https://localhost:{int(sink.line().removeprefix('ready '))}"
            context = ssl.create_default_context(cafile=str(certificates.ca_file))
            rows = uvloop.run(_measure(url, context, out, args.count, args.rounds))
    print(table(("client", "p50 to the last byte, ms", "p50 to the answer, ms"), rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
