"""What the relay is doing, as the console asks for it."""

from __future__ import annotations

import dataclasses
from typing import Any

import aiohttp
import pytest

from relay.intake.sockets import bind
from relay.observe.metrics import Family
from relay.observe.recent import NEVER_S
from relay.store.base import Store
from relay.web.backend import Backend, Reload
from relay.web.guard import Tokens
from tests.web.conftest import LOOPBACK, NOW, TOKEN, Served, SetHealth, SetInForce, message, serve

READS = "may-read-only"


async def get(client: aiohttp.ClientSession, url: str) -> Any:
    async with client.get(url) as answer:
        assert answer.status == 200, await answer.text()
        return await answer.json()


async def test_live_says_which_lanes_can_send_and_how_mail_failed(
    client: aiohttp.ClientSession, url: str, backend: Backend, store: Store
) -> None:
    await store.put(message("01B", accepted_at=NOW - 60), claimed=False)
    for total_s, failure in ((0.041, None), (200.0, None), (NEVER_S, "bounced"), (NEVER_S, "expired")):
        backend.recent.note("otp", NOW - 10, total_s, failure)  # type: ignore[arg-type]
    found = await get(client, f"{url}/api/live")
    otp, bulk = found["lanes"]["otp"], found["lanes"]["bulk"]
    assert (otp["express"], otp["can_send"], bulk["express"], bulk["can_send"]) == (True, True, False, False)
    assert (otp["sent"], otp["failed"], otp["ended"]) == (2, 2, {"bounced": 1, "expired": 1})
    assert otp["bands"]["failed"] == 3
    assert (otp["queue"], otp["oldest_ms"]) == ({"queued": 1}, 60_000.0)
    assert (bulk["queue"], bulk["oldest_ms"]) == ({}, None)
    assert (found["uptime_ms"], found["started_at"]) == (3_600_000.0, "2027-01-15T07:00:00.000Z")


async def test_an_upstream_shows_its_lanes_and_the_replies_of_all_processes(
    client: aiohttp.ClientSession, url: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def of_workers(_: SetHealth) -> list[Family]:
        labels = (("code", "250"), ("upstream", "ses"))
        return [Family("relay_upstream_replies", [("relay_upstream_replies_total", labels, 4.0)])]

    monkeypatch.setattr(SetHealth, "worker_metrics", of_workers)
    for code in (250, 250, 421):
        backend.metrics.count_reply("ses", code)
    postmark, ses = await get(client, f"{url}/api/upstreams")
    assert (postmark["name"], postmark["up"], postmark["via"], postmark["webhook"]) == ("postmark", True, "auto", True)
    assert postmark["replies"] == {}
    assert (ses["name"], ses["up"], ses["host"], ses["port"]) == ("ses", False, "mx.example.net", 25)
    assert ses["replies"] == {"250": 6, "421": 1}
    assert {lane: shown["state"] for lane, shown in ses["lanes"].items()} == {"otp": "down", "bulk": "half-open"}
    assert ses["lanes"]["otp"]["words"] == "bad credentials for relay"


async def test_limits_that_were_hit_are_counted_by_what_became_of_the_mail(
    client: aiohttp.ClientSession, url: str, backend: Backend
) -> None:
    backend.metrics.limited["otp", "per_recipient", "reject"].inc(3)
    assert await get(client, f"{url}/api/limits") == [
        {"lane": "otp", "limit": "per_recipient", "action": "reject", "count": 3}
    ]


async def test_the_configuration_in_force_is_shown_with_the_last_reload(
    client: aiohttp.ClientSession, url: str, backend: Backend
) -> None:
    found = await get(client, f"{url}/api/config")
    assert found == {
        "path": "relay.yaml",
        "loaded_at": "2027-01-15T07:59:00.000Z",
        "last_reload": None,
        "yaml": "default_lane: bulk\n",
    }
    assert isinstance(backend.in_force, SetInForce)
    backend.in_force.last_reload = Reload(NOW, ok=False, reason="relay.yaml:3:1: lanes: unknown key")
    assert (await get(client, f"{url}/api/config"))["last_reload"] == {
        "at": "2027-01-15T08:00:00.000Z",
        "ok": False,
        "reason": "relay.yaml:3:1: lanes: unknown key",
    }


@pytest.mark.parametrize("token", [None, TOKEN])
async def test_a_token_for_reading_reads_everything_and_changes_nothing(
    client: aiohttp.ClientSession, backend: Backend, token: str | None
) -> None:
    server = Served(backend, Tokens(token, read=READS))
    base = await _started(server)
    headers = {"Authorization": aiohttp.encode_basic_auth("prometheus", READS)}
    for path in ("/metrics", "/", "/api/messages", "/api/queue", "/api/config", "/api/events"):
        async with client.get(f"{base}{path}", headers=headers) as answer:
            assert answer.status == 200, path
    async with client.get(f"{base}/api/access", headers=headers) as answer:
        assert await answer.json() == {"access": "read"}
    for method, path in (("POST", "/api/queue/drop"), ("DELETE", "/api/suppressions"), ("POST", "/api/send")):
        async with client.request(method, f"{base}{path}", json={"all": True}, headers=headers) as answer:
            assert answer.status == 403
            assert "this token may read, and change nothing" in await answer.text()
    await server.stop()


async def test_whoever_has_the_full_token_may_change_something(client: aiohttp.ClientSession, backend: Backend) -> None:
    server, base = await serve(backend, TOKEN)
    async with client.get(f"{base}/api/access", headers={"Authorization": f"Bearer {TOKEN}"}) as answer:
        assert await answer.json() == {"access": "full"}
    await server.stop()


async def test_one_text_as_both_tokens_may_change_something(client: aiohttp.ClientSession, backend: Backend) -> None:
    server = Served(dataclasses.replace(backend), Tokens(TOKEN, read=TOKEN))
    base = await _started(server)
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with client.post(f"{base}/api/queue/hold", json={"all": True}, headers=headers) as answer:
        assert answer.status == 200
    await server.stop()


async def _started(server: Served) -> str:
    await server.start(bind(LOOPBACK, {}))
    return f"http://{server.address}"
