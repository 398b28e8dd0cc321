"""What open consoles ask of the relay: `python -m bench.console_clients PORT --consoles N`.

Each reads `/api/stream`. At most once a second, when something happened, it asks for the messages that are new, as the
console's first page does (relay/web/static/views/messages.js). A browser isn't run: on a reader's machine it would take
nothing of the relay's. Prints `ready 0`, goes on until its standard input is closed, then prints how many requests were
answered, how many were not, and the median and 99th percentile of the answers' milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import time
from datetime import UTC, datetime

import aiohttp
import uvloop

from bench.process import end_with_stdin
from bench.records import quantiles

ASK_EVERY_S = 1.0
ANSWER_WITHIN_S = 20.0
FIRST = ("/", "/static/console.js", "/api/access", "/api/live", "/api/messages?limit=100")


class Console:
    """One open page."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session
        self._happened = asyncio.Event()
        self._since = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        self.times_ms: list[float] = []
        self.failed = 0

    async def run(self) -> None:
        for path in FIRST:
            await self._ask(path)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listen())
            group.create_task(self._follow())

    async def _listen(self) -> None:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=ANSWER_WITHIN_S)
        async with self._session.get("/api/stream", timeout=timeout) as stream:
            async for line in stream.content:
                if line.startswith(b"event: mail"):
                    self._happened.set()

    async def _follow(self) -> None:
        while True:
            await self._happened.wait()
            self._happened.clear()
            await self._ask(f"/api/messages?since={self._since}&limit=100")
            await asyncio.sleep(ASK_EVERY_S)

    async def _ask(self, path: str) -> None:
        began = time.perf_counter()
        async with self._session.get(path, timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as answer:
            found = await answer.json() if path.startswith("/api/messages") else await answer.read()
            self.failed += answer.status != 200
        self.times_ms.append((time.perf_counter() - began) * 1000)
        if isinstance(found, list) and found:
            self._since = found[0]["accepted_at"]


async def main(port: int, consoles: int) -> None:
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as session:
        open_ones = [Console(session) for _ in range(consoles)]
        tasks = [asyncio.create_task(one.run()) for one in open_ones]
        await asyncio.sleep(1.0)  # all of them have their first page
        print("ready 0", flush=True)
        stop, loop = asyncio.Event(), asyncio.get_running_loop()
        end_with_stdin(lambda: loop.call_soon_threadsafe(stop.set))
        await stop.wait()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    times_ms = [ms for one in open_ones for ms in one.times_ms]
    failed = sum(one.failed for one in open_ones)
    found = quantiles(times_ms)
    print(len(times_ms) - failed, failed, f"{found.p50:.1f}", f"{found.p99:.1f}", flush=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("--consoles", type=int, default=5)
    args = parser.parse_args()
    uvloop.run(main(args.port, args.consoles))
