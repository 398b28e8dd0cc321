from __future__ import annotations

import asyncio
import json
import re
import socket
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from relay.config.network import TcpAddress, UnixAddress
from relay.store.base import Store, StoreError
from relay.store.model import RecipientUpdate, Settlement
from relay.web.backend import Backend
from relay.web.server import WebServer
from tests.web.conftest import NOW, SetHealth, message, sent, serve

FILL = {
    "messages": 3,
    "max_messages": 1_000,
    "bytes": 6_000,
    "max_bytes": None,
    "free_bytes": 5_000_000_000,
    "min_free_bytes": 64_000_000,
}


async def get(client: aiohttp.ClientSession, url: str) -> object:
    async with client.get(url) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.content_type == "application/json"
        return await answer.json()


async def fill(store: Store) -> None:
    """01A was sent, 01B waits in otp, 01C in bulk."""
    await store.put(message("01A", accepted_at=NOW - 90), claimed=True)
    await store.settle(sent("01A", accepted_at=NOW - 90))
    await store.put(message("01B", accepted_at=NOW - 60), claimed=False)
    await store.put(message("01C", "bulk", "list@example.org", accepted_at=NOW - 30), claimed=False)


async def test_healthz_answers_while_the_process_works(client: aiohttp.ClientSession, url: str) -> None:
    assert await get(client, f"{url}/healthz") == {"healthy": True}


async def test_readyz_names_each_lanes_upstreams_and_a_dead_one_leaves_it_ready(
    client: aiohttp.ClientSession, url: str
) -> None:
    assert await get(client, f"{url}/readyz") == {
        "ready": True,
        "reasons": [],
        "queue": FILL,
        "intake": {"slowed": True, "sessions": 7, "storing": 4, "waiting": 2, "behind_ms": 250.0},
        "lanes": {
            "otp": {
                "upstreams": {
                    "postmark": {
                        "state": "up",
                        "sessions": {"idle": 2},
                        "warm": {"sessions": 3, "reason": "auto: bursts"},
                    },
                    "ses": {"state": "down", "sessions": {}, "reason": "auth: 535 5.7.8"},
                }
            },
            "bulk": {"upstreams": {"ses": {"state": "half-open", "sessions": {}, "window": 6}}},
        },
    }


async def test_readyz_is_503_with_the_reason_when_no_mail_can_be_taken(
    client: aiohttp.ClientSession, url: str, backend: Backend
) -> None:
    assert isinstance(backend.health, SetHealth)
    backend.health.not_ready.append("draining")
    async with client.get(f"{url}/readyz") as answer:
        assert answer.status == 503
        assert (await answer.json())["reasons"] == ["draining"]
    await get(client, f"{url}/healthz")


@pytest.mark.parametrize(
    ("filters", "ids"),
    [
        ("", ["01C", "01B", "01A"]),
        ("?limit=1", ["01C"]),
        ("?lane=otp", ["01B", "01A"]),
        ("?to=USER@example.net", ["01B", "01A"]),
        ("?state=sent", ["01A"]),
        ("?since=45s", ["01C"]),
        (f"?since={datetime.fromtimestamp(NOW - 61, UTC).strftime('%Y-%m-%dT%H:%M:%SZ')}", ["01C", "01B"]),
        ("?lane=otp&state=queued", ["01B"]),
        ("?lane=nowhere", []),
        ("?to=*@example.ORG", ["01C"]),
        ("?to=user@", ["01B", "01A"]),
        ("?from=NO-reply", ["01C", "01B", "01A"]),
        ("?subject=your+code&lane=bulk", ["01C"]),
        ("?message_id=01B@auth", ["01B"]),
        ("?id=01", ["01C", "01B", "01A"]),
        ("?id=01b", ["01B"]),
        ("?id=02", []),
        ("?q=01a", ["01A"]),
        ("?q=LIST@", ["01C"]),
        ("?q=01J00000000", []),
        ("?failed=1", []),
        ("?failed=0", ["01C", "01B", "01A"]),
        ("?until=45s", ["01B", "01A"]),
        ("?since=2m&until=45s", ["01B", "01A"]),
    ],
)
async def test_messages_are_listed_newest_first_by_every_filter(
    client: aiohttp.ClientSession, url: str, store: Store, filters: str, ids: list[str]
) -> None:
    await fill(store)
    found = await get(client, f"{url}/api/messages{filters}")
    assert isinstance(found, list)
    assert [one["id"] for one in found] == ids


