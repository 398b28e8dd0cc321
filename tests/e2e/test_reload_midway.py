"""A reload that renames a lane while a message for it is being stored: it is stored once, answered 250, sent once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Literal

import pytest

from relay.config.load import load
from relay.service.app import App
from relay.store.model import Selection
from relay.workers.destination import LanesAndWorkers
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import until, write_config
from tests.support.upstream import Upstream

When = Literal["before", "after"]
SMALL, LARGE = 1_000, 600_000


def reloading(store: Callable[..., Awaitable[Any]], app: App, when: When) -> Callable[..., Awaitable[Any]]:
    """`store`, with a reload before or after it, at its first call."""
    calls: list[None] = []

    async def stored(*args: Any, **keys: Any) -> Any:
        calls.append(None)
        if len(calls) == 1 and when == "before":
            assert await app.reload()
        result = await store(*args, **keys)
        if len(calls) == 1 and when == "after":
            assert await app.reload()
        return result

    return stored


def lanes(**names: str) -> dict[str, Any]:
    """Lanes of these names, each with the expiry given."""
    return {name: {"upstreams": ["up"], "retry": ["1s"], "expires": expires} for name, expires in names.items()}


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    ("sender", "workers", "size"),
    [(OTP, 0, SMALL), (OTP, 0, LARGE), (BULK, 0, SMALL), (BULK, 1, SMALL), (BULK, 1, LARGE)],
)
async def test_a_lane_removed_while_its_message_is_stored_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: When, sender: str, workers: int, size: int
) -> None:
    async with Upstream() as upstream:
        kept: dict[str, Any] = {"workers": workers}
        path = write_config(tmp_path, {"up": upstream}, lanes=lanes(otp="10m", bulk="2d"), **kept)
        async with App(load(path, {})) as app:
            if workers:

                async def there() -> bool:
                    return all(worker.ready for worker in app.parts.workers.handles)

                await until(there)
            names = {"codes": "10m", "bulk": "2d"} if sender == OTP else {"otp": "10m", "letters": "2d"}
            renamed = {
                "rules": [{"name": "codes", "match": {"sender": OTP}, "lane": next(iter(names))}],
                "default_lane": list(names)[-1],
            }
            write_config(tmp_path, {"up": upstream}, lanes=lanes(**names), **renamed, **kept)
            method = "submit" if size == SMALL else "submit_spooled"
            store = getattr(LanesAndWorkers, method)
            monkeypatch.setattr(LanesAndWorkers, method, reloading(store, app, when))
            host, _, port = app.smtp_addresses[0].rpartition(":")
            async with Talk((host, int(port))) as talk:
                content = letter(("x" * 70 + "\r\n") * (size // 72), sender=sender)
                id_ = await talk.submit(content, sender, "user@example.net")
            await upstream.wait_for(1)

            async def sent() -> bool:
                found = await app.parts.host.log.search(Selection(limit=100))
                return [(one["id"], one["recipients"][0]["state"]) for one in found] == [(id_, "sent")]  # type: ignore[index]

            await until(sent)
        assert len(upstream.messages) == 1
