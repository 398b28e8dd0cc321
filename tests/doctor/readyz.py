"""A relay's /readyz that answers as configured."""

from __future__ import annotations

import aiohttp.web


class Readyz:
    """Entered, it gives its port on 127.0.0.1."""

    def __init__(self, status: int, body: str) -> None:
        self.status, self.body = status, body

    async def __aenter__(self) -> int:
        app = aiohttp.web.Application()
        app.router.add_get("/readyz", self._answer)
        self.runner = aiohttp.web.AppRunner(app)
        await self.runner.setup()
        await aiohttp.web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return int(self.runner.addresses[0][1])

    async def __aexit__(self, *_: object) -> None:
        await self.runner.cleanup()

    async def _answer(self, _: aiohttp.web.Request) -> aiohttp.web.Response:
        return aiohttp.web.Response(status=self.status, text=self.body, content_type="application/json")
