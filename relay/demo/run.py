"""The demo: the relay in a process of its own, between two stand-in upstreams and two apps."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import aiohttp

from relay.demo import scene, view
from relay.demo.process import RelayFailed, RelayProcess
from relay.demo.standin import StandIn
from relay.demo.traffic import submitting

LINE_EVERY_S = 1.0
ANSWER_WITHIN_S = 5.0
EXIT_OK, EXIT_FAILED = 0, 1


async def run(seconds: float | None, early_signals: Sequence[int] = ()) -> int:
    """Run until SIGINT or SIGTERM, or for so many seconds. Returns the exit code.

    `early_signals`: signals that came while this module was loaded. A signal while the relay starts, or a second one
    while it drains, ends the demo at once, with exit code 0.
    """
    stop = asyncio.Event()
    running = asyncio.current_task()
    assert running is not None
    relay_runs = False

    def end() -> None:
        if relay_runs and not stop.is_set():
            stop.set()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    if early_signals:
        return EXIT_OK
    try:
        async with _stage() as relay:
            async with submitting(*relay.smtp):
                relay_runs = True
                lanes = await _watch(f"http://{relay.http_address}", stop, seconds)
            await relay.terminate()
    except asyncio.CancelledError:
        return EXIT_OK
    except RelayFailed as error:
        print(f"otp-relay: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    _print(view.summary(lanes))
    return EXIT_OK


@contextlib.asynccontextmanager
async def _stage() -> AsyncIterator[RelayProcess]:
    """The stand-in upstreams, and the relay between them."""
    with tempfile.TemporaryDirectory(prefix="otp-relay-demo-") as directory:
        async with StandIn("fast", scene.FAST, seed=1) as fast, StandIn("slow", scene.SLOW, seed=2) as slow:
            config_file = scene.write(Path(directory), fast_port=fast.port, slow_port=slow.port)
            async with RelayProcess(config_file, dies_with_us=True) as relay:
                yield relay


async def _watch(url: str, stop: asyncio.Event, seconds: float | None) -> view.Lanes:
    """Print a line a second until the end. Returns the last state of the lanes. Raises RelayFailed."""
    loop = asyncio.get_running_loop()
    begun_at = loop.time()
    _print(f"console: {url}/")
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_WITHIN_S)) as client:
        while not stop.is_set() and (seconds is None or loop.time() - begun_at < seconds):
            elapsed_s = loop.time() - begun_at
            _print(view.line(elapsed_s, await _lanes(client, url)))
            rest_s = LINE_EVERY_S if seconds is None else min(LINE_EVERY_S, seconds - elapsed_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(rest_s):
                    await stop.wait()
        return await _lanes(client, url)


async def _lanes(client: aiohttp.ClientSession, url: str) -> view.Lanes:
    """Raises RelayFailed if the relay doesn't answer."""
    try:
        async with client.get(f"{url}/api/live") as response:
            response.raise_for_status()
            lanes: view.Lanes = (await response.json())["lanes"]
    except (aiohttp.ClientError, TimeoutError) as error:
        raise RelayFailed(f"{url}: {error or 'no answer'}") from error
    return lanes


def _print(text: str) -> None:
    print(text, flush=True)  # noqa: T201
