"""What SNS asks a webhook to fetch: its certificates, and the URL that confirms a subscription."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from cryptography import x509

FETCH_WITHIN_S = 5.0
MOST_BYTES = 64_000
KEPT_FOR_S = 24 * 3600.0
FAILED_FOR_S = 10.0
"""a certificate that couldn't be had isn't asked for again meanwhile"""
MOST_KEPT = 100
CONFIRM_AGAIN_S = (1.0, 5.0, 30.0, 120.0, 600.0, 1_800.0, 0.0)
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,120}\.pem")

Trouble = Callable[[str, BaseException], None]


class Unfetched(Exception):
    """Why something couldn't be had; the text quotes no URL."""


class SnsClient:
    """Fetches over verified TLS, without redirects, proxies or cookies. The caller has checked the host."""

    def __init__(
        self,
        trouble: Trouble,
        confirmed: Callable[[], None] = lambda: None,
        *,
        connector: Callable[[], aiohttp.BaseConnector] | None = None,
    ) -> None:
        """`trouble` is called with what failed, `confirmed` when a subscription is confirmed. `connector`: for tests,
        how it connects."""
        self._confirmed = confirmed
        self._trouble = trouble
        self._connector = connector or aiohttp.TCPConnector
        self._session: aiohttp.ClientSession | None = None
        self._kept: dict[str, tuple[float, bytes | None]] = {}
        self._fetching: dict[str, asyncio.Task[bytes | None]] = {}
        self._confirming: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        under_way = [*self._fetching.values(), *self._confirming.values()]
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    async def get(self, url: str, folder: str | None) -> bytes | None:
        """The certificate in PEM at that URL: from the folder where it is there, else fetched, and kept for a day.
        None: it can't be had now."""
        if folder is not None and (found := await asyncio.to_thread(_from_folder, Path(folder), url)) is not None:
            return found
        until, pem = self._kept.get(url, (0.0, None))
        if time.monotonic() < until:
            return pem
        task = self._fetching.get(url)
        if task is None:
            task = self._fetching[url] = asyncio.create_task(self._fetch_certificate(url), name="fetch certificate")
            task.add_done_callback(lambda _: self._fetching.pop(url, None))
        return await asyncio.shield(task)

    def confirm(self, url: str) -> None:
        """Begin to fetch the URL that confirms a subscription, until it is answered 200 or the last pause is over.
        SNS itself asks three times only, so its request is answered at once."""
        if url not in self._confirming and len(self._confirming) < MOST_KEPT:
            task = self._confirming[url] = asyncio.create_task(self._confirm(url), name="confirm subscription")
            task.add_done_callback(lambda _: self._confirming.pop(url, None))

    async def _confirm(self, url: str) -> None:
        for pause_s in CONFIRM_AGAIN_S:
            if await self._fetch(url, "confirm_subscription") is not None:
                self._confirmed()
                return
            await asyncio.sleep(pause_s)

    async def _fetch_certificate(self, url: str) -> bytes | None:
        pem = await self._fetch(url, "sns_certificate")
        if pem is not None and not _is_certificate(pem):
            # A portal's page, say. It must not pass for Amazon's answer: SNS drops what is refused.
            self._trouble("sns_certificate", Unfetched("what was fetched is no certificate"))
            pem = None
        if len(self._kept) >= MOST_KEPT:
            self._kept.clear()
        self._kept[url] = time.monotonic() + (FAILED_FOR_S if pem is None else KEPT_FOR_S), pem
        return pem

    async def _fetch(self, url: str, what: str) -> bytes | None:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=self._connector(),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=FETCH_WITHIN_S),
            )
        try:
            async with self._session.get(url, allow_redirects=False) as response:
                if response.status != 200:
                    raise Unfetched(f"SNS answered {response.status}")
                content = bytearray()
                async for piece in response.content.iter_any():
                    content += piece
                    if len(content) > MOST_BYTES:
                        raise Unfetched("the answer is too large")
                return bytes(content)
        except Unfetched as error:
            self._trouble(what, error)
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            # Not its text, which may quote the URL with its token.
            self._trouble(what, Unfetched(type(error).__name__))
        return None


def _is_certificate(pem: bytes) -> bool:
    try:
        x509.load_pem_x509_certificate(pem)
    except ValueError:
        return False
    return True


def _from_folder(folder: Path, url: str) -> bytes | None:
    name = urlsplit(url).path.rpartition("/")[2]
    if not _NAME.fullmatch(name):
        return None
    try:
        with (folder / name).open("rb") as file:
            return file.read(MOST_BYTES)
    except OSError:
        return None
