"""Messages and settlements for the tests of the store."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

from relay.mail.envelope import Envelope, Recipient
from relay.store.base import Store
from relay.store.model import (
    Attempt,
    NewMessage,
    Queued,
    RecipientUpdate,
    Selection,
    Settlement,
    State,
    TransferredMessage,
)
from relay.store.sqlite.store import SqliteStore
from relay.store.ulid import IdMaker

T = TypeVar("T")

NOW = 1_800_000_000.0
"""2027-01-15T08:00:00Z"""
EVERYTHING = Selection(limit=1000)
CONTENT = b"Subject: hello\r\n\r\nYour code is 123456\r\n"

_ids = IdMaker()


def message(*addresses: str, at: float = NOW, **changed: Any) -> NewMessage:
    """A message of the lane `otp` to these addresses (default: one), accepted at `at`."""
    recipients = tuple(Recipient(address) for address in addresses or ("user@example.net",))
    values: dict[str, Any] = {
        "id": _ids.new_id(at, os.urandom(10)),
        "lane": "otp",
        "rule": "auth-sender",
        "envelope": Envelope("no-reply@auth.example.com", recipients),
        "content": CONTENT,
        "client": "127.0.0.1",
        "message_id": "<1@auth.example.com>",
        "subject": "Your verification code: ••••••",
        "providers": tuple(
            r.address.rpartition("@")[2] for r in changed.get("envelope", Envelope("", recipients)).recipients
        ),
        "accepted_at": at,
        "expires_at": at + 600,
    }
    return NewMessage(**{**values, **changed})


def settled(message_id: str, state: State = "sent", *positions: int, **changed: Any) -> Settlement:
    """Those recipients (default: the first) get the state."""
    updates = tuple(RecipientUpdate(position, state, **changed) for position in positions or (0,))
    return Settlement(message_id, updates)


def attempt(position: int = 0, n: int = 1, **changed: Any) -> Attempt:
    values: dict[str, Any] = {
        "position": position,
        "n": n,
        "upstream": "postmark",
        "started_at": NOW + n,
        "session": "warm",
        "outcome": "sent",
        "reply": "250 2.0.0 OK",
        "timings_ms": {"connect": 0, "envelope": 20.1234, "data": 20.9},
    }
    return Attempt(**{**values, **changed})


async def states(store: Store, message_id: str) -> list[State]:
    shown: Any = await store.get(message_id)
    return [recipient["state"] for recipient in shown["recipients"]]


async def claim(store: Store, now: float = NOW, *, lane: str = "otp", messages: int = 100) -> list[Queued]:
    return list(await store.claim(lane, now, messages=messages, size_bytes=10**9))


async def on_writer(store: SqliteStore, function: Callable[[sqlite3.Connection], T]) -> T:
    """The function's result, on the store's writing connection."""
    return await store.state.thread.run(partial(function, store.state.connection))


async def exported(store: SqliteStore, message_id: str) -> TransferredMessage:
    """A message that is there and can be read, as another file takes it in."""
    moved = await store.export_message(message_id)
    assert moved is not None
    return moved


async def in_state(store: Store, state: State, *addresses: str) -> str:
    """A message whose recipients all got this state the way they get it in life; a deferred one is due at NOW + 60."""
    new = message(*addresses)
    await store.put(new, claimed=state != "queued")
    if state == "held":
        await store.unclaim(new.id)
        await store.act("hold", Selection(ids=(new.id,)), NOW)
    elif state not in ("queued", "sending"):
        positions = range(len(new.providers))
        await store.settle(settled(new.id, state, *positions, next_at=NOW + 60, step=2))
    assert set(await states(store, new.id)) == {state}
    return new.id


def ids(found: Any) -> list[str]:
    return [each["id"] for each in found]


def ids_of(queued: list[Queued]) -> list[str]:
    return [each.id for each in queued]
