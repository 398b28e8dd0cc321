"""The demo: the real relay as a process of its own, between two stand-in upstreams and two apps, and a view on it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import tempfile
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from rich.console import Console
from rich.live import Live

from relay.demo import scene, view
from relay.demo.process import RelayFailed, RelayProcess
from relay.demo.standin import StandIn
from relay.demo.traffic import CODES_PER_S, NEWS_PER_S, App, code, news

LOOK_EVERY_S = 0.5
LOOKS_A_LINE = 2
LOOK_WITHIN_S = 5.0
EXIT_OK, EXIT_FAILED = 0, 1


class Demo:
    """The running relay, its apps, and what was seen of them."""

    def __init__(self, relay: RelayProcess, client: aiohttp.ClientSession) -> None:
        self.relay = relay
        self._client = client
        self._codes = App(*relay.smtp, code, CODES_PER_S)
        self._news = App(*relay.smtp, news, NEWS_PER_S)
        self._backlog: deque[int] = deque(maxlen=view.BACKLOG_KEPT)
        self._begun_at = asyncio.get_running_loop().time()

    @property
    def elapsed_s(self) -> float:
        return asyncio.get_running_loop().time() - self._begun_at

    @contextlib.asynccontextmanager
    async def submitting(self) -> AsyncIterator[None]:
        """The apps at work."""
        self._codes.start()
        self._news.start()
        try:
            yield
        finally:
            ends = await asyncio.gather(self._codes.end(), self._news.end(), return_exceptions=True)
        for failure in ends:
            if failure is not None:
                raise failure

    async def look(self) -> view.Picture:
        """Ask the relay how it is. Raises RelayFailed when it doesn't answer."""
        url = f"http://{self.relay.http_address}"
        try:
            async with self._client.get(f"{url}/api/live") as answer:
                live: dict[str, Any] = await answer.json()
                answer.raise_for_status()
        except (aiohttp.ClientError, TimeoutError) as error:
            raise RelayFailed(f"{url}: {error or 'no answer'}\n{self.relay.stderr[-2000:]}") from error
        self._backlog.append(view.waiting(live["lanes"]["bulk"]))
        return view.Picture(
            elapsed_s=self.elapsed_s,
            console_url=f"{url}/",
            lanes=live["lanes"],
            backlog=tuple(self._backlog),
            codes=self._codes.accepted,
            news=self._news.accepted,
            failures=self._codes.failures + self._news.failures,
        )


async def run(seconds: float | None, console: Console, asked: Sequence[int] = ()) -> int:
    """Until SIGINT, SIGTERM, or so many seconds have passed. Returns the exit code. `asked`: signals that came before,
    while this was loaded. A signal while the relay starts, and a second one while it drains, end it at once, and are as
    good an end as any."""
    stop = asyncio.Event()
    running = asyncio.current_task()
    assert running is not None
    is_watching = False

    def end() -> None:
        if is_watching and not stop.is_set():
            stop.set()
        else:
            running.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, end)
    if asked:
        return EXIT_OK
    try:
        async with _stage() as demo:
            async with demo.submitting():
                is_watching = True
                with _shown(console) as show:
                    await _watch(demo, show, stop, seconds)
                picture = await demo.look()
            await demo.relay.terminate()
    except asyncio.CancelledError:
        return EXIT_OK
    except RelayFailed as error:
        print(f"otp-relay: {error}", file=sys.stderr)  # noqa: T201 - a command's own word
        return EXIT_FAILED
    console.print(view.summary(picture), markup=False, highlight=False, soft_wrap=True)
    return EXIT_OK


@contextlib.asynccontextmanager
async def _stage() -> AsyncIterator[Demo]:
    with tempfile.TemporaryDirectory(prefix="otp-relay-demo-") as directory:
        async with StandIn("fast", scene.FAST, seed=1) as fast, StandIn("slow", scene.SLOW, seed=2) as slow:
            config_file = scene.write(Path(directory), fast_port=fast.port, slow_port=slow.port)
            timeout = aiohttp.ClientTimeout(total=LOOK_WITHIN_S)
            async with (
                RelayProcess(config_file, dies_with_us=True) as relay,
                aiohttp.ClientSession(timeout=timeout) as client,
            ):
                yield Demo(relay, client)


async def _watch(demo: Demo, show: Callable[[view.Picture], None], stop: asyncio.Event, seconds: float | None) -> None:
    while not stop.is_set() and (seconds is None or demo.elapsed_s < seconds):
        show(await demo.look())
        rest_s = LOOK_EVERY_S if seconds is None else min(LOOK_EVERY_S, seconds - demo.elapsed_s)
        with contextlib.suppress(TimeoutError):  # time for the next look
            async with asyncio.timeout(rest_s):
                await stop.wait()


@contextlib.contextmanager
def _shown(console: Console) -> Iterator[Callable[[view.Picture], None]]:
    """A live picture on a terminal, a line a second elsewhere."""
    if console.is_terminal:
        with Live(console=console, auto_refresh=False) as live:
            yield lambda picture: live.update(view.render(picture), refresh=True)
        return
    looks = 0

    def show(picture: view.Picture) -> None:
        nonlocal looks
        if looks == 0:
            console.print(f"console: {picture.console_url}", markup=False, highlight=False, soft_wrap=True)
        if looks % LOOKS_A_LINE == 0:
            console.print(view.line(picture), markup=False, highlight=False, soft_wrap=True)
        looks += 1

    yield show
