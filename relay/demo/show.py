"""One run of the demo in front of its viewer: follows the relay, reacts to keys, prints lines or draws the picture."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace
from typing import NamedTuple

from relay.demo import view
from relay.demo.history import BULK, Burst, History
from relay.demo.standin import StandIn
from relay.demo.terminal import Screen
from relay.demo.traffic import Apps
from relay.demo.watch import Watch

LINE_EVERY_S = 1.0
PICTURE_EVERY_S = 0.25
MOST_WAITING = 6_000
"""bulk messages; the newsletter pauses while more wait, so that the demo can be left alone"""


class Actors(NamedTuple):
    """What the demo has beside the relay."""

    apps: Apps
    fast: StandIn
    slow: StandIn


class Show:
    """`run` it once. Its history has all that was seen."""

    def __init__(self, url: str, actors: Actors, seconds: float | None, stop: asyncio.Event) -> None:
        """`url`: the relay's HTTP address; `seconds`: end after so many; `stop`: end when it is set."""
        self.history = History()
        self.watch = Watch(url, self.history)
        self._url = url
        self._actors = actors
        self._seconds = seconds
        self._stop = stop
        self._changed = asyncio.Event()
        self._has_begun = False
        self._was_in_hiccup = False
        self._reviving: asyncio.Task[None] | None = None

    async def run(self, present: Callable[[Show], Awaitable[None]]) -> None:
        """Let the apps submit mail while `present` runs. Raises RelayFailed if the relay doesn't answer."""
        following = asyncio.create_task(self.watch.follow(self._on_live), name="demo stream")
        presenting = asyncio.ensure_future(present(self))
        try:
            await asyncio.wait((following, presenting), return_when=asyncio.FIRST_COMPLETED)
            (following if following.done() else presenting).result()
        finally:
            tasks = [one for one in (following, presenting, self._reviving) if one is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._actors.apps.end()

    @property
    def is_over(self) -> bool:
        return self._stop.is_set() or (self._seconds is not None and self.watch.elapsed_s >= self._seconds)

    async def wait(self, for_s: float) -> None:
        """Wait so long; until the end, a key or `redraw` at most."""
        if self._seconds is not None:
            for_s = max(0.0, min(for_s, self._seconds - self.watch.elapsed_s))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(for_s):
                await self._changed.wait()
        self._changed.clear()

    def redraw(self) -> None:
        self._changed.set()

    def end(self) -> None:
        self._stop.set()
        self.redraw()

    def press(self, keys: str) -> None:
        """What the viewer typed; keys without a meaning are ignored."""
        for key in keys.lower():
            if key == "k":
                self._kill_or_revive()
            elif key == "b":
                self._burst()
            elif key == "q":
                self._stop.set()
        self.redraw()

    def moment(self) -> view.Moment:
        self._note_hiccups()
        return view.moment(
            self.history,
            self.watch.elapsed_s,
            self._url,
            is_fast_killed=not self._actors.fast.is_alive,
            is_slow_in_hiccup=self._was_in_hiccup,
        )

    def _on_live(self) -> None:
        if not self._has_begun:  # not before the stream is open: every event is to be seen
            self._has_begun = True
            self._actors.apps.start()
        self._actors.apps.pause_news(self.history.waiting(BULK) > MOST_WAITING)

    def _kill_or_revive(self) -> None:
        fast = self._actors.fast
        if fast.is_alive:
            dropped = fast.kill()
            self._note(f"fast is killed: {dropped} connections dropped, no new ones accepted", is_bad=True)
        elif self._reviving is None or self._reviving.done():
            self._reviving = asyncio.create_task(self._revive(), name="revive fast")

    async def _revive(self) -> None:
        try:
            await self._actors.fast.revive()
        except OSError as error:  # another program has its port now
            self._note(f"fast can't listen again: {error.strerror}", is_bad=True)
        else:
            self._note("fast listens again; the relay probes it")
        self.redraw()

    def _burst(self) -> None:
        burst = Burst()

        def ended() -> None:
            burst.is_handed_over = True

        self._actors.apps.burst(view.BURST, burst.ids.append, ended)
        self.history.burst(burst)
        self._note(f"burst: {view.BURST} codes at once")

    def _note_hiccups(self) -> None:
        is_in_hiccup = self._actors.slow.is_in_hiccup
        if is_in_hiccup and not self._was_in_hiccup:
            self._note("slow has a hiccup: it refuses the newsletter for some seconds (451)", is_bad=True)
        if not is_in_hiccup and self._was_in_hiccup:
            self._note("slow is well again; what it refused is tried again later")
        self._was_in_hiccup = is_in_hiccup

    def _note(self, text: str, *, is_bad: bool = False) -> None:
        self.history.note(self.watch.elapsed_s, text, is_bad=is_bad)


async def print_lines(show: Show) -> None:
    """A line a second, and a line for each note."""
    noted = 0
    while not show.is_over:
        print(view.line(show.moment()), flush=True)  # noqa: T201
        for note in show.history.notes_since(noted):
            print(view.note_line(note), flush=True)  # noqa: T201
        noted = show.history.noted
        await show.wait(LINE_EVERY_S)


async def draw_picture(show: Show, screen: Screen, style: view.Style) -> None:
    """The picture, four times a second, until the end or until the terminal has gone."""
    with screen, _reacting(show, screen), contextlib.suppress(OSError):
        while not show.is_over:
            columns, rows = screen.size
            screen.draw(view.picture(show.moment(), replace(style, columns=columns, rows=rows)))
            await show.wait(PICTURE_EVERY_S)


@contextlib.contextmanager
def _reacting(show: Show, screen: Screen) -> Iterator[None]:
    """Keys, a new size and Ctrl-Z have their effect inside the block."""
    loop = asyncio.get_running_loop()
    keys_fd = screen.keys_fd

    def read_keys() -> None:
        keys = screen.read_keys()
        if not keys and keys_fd is not None:  # the terminal has gone
            loop.remove_reader(keys_fd)
        show.press(keys)

    def suspend() -> None:
        screen.leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        screen.enter()
        show.redraw()

    handlers = {signal.SIGWINCH: show.redraw, signal.SIGTSTP: suspend}
    for number, handler in handlers.items():
        loop.add_signal_handler(number, handler)
    if keys_fd is not None:
        loop.add_reader(keys_fd, read_keys)
    try:
        yield
    finally:
        if keys_fd is not None:
            loop.remove_reader(keys_fd)
        for number in handlers:
            loop.remove_signal_handler(number)
