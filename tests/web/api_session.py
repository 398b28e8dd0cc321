"""A session with a real relay that calls for every operation of the HTTP API, and what was answered.

The relay has mail of every kind: sent, delivered, deferred, bounced, limited, suppressed, held, in parts.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

from relay.delivery.fastest import Pace
from relay.store.sqlite.store import open_store
from relay.web.backend import UpstreamHealth
from tests.e2e.test_feedback import BASIC, echoed, event
from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, until, upstream_keys, write_config
from tests.support.script import Script
from tests.support.upstream import Upstream
from tests.web.conftest import NOW, SetHealth, make_backend, message, serve

FULL, READ, SEND = "full-token", "read-token", "send-token"
ANN, BOB, LIST = "ann@users.example.net", "bob@users.example.net", "all@list.example.com"
REFUSED, LATER = "refused@users.example.net", "later@users.example.net"
MAIL = {"sent": [ANN], "late": [BOB], "bounced": [REFUSED], "deferred": [LATER], "parts": [LIST, ANN, LATER]}
"""recipients, by what becomes of the message"""
SCRIPT: Script = {"rcpt": {REFUSED: "550 5.1.1 no such user", LATER: "451 4.3.0 later"}}
LETTER = {"from": "app@example.com", "to": ANN, "subject": "hi", "text": "Your code is 123456"}
JSON, PLAIN, WHOLE = ({"Content_Type": kind} for kind in ("application/json", "text/plain", "message/rfc822"))


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


class Exchange(NamedTuple):
    """A request, and the response to it."""

    method: str
    path: str
    """with its query"""
    status: int
    headers: Mapping[str, str]
    body: bytes
    sent: object = None
    """the request's JSON"""

    @property
    def document(self) -> Any:
        return json.loads(self.body)


