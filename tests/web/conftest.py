"""A web server over a real store, and a health that a test can set."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from relay.config.network import AnyAddress, TcpAddress, UnixAddress
from relay.intake.sockets import bind
from relay.mail.envelope import Envelope, Recipient
from relay.observe.metrics import Family, Metrics
from relay.observe.pressure import IntakeLoad, QueueFill
from relay.observe.recent import Recent
from relay.store.base import Store
from relay.store.merge import MergedReader
from relay.store.model import Action, Attempt, NewMessage, RecipientUpdate, Selection, Settlement
from relay.store.sqlite.log import EventLog, SqliteLog
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.store import open_store
from relay.store.sqlite.thread import WorkThread
from relay.store.timeline import TimeLines
from relay.upstream.warm import Warm
from relay.web.backend import Backend, LaneHealth, Reload, UpstreamFacts, UpstreamHealth
from relay.web.guard import Tokens
from relay.web.server import WebServer

NOW = 1_800_000_000.0
TOKEN = "a-secret-token"
LOOPBACK = TcpAddress("127.0.0.1", 0)


@dataclass
class SetHealth:
    not_ready: list[str] = field(default_factory=list)
    known: dict[str, LaneHealth] = field(
        default_factory=lambda: {
            "otp": {
                "postmark": UpstreamHealth("up", {"idle": 2}, warm=Warm(3, "auto: bursts")),
                "ses": UpstreamHealth("down", reason="auth: 535 5.7.8", reply_text="bad credentials for relay"),
            },
            "bulk": {"ses": UpstreamHealth("half-open", window=6)},
        }
    )

    def reasons(self) -> Sequence[str]:
        return self.not_ready

    def queue(self) -> QueueFill:
        return QueueFill(3, 6_000, 5_000_000_000, 64_000_000, max_messages=1_000)

    def intake(self) -> IntakeLoad:
        return IntakeLoad(sessions=7, storing=4, waiting=2, behind_s=0.25, held_back_s={"turn": 1.5})

    def certificates(self) -> Mapping[str, float]:
        return {"0.0.0.0:587": NOW + 86_400}

    async def worker_metrics(self) -> Sequence[Family]:
        return ()

    def lanes(self) -> Mapping[str, LaneHealth]:
        return self.known


@dataclass
class SetInForce:
    """A configuration in force that a test can set."""

    started_at: float = NOW - 3_600
    loaded_at: float = NOW - 60
    last_reload: Reload | None = None
    path: str = "relay.yaml"
    written: dict[str, object] = field(default_factory=lambda: {"default_lane": "bulk"})

    def outline(self) -> Mapping[str, object]:
        return self.written

    def express(self) -> frozenset[str]:
        return frozenset({"otp"})

    def upstreams(self) -> Mapping[str, UpstreamFacts]:
        return {
            "postmark": UpstreamFacts("postmark", "auto", "smtp.postmarkapp.com", 587, webhook=True),
            "ses": UpstreamFacts(None, "smtp", "mx.example.net", 25, webhook=False),
        }


@dataclass
class StoreController:
    store: Store

    async def act(self, action: Action, selection: Selection) -> Sequence[str]:
        return await self.store.act(action, selection, NOW)


def message(message_id: str, lane: str = "otp", to: str = "user@example.net", accepted_at: float = NOW) -> NewMessage:
    return NewMessage(
        id=message_id,
        lane=lane,
        rule="auth-sender",
        envelope=Envelope("no-reply@auth.example.com", (Recipient(to),)),
        content=b"Subject: Your code: 123456\r\n\r\n123456\r\n",
        client="127.0.0.1",
        message_id=f"<{message_id}@auth.example.com>",
        subject="Your code: ••••••",
        providers=(to.partition("@")[2],),
        accepted_at=accepted_at,
        expires_at=accepted_at + 600,
        signed=("s1",),
        timings_ms={"receive": 1.2, "store": 0.4},
    )


def sent(message_id: str, total_ms: float = 41.0, accepted_at: float = NOW) -> Settlement:
    at = accepted_at + total_ms / 1000
    return Settlement(
        message_id,
        updates=(RecipientUpdate(0, "sent", "postmark", "250 2.0.0 OK 1234", sent_at=at),),
        attempts=(
            Attempt(
                0, 1, "postmark", accepted_at, "warm", "sent", "250 2.0.0 OK 1234", {"envelope": 20.0, "data": 21.0}
            ),
        ),
        timings_ms={"total": total_ms},
    )


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    yield opened
    await opened.close()


@pytest.fixture
def backend(store: Store, tmp_path: Path) -> Backend:
    return make_backend(store, tmp_path)


def make_backend(store: Store, folder: Path) -> Backend:
    """Over the store `relay.db` in that folder."""
    path = folder / "relay.db"
    merged = MergedReader(Reader.open(path), lines=TimeLines(path))
    events = EventLog(merged, SqliteLog(merged, WorkThread("store log")))
    return Backend(
        *(store, Metrics(), Recent(), SetHealth(), StoreController(store), events, SetInForce()), clock=lambda: NOW
    )


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as session:
        yield session


class Served(WebServer):
    """Knows where it listens."""

    address: AnyAddress

    async def start(self, sockets: Sequence[socket.socket]) -> None:
        await super().start(sockets)
        name = sockets[0].getsockname()
        self.address = UnixAddress(name) if isinstance(name, str) else TcpAddress(*name[:2])


async def serve(
    backend: Backend,
    token: str | None = None,
    hosts: frozenset[str] = frozenset(),
    address: AnyAddress = LOOPBACK,
) -> tuple[Served, str]:
    """A started server and its base URL; the caller stops it."""
    server = Served(backend, Tokens(token), hosts)
    await server.start(bind(address, {}))
    return server, f"http://{server.address}"


@pytest.fixture
async def url(backend: Backend) -> AsyncIterator[str]:
    server, base = await serve(backend)
    yield base
    await server.stop()


@pytest.fixture
async def guarded_url(backend: Backend) -> AsyncIterator[str]:
    server, base = await serve(backend, TOKEN)
    yield base
    await server.stop()