async def test_a_message_is_the_stores_own_document(
    client: aiohttp.ClientSession, url: str, backend: Backend, store: Store
) -> None:
    await fill(store)
    found = await get(client, f"{url}/api/messages/01A")
    assert isinstance(found, dict)
    said = "accepted by postmark 41 ms after your app handed it over; if it hasn't arrived it is not our delay: "
    assert found.pop("verdict") == found["recipients"][0].pop("verdict") == f'{said}ask postmark for "OK 1234"'
    assert found == await backend.store.get("01A")
    assert found["recipients"][0]["attempts"][0]["upstream"] == "postmark"
    assert "123456" not in json.dumps(found)


async def test_a_message_that_the_app_handed_over_slowly_has_a_hint_and_is_counted(
    client: aiohttp.ClientSession, url: str, store: Store
) -> None:
    await store.put(message("01A")._replace(timings_ms={"receive": 47.1}), claimed=True)
    await store.settle(sent("01A"))
    found, listed = await get(client, f"{url}/api/messages/01A"), await get(client, f"{url}/api/messages")
    report = await get(client, f"{url}/api/report?since=2d")
    assert isinstance(found, dict)
    assert isinstance(report, dict)
    assert found["hint"].startswith("The app took 47 ms from the 354 to its final dot. ")
    assert isinstance(listed, list)
    assert listed[0]["hint"] == found["hint"]
    assert [one["slow_receive"] for one in (*report["lanes"], *report["lines"])] == [1, 1]


async def test_the_report_counts_what_finished(client: aiohttp.ClientSession, url: str, store: Store) -> None:
    await fill(store)
    found = await get(client, f"{url}/api/report?since=1h")
    assert isinstance(found, dict)
    assert [lane["lane"] for lane in found["lanes"]] == ["otp"]
    (line,) = found["lines"]
    assert (line["upstream"], line["provider"], line["recipients"]) == ("postmark", "example.net", 1)
    assert line["p50_ms"] == pytest.approx(41, abs=0.01)
    assert line["bands"]["excellent"] == 1
    assert (await get(client, f"{url}/api/report?since=1s")) == {
        "since": datetime.fromtimestamp(NOW - 1, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "lanes": [],
        "lines": [],
    }


async def test_the_queue_shows_counts_and_what_waits(client: aiohttp.ClientSession, url: str, store: Store) -> None:
    await fill(store)
    found = await get(client, f"{url}/api/queue")
    assert isinstance(found, dict)
    assert found["fill"] == FILL
    assert sorted(found["lanes"], key=lambda row: str(row["lane"])) == [
        {"lane": "bulk", "state": "queued", "recipients": 1, "oldest_ms": 30_000.0},
        {"lane": "otp", "state": "queued", "recipients": 1, "oldest_ms": 60_000.0},
    ]
    assert [one["id"] for one in found["messages"]] == ["01B", "01C"]


async def test_live_gives_each_lanes_pace_queue_and_upstreams(
    client: aiohttp.ClientSession, url: str, backend: Backend, store: Store
) -> None:
    await fill(store)
    backend.recent.note("otp", NOW - 10, 0.041)
    found = await get(client, f"{url}/api/live")
    assert isinstance(found, dict)
    assert found["lanes"]["otp"]["p50_ms"] == pytest.approx(41)
    assert found["lanes"]["otp"]["queue"] == {"queued": 1}
    assert found["lanes"]["otp"]["upstreams"]["ses"] == {
        "state": "down",
        "sessions": {},
        "reason": "auth: 535 5.7.8",
        "words": "bad credentials for relay",
    }
    assert found["lanes"]["bulk"]["sent"] == 0


@pytest.mark.parametrize(
    ("action", "body", "changed"),
    [
        ("hold", {"ids": ["01B"]}, ["01B"]),
        ("hold", {"lane": "bulk"}, ["01C"]),
        ("drop", {"all": True}, ["01B", "01C"]),
        ("retry", {"ids": ["01A"]}, []),
        ("release", {"ids": ["unknown"]}, []),
    ],
)
async def test_an_action_names_what_it_changed(
    client: aiohttp.ClientSession, url: str, store: Store, action: str, body: dict[str, object], changed: list[str]
) -> None:
    await fill(store)
    async with client.post(f"{url}/api/queue/{action}", json=body) as answer:
        assert answer.status == 200
        assert sorted((await answer.json())["changed"]) == changed


@pytest.mark.parametrize("chosen", [{"all": True}, {"lane": "otp"}])
async def test_a_retry_leaves_ambiguous_messages_and_counts_them(
    client: aiohttp.ClientSession, url: str, store: Store, chosen: dict[str, object]
) -> None:
    await store.put(message("01A"), claimed=True)
    await store.settle(Settlement("01A", (RecipientUpdate(0, "ambiguous", "postmark", "no reply"),)))
    await store.put(message("01B"), claimed=False)
    for body, expected in (
        (chosen, {"changed": ["01B"], "left": 1}),
        ({"ids": ["01Z", "01B"]}, {"changed": ["01B"], "unknown": ["01Z"]}),
        ({**chosen, "ambiguous": False}, {"changed": ["01B"], "left": 1}),
        ({**chosen, "ambiguous": True}, {"changed": ["01A", "01B"]}),
    ):
        async with client.post(f"{url}/api/queue/retry", json=body) as answer:
            assert answer.status == 200
            found = await answer.json()
            assert {**found, "changed": sorted(found["changed"])} == expected


@pytest.mark.parametrize("action", ["retry", "hold", "release", "drop"])
async def test_an_action_on_a_lane_that_does_not_exist_is_404(
    client: aiohttp.ClientSession, url: str, store: Store, action: str
) -> None:
    await fill(store)
    async with client.post(f"{url}/api/queue/{action}", json={"lane": "opt"}) as answer:
        assert answer.status == 404
        assert await answer.json() == {"error": "there is no lane opt; there are otp, bulk"}
    async with client.post(f"{url}/api/queue/release", json={"lane": "otp"}) as answer:  # which has no held mail
        assert (answer.status, await answer.json()) == (200, {"changed": []})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"null",
        b'{"all": false}',
        b'{"all": 1}',
        b'{"all": true, "lane": "otp"}',
        b'{"ids": []}',
        b'{"ids": "01A"}',
        b'{"ids": [1]}',
        b'{"ids": ["\\ud800"]}',
        b'{"lane": ""}',
        b'{"lane": null}',
        b'{"everything": true}',
        b'{"ambiguous": true}',
        b'{"all": true, "ambiguous": true}',
        b'{"all": true, "ambiguous": 1}',
        b"[" * 100_000,
    ],
)
async def test_a_bad_selection_is_400_and_nothing_changes(
    client: aiohttp.ClientSession, url: str, backend: Backend, store: Store, body: bytes
) -> None:
    await fill(store)
    headers = {"Content-Type": "application/json"}
    async with client.post(f"{url}/api/queue/drop", data=body, headers=headers) as answer:
        assert answer.status == 400
        assert set(await answer.json()) == {"error"}
    assert len(await backend.store.counts()) == 2


