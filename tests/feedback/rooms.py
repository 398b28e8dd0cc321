"""Webhooks over real message files and a real events file, without a process of their own."""

from __future__ import annotations

import base64
import json
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

from relay.feedback.counts import Counts
from relay.feedback.message_files import MessageFiles
from relay.feedback.receive import Answer, Certificates, Webhooks
from relay.feedback.settings import WebhookSettings
from relay.feedback.sns import SnsClient
from relay.feedback.watch import FeedbackLog
from relay.observe.metrics import Metrics
from relay.store.model import RecipientUpdate, Settlement
from relay.store.sqlite.events_file import EventsFile, open_events
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, message

AT = NOW + 5.0
"""when webhooks come, by the clock of the tests"""
BASIC = "Basic " + base64.b64encode(b"hook:s3cret").decode()
POSTMARK = WebhookSettings("postmark", ("hook:s3cret",))


class Room:
    """A relay's files, and its webhooks."""

    def __init__(self, folder: Path, stores: Sequence[SqliteStore], events: EventsFile, sns: Certificates) -> None:
        self.stores = stores
        self.now = AT
        self.counts = Counts()
        self.log = FeedbackLog(Metrics(), self.counts, lambda: None)
        paths = [folder / f"{name}.db" for name in names(len(stores))]
        self.files = MessageFiles(lambda: paths, lambda _where, _error: None)
        self.webhooks = Webhooks(self.files, events, sns, self.log, lambda: self.now)
        self.webhooks.upstreams = {"postmark": POSTMARK}
        self._events_path = folder / "relay-events.db"

    async def sent(
        self, *addresses: str, store: int = 0, reply: str | None = "250 ok", upstream: str = "postmark", **changed: Any
    ) -> str:
        """A message that an upstream has taken; `reply` None: its reply is yet to come."""
        new = message(*addresses, **changed)
        await self.stores[store].put(new, claimed=True)
        if reply is not None:
            updates = tuple(
                RecipientUpdate(position, "sent", upstream, reply, sent_at=new.accepted_at + 1)
                for position in range(len(new.providers))
            )
            await self.stores[store].settle(Settlement(new.id, updates))
        return new.id

    async def post(self, **fields: object) -> Answer:
        """A Delivery of Postmark, with these fields changed."""
        return await self.take(json.dumps({**DELIVERY, **fields}).encode())

    async def take(self, body: bytes, upstream: str = "postmark", headers: dict[str, str] | None = None) -> Answer:
        answer = await self.webhooks.take(upstream, {"authorization": BASIC, **(headers or {})}, body)
        assert answer is not None
        return answer

    def rows(self, table: str = "event", columns: str = "message_id, position, kind") -> list[tuple[Any, ...]]:
        """What the events file has on the disk."""
        with closing(sqlite3.connect(self._events_path)) as connection:
            return connection.execute(f"SELECT {columns} FROM {table} ORDER BY rowid").fetchall()

    def tables(self) -> dict[str, int]:
        """The number of rows of each table that has some."""
        with closing(sqlite3.connect(self._events_path)) as connection:
            names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            counted = {
                name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]
                for name in names
                if not name.startswith("sqlite_")
            }
        return {name: count for name, count in counted.items() if count}


DELIVERY: dict[str, object] = {
    "RecordType": "Delivery",
    "MessageID": "00000000-0000-0000-0000-00000000000a",
    "Recipient": "user@example.net",
    "DeliveredAt": "2027-01-15T08:00:03Z",
}


def relay_id(message_id: str) -> dict[str, str]:
    """The metadata that brings the relay's id back."""
    return {"relay-id": message_id}


def queued_as(number: str) -> str:
    """Postmark's reply to the final dot."""
    return f"250 2.0.0 Ok: queued as 00000000-0000-0000-0000-00000000000{number}"


def names(stores: int) -> list[str]:
    return ["relay", *(f"relay-{number}" for number in range(1, stores))]


@asynccontextmanager
async def room(folder: Path, *, stores: int = 1, sns: SnsClient | None = None) -> AsyncIterator[Room]:
    """`stores`: the main file, and those of workers."""
    opened = [await open_store(folder / f"{name}.db", now=lambda: NOW) for name in names(stores)]
    events = await open_events(folder / "relay-events.db", lambda: AT)
    client = sns or SnsClient(lambda _what, _error: None)
    made = Room(folder, opened, events, client)
    await made.files.open()
    try:
        yield made
    finally:
        await made.files.close()
        await client.close()
        await events.close()
        for store in opened:
            await store.close()
