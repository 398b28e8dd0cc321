"""Webhooks have a guard of their own: they take what providers post, and each judges it by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import aiohttp
import pytest

from relay.web.backend import Answer, Backend
from relay.web.webhooks import MAX_BODY_BYTES
from tests.web.conftest import TOKEN, serve

PROVIDERS = {"Host": "hooks.example.com", "Origin": "https://sns.example", "Sec-Fetch-Site": "cross-site"}


class Kept:
    """A webhook that keeps what it is given."""

    def __init__(self) -> None:
        self.given: list[tuple[str, bytes]] = []
        self.refused = 0

    async def take(self, headers: Mapping[str, str], body: bytes) -> Answer:
        self.given.append((headers.get("content-type", ""), body))
        return Answer(200 if body else 401, "no proof")

    def too_large(self) -> None:
        self.refused += 1


@pytest.mark.parametrize("token", [None, TOKEN])
@pytest.mark.parametrize("content_type", ["text/plain; charset=UTF-8", "application/json", "multipart/form-data", ""])
async def test_a_webhook_accepts_posts_without_a_token_from_anywhere(
    client: aiohttp.ClientSession, backend: Backend, token: str | None, content_type: str
) -> None:
    kept = Kept()
    server, base = await serve(dataclasses.replace(backend, webhooks=lambda: {"ses": kept}), token)
    headers = {**PROVIDERS, "Content-Type": content_type}
    async with client.post(f"{base}/webhooks/ses", data=b"{}", headers=headers) as answer:
        assert answer.status == 200
    async with client.post(f"{base}/webhooks/ses", data=b"", headers=headers) as answer:
        assert answer.status == 401
    assert kept.given == [(content_type, b"{}"), (content_type, b"")]
    await server.stop()


async def test_a_webhook_accepts_five_mebibytes_and_the_api_one_megabyte(
    client: aiohttp.ClientSession, backend: Backend
) -> None:
    kept = Kept()
    server, base = await serve(dataclasses.replace(backend, webhooks=lambda: {"ses": kept}))
    for size, status in ((MAX_BODY_BYTES, 200), (MAX_BODY_BYTES + 1, 413)):
        async with client.post(f"{base}/webhooks/ses", data=b" " * size) as answer:
            assert answer.status == status
    assert [len(body) for _, body in kept.given] == [MAX_BODY_BYTES]
    assert kept.refused == 1
    async with client.post(
        f"{base}/api/queue/hold", data=b" " * 1_000_001, headers={"Content-Type": "application/json"}
    ) as answer:
        assert answer.status == 413
    await server.stop()


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_webhook_that_is_not_configured_is_404(
    client: aiohttp.ClientSession, backend: Backend, token: str | None
) -> None:
    server, base = await serve(dataclasses.replace(backend, webhooks=lambda: {"ses": Kept()}), token)
    for path in ("/webhooks/postmark", "/webhooks/", "/webhooks/ses/queue"):
        async with client.post(base + path, data=b"x", headers=PROVIDERS) as answer:
            assert answer.status == 404
    await server.stop()
