"""The demo: the relay in a process of its own, between two stand-in upstreams and two apps."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from relay.demo import scene, view
from relay.demo.process import RelayFailed, RelayProcess
from relay.demo.show import Actors, Show, draw_picture, print_lines
from relay.demo.standin import StandIn
from relay.demo.terminal import Screen, can_show_picture, is_unicode
from relay.demo.traffic import Apps

EXIT_OK, EXIT_FAILED = 0, 1


async def run(seconds: float | None, early_signals: Sequence[int] = ()) -> int:
    """Run until SIGINT or SIGTERM, or for so many seconds. Returns the exit code.

    `early_signals`: signals that came while this module was loaded. A signal while the relay starts, or a second one
    while it drains, ends the demo at once, with exit code 0.
    """
    stop = asyncio.Event()
    running = asyncio.current_task()
    assert running is not None
    show: Show | None = None

    def end() -> None:
        if show is not None and not stop.is_set():
            show.end()
        else:
            running.cancel()

    _on_signals(end)
    if early_signals:
        return EXIT_OK
    try:
        async with (
            StandIn("fast", scene.FAST, seed=1) as fast,
            StandIn("slow", scene.SLOW, seed=2) as slow,
            _relay_before(fast, slow) as relay,
        ):
            url = f"http://{relay.http_address}/"
            _print_link(url)
            show = Show(url, Actors(Apps(*relay.smtp), fast, slow), seconds, stop)
            await show.run(_presentation())
            await show.watch.look()
            await relay.terminate()
    except asyncio.CancelledError:
        return EXIT_OK
    except RelayFailed as error:
        print(f"otp-relay: {error}", file=sys.stderr)  # noqa: T201
        return EXIT_FAILED
    for line in view.summary(show.history):
        print(line, flush=True)  # noqa: T201
    return EXIT_OK


def _on_signals(end: Callable[[], None]) -> None:
    """Have `end` called by what ends the demo: Ctrl-C, SIGTERM, a terminal that is closed."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) == signal.SIG_DFL:  # nohup(1) ignores it
            loop.add_signal_handler(number, end)


@contextlib.asynccontextmanager
async def _relay_before(fast: StandIn, slow: StandIn) -> AsyncIterator[RelayProcess]:
    """The relay, with these as its upstreams."""
    with tempfile.TemporaryDirectory(prefix="otp-relay-demo-") as directory:
        config_file = scene.write(Path(directory), fast_port=fast.port, slow_port=slow.port)
        async with RelayProcess(config_file, dies_with_us=True) as relay:
            yield relay


def _print_link(url: str) -> None:
    """In the place of the line that told that the relay starts (cli/demo), if there is one."""
    text = f"console: {url}"
    print(f"\r{text:<79}" if sys.stdout.isatty() else text, flush=True)  # noqa: T201


def _presentation() -> Callable[[Show], Coroutine[Any, Any, None]]:
    """The picture where stdout is a terminal that can show it, else plain lines."""
    if not can_show_picture(os.environ):
        return print_lines
    out_fd = sys.stdout.fileno()
    keys_fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
    style = view.Style(
        colour=not os.environ.get("NO_COLOR"),
        unicode=is_unicode(os.environ, sys.stdout.encoding),
        keys=keys_fd is not None,
    )
    return functools.partial(draw_picture, screen=Screen(out_fd, keys_fd), style=style)
