"""HTTP during the start: it listens when all that it shows is there, and answers once mail is accepted."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from relay.config.load import load
from relay.delivery.engine import Engine
from relay.intake.server import IntakeServer
from relay.service.app import App
from tests.support.relay import write_config
from tests.support.upstream import Upstream


async def test_a_client_that_connects_during_the_start_is_answered_once_mail_is_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "http.sock"
    early: list[bool] = []
    shown: dict[str, tuple[int, str]] = {}
    asking: list[asyncio.Task[None]] = []
    begin, listen = Engine.start, IntakeServer.start

    async def start(engine: Engine, *arguments: Any) -> None:
        early.append(place.exists())
        await begin(engine, *arguments)

    async def open_door(server: IntakeServer, *arguments: Any) -> None:
        asking.append(asyncio.create_task(ask()))
        await listen(server, *arguments)

    async def ask() -> None:
        async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(str(place))) as session:
            for path in ("/readyz", "/healthz", "/metrics", "/api/live"):
                async with session.get(f"http://localhost{path}") as answer:
                    shown[path] = answer.status, await answer.text()

    monkeypatch.setattr(Engine, "start", start)
    monkeypatch.setattr(IntakeServer, "start", open_door)
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0, http={"address": f"unix:{place}"})
        async with App(load(config, os.environ)):
            assert early == [False]
            async with asyncio.timeout(20):
                await asking[0]
            assert {status for status, _ in shown.values()} == {200}