@pytest.mark.parametrize(
    "path",
    [
        "/api/messages?limit=0",
        "/api/messages?limit=-1",
        "/api/messages?limit=10001",
        "/api/messages?limit=" + "9" * 5000,
        "/api/messages?limit=ten",
        "/api/messages?limit=%D9%A3",
        "/api/messages?state=gone",
        "/api/messages?since=yesterday",
        "/api/messages?since=10",
        "/api/messages?since=9999999d",
        "/api/messages?until=tomorrow",
        "/api/messages?before=1h",
        "/api/messages?failed=maybe",
        "/api/messages?q=" + "x" * 1001,
        "/api/messages?subject=",
        "/api/messages?to=a%00b",
        "/api/messages?to=",
        "/api/messages?lane=otp&lane=bulk",
        "/api/report?since=never",
        "/api/report?lane=otp",
        "/api/queue?limit=x",
    ],
)
async def test_a_bad_query_is_400_with_an_explanation(client: aiohttp.ClientSession, url: str, path: str) -> None:
    async with client.get(url + path) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("GET", "/api/messages/01Z", 404),
        ("GET", "/../etc/passwd", 404),
        ("GET", "/static/..%2f..%2fserver.py", 404),
        ("POST", "/api/queue/explode", 404),
        ("POST", "/webhooks/postmark", 404),
        ("DELETE", "/api/messages", 405),
        ("POST", "/metrics", 405),
    ],
)
async def test_what_does_not_exist_is_an_error_in_json(
    client: aiohttp.ClientSession, url: str, method: str, path: str, status: int
) -> None:
    async with client.request(method, url + path, json={} if method != "GET" else None) as answer:
        assert answer.status == status
        assert "Traceback" not in await answer.text()
        assert (await answer.json())["error"]


async def test_a_body_over_the_limit_is_413(client: aiohttp.ClientSession, url: str) -> None:
    headers = {"Content-Type": "application/json"}
    async with client.post(f"{url}/api/queue/drop", data=b" " * 2_000_000, headers=headers) as answer:
        assert answer.status == 413


