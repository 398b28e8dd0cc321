"""The demo's apps: one sends codes, one floods the relay with a newsletter."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
from collections.abc import Callable

import aiosmtplib

PROVIDERS = ("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "gmx.de")
NEWS_SENDER = "news@demo.example"
CODES_PER_S = 4.0
NEWS_PER_S = 100.0
WITHIN_S = 10.0
AGAIN_AFTER_S = 0.5
CANCEL_EVERY_S = 0.5
BURST_CONNECTIONS = 10
_CODE = """\
From: Demo Login <codes@auth.demo.example>
To: {to}
Subject: Your verification code: {code}
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

Your code is {code}. It is good for ten minutes.
"""
_NEWS = (
    """\
From: Demo News <news@demo.example>
To: {to}
Subject: News, number {n}
MIME-Version: 1.0
Content-Type: text/plain; charset=utf-8

"""
    + 30 * "Nothing in here is urgent, and there is a lot of it.\n"
)

Mail = tuple[str, str, bytes]
"""sender, recipient, content"""


class App:
    """Submits one mail after the other to the relay, from `start` to `end`."""

    def __init__(self, host: str, port: int, compose: Callable[[random.Random, int], Mail], per_s: float) -> None:
        self._host = host
        self._port = port
        self._compose = compose
        self._per_s = per_s
        self._accepted = 0
        self._ended = False
        self._goes_on = asyncio.Event()
        self._goes_on.set()
        self._task: asyncio.Task[None] | None = None
        self._random = random.Random(per_s)  # noqa: S311 - chooses recipients

    def start(self) -> None:
        self._task = asyncio.create_task(self.run(), name="demo app")

    def pause(self, is_paused: bool) -> None:
        """Submit nothing more while it is paused."""
        if is_paused:
            self._goes_on.clear()
        else:
            self._goes_on.set()

    async def end(self) -> None:
        """Stop at once. Raises the exception that ended the app."""
        # Python 3.11's wait_for, which aiosmtplib uses, may lose a cancellation to a reply that comes at the same
        # moment. And a client that is cancelled sends QUIT, whose reply is late beside a backlog.
        self._ended = True
        if self._task is None:
            return
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CANCEL_EVERY_S)
        if not self._task.cancelled():
            self._task.result()

    async def run(self) -> None:
        """Submit until the end, over a new connection after each failure."""
        while not self._ended:
            try:
                async with _connected(self._host, self._port) as client:
                    await self._submit(client)
            except (aiosmtplib.SMTPException, OSError):
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _submit(self, client: aiosmtplib.SMTP) -> None:
        while not self._ended:
            await self._goes_on.wait()
            sender, to, content = self._compose(self._random, self._accepted)
            await client.sendmail(sender, [to], content)
            self._accepted += 1
            await asyncio.sleep(self._random.uniform(0.5, 1.5) / self._per_s)


class Burst(App):
    """Submits `count` codes at once, over BURST_CONNECTIONS connections."""

    def __init__(self, host: str, port: int, count: int, accepted: Callable[[str], None], ended: Callable[[], None]):
        """`accepted`: called with the id of each message that the relay has accepted; `ended`: once, after the last."""
        super().__init__(host, port, code, CODES_PER_S)
        self._random = random.Random()  # noqa: S311 - chooses recipients: other ones for each burst
        self._count = count
        self._on_accepted = accepted
        self._on_end = ended

    async def run(self) -> None:
        shares = [len(range(first, self._count, BURST_CONNECTIONS)) for first in range(BURST_CONNECTIONS)]
        await asyncio.gather(*(self._share(count) for count in shares if count))
        self._on_end()

    async def _share(self, count: int) -> None:
        with contextlib.suppress(aiosmtplib.SMTPException, OSError):
            async with _connected(self._host, self._port) as client:
                for _ in range(count):
                    sender, to, content = self._compose(self._random, 0)
                    _, reply = await client.sendmail(sender, [to], content)
                    if found := re.search(r"queued as (\S+)", reply):
                        self._on_accepted(found[1])


class Apps:
    """The demo's apps submit mail from `start` to `end`."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._codes = App(host, port, code, CODES_PER_S)
        self._news = App(host, port, news, NEWS_PER_S)
        self._bursts: list[Burst] = []

    def start(self) -> None:
        self._codes.start()
        self._news.start()

    def burst(self, count: int, accepted: Callable[[str], None], ended: Callable[[], None]) -> None:
        """Submit so many codes at once; see `Burst`."""
        burst = Burst(self._host, self._port, count, accepted, ended)
        self._bursts.append(burst)
        burst.start()

    def pause_news(self, is_paused: bool) -> None:
        self._news.pause(is_paused)

    async def end(self) -> None:
        """Raises the first exception that ended an app."""
        ends = (app.end() for app in (self._codes, self._news, *self._bursts))
        for failure in await asyncio.gather(*ends, return_exceptions=True):
            if failure is not None:
                raise failure


def _connected(host: str, port: int) -> aiosmtplib.SMTP:
    return aiosmtplib.SMTP(hostname=host, port=port, timeout=WITHIN_S, start_tls=False, local_hostname="demo-app")


def code(source: random.Random, _: int) -> Mail:
    """A mail with a one-time code."""
    to = _recipient(source)
    content = _CODE.format(to=to, code=f"{source.randrange(1_000_000):06}")
    return "codes@auth.demo.example", to, _crlf(content)


def news(source: random.Random, n: int) -> Mail:
    """The newsletter number `n`, from 0."""
    to = _recipient(source)
    return NEWS_SENDER, to, _crlf(_NEWS.format(to=to, n=n + 1))


def _recipient(source: random.Random) -> str:
    return f"user{source.randrange(10_000)}@{source.choice(PROVIDERS)}"


def _crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()
