"""The demo's apps: one sends a code now and then, one floods the relay with a newsletter."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

import aiosmtplib

PROVIDERS = ("gmail.com", "outlook.com", "yahoo.com", "icloud.com", "gmx.de")
CODES_PER_S = 4.0
NEWS_PER_S = 40.0
WITHIN_S = 10.0
AGAIN_AFTER_S = 0.5
CANCEL_EVERY_S = 0.5
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
        self.accepted = 0
        self.failures = 0
        """submissions the relay did not take"""
        self._host = host
        self._port = port
        self._compose = compose
        self._per_s = per_s
        self._ended = False
        self._task: asyncio.Task[None] | None = None
        self._chance = random.Random(per_s)  # noqa: S311 - who gets the next mail

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name="demo app")

    async def end(self) -> None:
        """Stop at once. Raises what the app failed with."""
        # Python 3.11's wait_for, which aiosmtplib sits on, may lose a cancellation to a reply that comes at the same
        # moment; and a client that is cancelled says QUIT, which is answered late beside a backlog.
        self._ended = True
        if self._task is None:
            return
        while not self._task.done():
            self._task.cancel()
            await asyncio.wait((self._task,), timeout=CANCEL_EVERY_S)
        if not self._task.cancelled():
            self._task.result()

    async def _run(self) -> None:
        while not self._ended:
            try:
                async with aiosmtplib.SMTP(
                    hostname=self._host, port=self._port, timeout=WITHIN_S, start_tls=False, local_hostname="demo-app"
                ) as client:
                    await self._send(client)
            except (aiosmtplib.SMTPException, OSError):
                self.failures += 1
                await asyncio.sleep(AGAIN_AFTER_S)

    async def _send(self, client: aiosmtplib.SMTP) -> None:
        while not self._ended:
            sender, to, content = self._compose(self._chance, self.accepted)
            await client.sendmail(sender, [to], content)
            self.accepted += 1
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) / self._per_s)


def code(chance: random.Random, _: int) -> Mail:
    to = _somebody(chance)
    content = _CODE.format(to=to, code=f"{chance.randrange(1_000_000):06}")
    return "codes@auth.demo.example", to, _crlf(content)


def news(chance: random.Random, n: int) -> Mail:
    to = _somebody(chance)
    return "news@demo.example", to, _crlf(_NEWS.format(to=to, n=n + 1))


def _somebody(chance: random.Random) -> str:
    return f"user{chance.randrange(10_000)}@{chance.choice(PROVIDERS)}"


def _crlf(text: str) -> bytes:
    return text.replace("\n", "\r\n").encode()