async def test_metrics_are_served_in_the_format_asked_for(
    client: aiohttp.ClientSession, url: str, store: Store
) -> None:
    await fill(store)
    async with client.get(f"{url}/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4; charset=utf-8")
        text = await answer.text()
    assert 'relay_queue_recipients{lane="otp",state="queued"} 1.0' in text
    assert 'relay_queue_recipients{lane="otp",state="held"} 0.0' in text
    assert 'relay_queue_oldest_seconds{lane="otp"} 60.0' in text
    assert 'relay_upstream_up{upstream="postmark"} 1.0' in text
    assert 'relay_upstream_up{upstream="ses"} 0.0' in text
    assert 'relay_upstream_sessions{state="idle",upstream="postmark"} 2.0' in text
    assert re.findall(r"^relay_upstream_warm_sessions.*", text, re.MULTILINE) == [
        'relay_upstream_warm_sessions{lane="otp",upstream="postmark"} 3.0'
    ]
    async with client.get(f"{url}/metrics", headers={"Accept": "application/openmetrics-text"}) as answer:
        assert answer.content_type == "application/openmetrics-text"
        assert (await answer.text()).endswith("# EOF\n")


async def test_a_store_in_trouble_is_503_and_the_other_metrics_are_still_there(
    client: aiohttp.ClientSession, url: str, backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise StoreError("relay.db: the disk is on fire")

    for name in ("counts", "find"):
        monkeypatch.setattr(backend.store, name, fail)
    async with client.get(f"{url}/api/messages") as answer:
        assert answer.status == 503
        assert (await answer.json())["error"] == "relay.db: the disk is on fire"
    async with client.get(f"{url}/metrics") as answer:
        text = await answer.text()
    assert "relay_upstream_up" in text
    assert "relay_queue_recipients" not in text


async def test_an_unexpected_error_is_a_500_without_details(
    client: aiohttp.ClientSession,
    url: str,
    backend: Backend,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def fail(*_: object) -> None:
        raise KeyError("code 123456")

    monkeypatch.setattr(backend.store, "find", fail)
    with caplog.at_level("INFO"):
        async with client.get(f"{url}/api/messages") as answer:
            assert answer.status == 500
            assert "123456" not in await answer.text()
    assert "123456" not in caplog.text
    assert "KeyError" in caplog.text


async def test_it_listens_on_a_unix_socket(backend: Backend, tmp_path: Path) -> None:
    path = str(tmp_path / "http.sock")
    server, _ = await serve(backend, address=UnixAddress(path))
    assert str(server.address) == f"unix:{path}"
    async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(path)) as client:
        assert await get(client, "http://anything.example/api/messages") == []
    await server.stop()


async def test_it_listens_on_a_socket_from_systemd(backend: Backend, client: aiohttp.ClientSession) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    server = WebServer(backend)
    await server.start([listening])
    await get(client, f"http://127.0.0.1:{listening.getsockname()[1]}/healthz")
    await server.stop()


MALFORMED = {
    "a header that isn't one": b"GET / HTTP/1.1\r\nHost: localhost\r\nX secret-value\r\n\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: secret\x01value\r\n\r\n",
    "a header too long": b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"secret" * 3000 + b"\r\n\r\n",
    "an unknown version": b"GET /secret HTTP/7.1\r\nHost: localhost\r\n\r\n",
    "a chunked body that isn't one": (
        b"POST /api/queue/hold HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\nsecret\r\n"
    ),
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03secret" + bytes(64),
    "an unexpected expectation": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nExpect: secret\r\n\r\n",
}


@pytest.mark.parametrize("what", MALFORMED)
async def test_a_malformed_request_gets_the_apis_error_and_is_not_quoted(backend: Backend, what: str) -> None:
    server, _ = await serve(backend)
    assert isinstance(server.address, TcpAddress)
    reader, writer = await asyncio.open_connection("127.0.0.1", server.address.port)
    writer.write(MALFORMED[what])
    async with asyncio.timeout(20):
        head = await reader.readuntil(b"\r\n\r\n")
        status, *fields = head.decode().rstrip().split("\r\n")
        headers = {name.lower(): value for name, _, value in (field.partition(": ") for field in fields)}
        body = await reader.readexactly(int(headers["content-length"]))
    writer.close()
    await server.stop()
    assert re.fullmatch(r"HTTP/1\.[01] 4\d\d .*", status)
    assert headers["content-type"] == "application/json; charset=utf-8"
    assert headers["server"] == "otp-relay"
    assert set(json.loads(body)) == {"error"}
    assert "secret" not in (head + body).decode()
    assert headers["x-content-type-options"] == "nosniff"