class Session:
    """Asks, and keeps what was answered."""

    def __init__(self, http: aiohttp.ClientSession, base: str, kept: list[Exchange]) -> None:
        self._http = http
        self.base = base
        self.kept = kept

    async def ask(
        self, method: str, path: str, data: bytes | None = None, *, token: str | None = FULL, **headers: str
    ) -> Exchange:
        """`headers`: with `_` for `-`."""
        return await self._ask(method, path, data, None, token, headers)

    async def get(self, path: str) -> Exchange:
        return await self._ask("GET", path, None, None, FULL, {})

    async def post(self, path: str, document: object, *, token: str | None = FULL, **headers: str) -> Exchange:
        """`document`: to be sent as JSON."""
        body = json.dumps(document).encode()
        return await self._ask("POST", path, body, document, token, {**headers, **JSON})

    async def _ask(
        self,
        method: str,
        path: str,
        data: bytes | None,
        document: object,
        token: str | None,
        headers: Mapping[str, str],
    ) -> Exchange:
        sent = {} if token is None else bearer(token)
        sent |= {name.replace("_", "-"): value for name, value in headers.items()}
        async with self._http.request(method, self.base + path, data=data, headers=sent) as answer:
            got = {name.lower(): value for name, value in answer.headers.items()}
            found = Exchange(method, path, answer.status, got, await answer.read(), document)
        self.kept.append(found)
        return found

    @asynccontextmanager
    async def opened(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """A response that isn't kept."""
        async with self._http.get(self.base + path, headers=bearer(FULL)) as answer:
            yield answer

    async def settled(self, message_id: str, *states: str) -> None:
        """Wait until its recipients are in these states."""

        async def are_so() -> bool:
            async with self.opened(f"/api/messages/{message_id}") as answer:
                found = await answer.json()
            return {one["state"] for one in found["recipients"]} == set(states)

        await until(are_so)


def recorded(folder: Path, guarded: Sequence[tuple[str, str]], queries: Sequence[str]) -> list[Exchange]:
    """All exchanges. `guarded`: method and path of the operations that aren't open to all. `queries`: further paths to
    get, with parameters."""
    kept: list[Exchange] = []
    asyncio.run(_record(folder, guarded, queries, kept))
    return kept


async def _record(
    folder: Path, guarded: Sequence[tuple[str, str]], queries: Sequence[str], kept: list[Exchange]
) -> None:
    timeout = aiohttp.ClientTimeout(total=20)
    async with Upstream(script=SCRIPT) as esp, aiohttp.ClientSession(timeout=timeout) as http:
        async with RelayProcess(_configured(folder, esp)) as relay:
            session = Session(http, f"http://{relay.http_address}", kept)
            ids = await _mail(session, relay, esp)
            await _webhooks(session, esp, ids)
            await _sending(session)
            await _suppressions(session)
            await _queue(session, ids)
            relay.send(signal.SIGHUP)
            await _reads(session, relay, ids)
            for path in queries:
                await session.get(path)
            for method, path in guarded:
                await session.ask(method, path, token=None)
        (folder / "quiet").mkdir()
        await _without_a_token(http, folder / "quiet", guarded, kept)


def _configured(folder: Path, esp: Upstream) -> Path:
    webhook = {"kind": "postmark", "secret": "hook:s3cret"}
    named = {"postmark": upstream_keys(esp, webhook=webhook), "lists": upstream_keys(esp)}
    lanes = {
        "otp": {
            "upstreams": ["postmark", "lists"],
            "retry": ["1h"],
            "expires": "50m",
            "objective": {"within": "10s", "share": "99%"},
            "limits": {"per_client": "20/1h"},
        },
        "bulk": {"upstreams": ["lists"], "retry": ["1h"], "expires": "2d"},
    }
    tokens = {"token": FULL, "read_token": READ, "send_token": SEND}
    return write_config(
        folder,
        named,
        lanes=lanes,
        rules=[{"name": "users", "match": {"recipient": "*@users.example.net"}, "lane": "otp"}],
        http={"address": "127.0.0.1:0", **tokens},
        workers=0,
    )


async def _mail(session: Session, relay: RelayProcess, esp: Upstream) -> dict[str, str]:
    """The ids of messages, by what became of them."""
    found: dict[str, str] = {}
    async with Talk(relay.smtp) as app:
        for name, to in MAIL.items():
            found[name] = await app.submit(letter("Your code is 123456"), BULK, *to)
    await session.settled(found["sent"], "sent")
    await session.settled(found["late"], "sent")
    await session.settled(found["bounced"], "bounced")
    await session.settled(found["deferred"], "deferred")
    await session.settled(found["parts"], "sent", "deferred")
    return found


async def _webhooks(session: Session, esp: Upstream, ids: Mapping[str, str]) -> None:
    to_ann, to_bob = (
        next(one for one in esp.messages if echoed(one).get("relay-id") == ids[name]) for name in ("sent", "late")
    )
    delivered = event("Delivery", to_ann, ANN, DeliveredAt=datetime.now(UTC).isoformat())
    bounced = event("Bounce", to_bob, BOB, Type="HardBounce", ID=7, Description="no such user")
    path = "/webhooks/postmark"
    proof = {**JSON, "Authorization": BASIC}
    for body in (delivered, bounced):
        assert (await session.ask("POST", path, body, **proof)).status == 200
    await session.settled(ids["late"], "bounced")
    await session.ask("POST", path, b"{", **proof)
    await session.ask("POST", path, b"{}", token=None, **JSON)
    await session.ask("POST", path, b"{}", Content_Encoding="gzip", **proof)
    await session.ask("POST", path, b" " * (5 * 1024 * 1024 + 1), **proof)
    await session.ask("POST", "/webhooks/lists", b"{}", **proof)
    for one in (path, "/webhooks/lists"):
        await session.ask("HEAD", one, token=None)


async def _sending(session: Session) -> None:
    path, key = "/api/send", {"Idempotency_Key": "a"}
    own = {**LETTER, "to": "eve@users.example.net"}
    for _ in range(2):
        assert (await session.post(path, own, token=SEND, **key)).status == 202
    assert (await session.post(path, {**own, "text": "other"}, token=SEND, **key)).status == 409
    attachment = {"filename": "a.txt", "content": "YQ==", "content_type": None}
    more = {"html": "<p>1</p>", "headers": {"X-Topic": "a"}, "attachments": [attachment], "lane": "bulk"}
    assert (await session.post(path, {**own, **more, "to": [LIST, "Bob <bob@example.org>"]})).status == 202
    whole = f"{path}?from=app@example.com&to={LIST}&to=bob@example.org&lane=bulk"
    assert (await session.ask("POST", whole, letter(), X_Relay_Client="ann", **WHOLE)).status == 202
    assert (await session.ask("POST", f"{whole}&colour=red", letter(), **WHOLE)).status == 422
    assert (await session.post(path, {**own, "colour": "red"})).status == 422
    assert (await session.post(path, {**own, "lane": "nowhere"})).status == 422
    assert (await session.ask("POST", path, b"{", **JSON)).status == 400
    assert (await session.ask("POST", path, b"x", **PLAIN)).status == 415
    assert (await session.ask("POST", path, b" " * 5_000_001, **JSON)).status == 413
    assert (await session.post(path, own, token=READ)).status == 403
    assert (await session.post(path, own, token=None)).status == 401
    for _ in range(25):
        if (await session.post(path, own, X_Relay_Client="busy")).status == 429:
            break


async def _suppressions(session: Session) -> None:
    path = "/api/suppressions"
    several = [{"address": f"user{n}@example.org", "reason": "asked us", "for": "30d", "cause": None} for n in range(3)]
    await session.post(path, several)
    await session.post(path, {"address": "eve@example.org", "until": "2090-01-01T00:00:00Z", "cause": "complaint"})
    assert (await session.post(path, {"address": "*@example.org"})).status == 400
    assert (await session.post(path, {"address": "a@example.org", "colour": "red"})).status == 400
    assert (await session.post(path, [])).status == 400
    page = await session.get(f"{path}?limit=2")
    assert 'rel="next"' in page.headers["link"]
    every = await session.get(path)
    assert {one["cause"] for one in every.document} == {"bounce", "complaint", "manual"}
    assert (await session.post("/api/send", {**LETTER, "to": BOB})).status == 422
    assert (await session.ask("DELETE", f"{path}?address=user0@example.org")).status == 200
    assert (await session.ask("DELETE", f"{path}?address=user0@example.org")).status == 404
    assert (await session.ask("DELETE", path)).status == 400
    assert (await session.ask("DELETE", f"{path}?address=user0@example.org&colour=red")).status == 400
    assert (await session.ask("DELETE", f"{path}?address=a@example.org", None, **PLAIN)).status == 415
    for changing in (path, "/api/erase", "/api/queue/drop"):
        await session.ask("POST", changing, b"{", **JSON)
        await session.ask("POST", changing, b"{}", **PLAIN)
        await session.ask("POST", changing, b" " * 1_000_001, **JSON)
    assert (await session.post("/api/erase", {"address": "user1@example.org", "colour": "red"})).status == 400
    assert (await session.post("/api/erase", {"address": "user1@example.org"})).document["erased"]["suppressions"] == 1


async def _queue(session: Session, ids: Mapping[str, str]) -> None:
    path = "/api/queue"
    deferred = ids["deferred"]
    assert (await session.post(f"{path}/hold", {"ids": [deferred, "unknown"]})).document == {
        "changed": [deferred],
        "unknown": ["unknown"],
    }
    waiting = (await session.get(path)).document["messages"]
    assert {ids["parts"], deferred} <= {one["id"] for one in waiting}
    await session.get(f"/api/messages/{deferred}")
    await session.post(f"{path}/release", {"lane": "otp"})
    await session.settled(deferred, "deferred")
    assert (await session.post(f"{path}/retry", {"all": True, "ambiguous": False})).document["left"] == 0
    await session.post(f"{path}/retry", {"all": True, "ambiguous": True})
    assert (await session.post(f"{path}/explode", {"all": True})).status == 404
    assert (await session.post(f"{path}/drop", {"lane": "nowhere"})).status == 404
    refused: list[object] = [{}, {"all": True, "lane": "otp"}, {"all": False}, {"ids": []}, {"lane": ""}, ["01A"]]
    for selection in refused:
        assert (await session.post(f"{path}/drop", selection)).status == 400


async def _reads(session: Session, relay: RelayProcess, ids: Mapping[str, str]) -> None:
    async def is_reloaded() -> bool:
        return (await session.get("/api/config")).document["last_reload"] is not None

    await until(is_reloaded)
    for message_id in ids.values():
        assert (await session.get(f"/api/messages/{message_id}")).status == 200
    assert (await session.get("/api/messages/01Z")).status == 404
    for path in ("messages", "events", "live", "upstreams", "limits", "access", "report", "report?since=1h"):
        assert (await session.get(f"/api/{path}")).status == 200
    await session.ask("GET", "/api/access", token=READ)
    await session.get("/healthz")
    await session.get("/readyz")
    await session.get("/metrics")
    await session.ask("GET", "/metrics", Accept="application/openmetrics-text")
    await _stream(session, relay)


async def _stream(session: Session, relay: RelayProcess) -> None:
    """Read on until there was one event of each kind."""
    body, wanted = b"", {b"event: mail\n", b"event: live\n"}
    async with session.opened("/api/stream") as answer:
        async with Talk(relay.smtp) as app:
            await app.submit(letter(), BULK, LIST)
        while wanted or not body.endswith(b"\n\n"):
            line = await answer.content.readline()
            assert line, "the stream has ended"
            wanted.discard(line)
            body += line
        found = {name.lower(): value for name, value in answer.headers.items()}
    session.kept.append(Exchange("GET", "/api/stream", answer.status, found, body))


async def _without_a_token(
    http: aiohttp.ClientSession, folder: Path, guarded: Sequence[tuple[str, str]], kept: list[Exchange]
) -> None:
    """A relay that takes no mail, whose store then fails, and that another site's page asks."""
    store = await open_store(folder / "relay.db", now=lambda: NOW)
    backend = make_backend(store, folder)
    assert isinstance(backend.health, SetHealth)
    backend.health.not_ready.append("draining")
    backend.health.known["sick"] = {"ses": UpstreamHealth("untried", paces={("gmail", "sent"): Pace(0.5, 20)})}
    await store.put(message("01A"), claimed=True)
    server, base = await serve(backend)
    session = Session(http, base, kept)
    try:
        for path in ("/readyz", "/api/live", "/api/upstreams", "/api/messages/01A", "/api/queue"):
            await session.ask("GET", path, token=None)
        for method, path in guarded:
            await session.ask(method, path, token=None, Host="evil.example")
    finally:
        await server.stop()
        await store.close()
