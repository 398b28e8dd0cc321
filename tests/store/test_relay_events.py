"""The relay's own events: written with what they tell, whichever call it was, and shown on the time line."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from relay.mail.envelope import Envelope, Recipient
from relay.store.model import RecipientUpdate, Selection, Settlement
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, attempt, claim, message

Change = Callable[[SqliteStore, str], Awaitable[Any]]
AT = NOW + 7.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path / "relay.db", now=lambda: AT)
    yield opened
    await opened.close()


async def kinds(store: SqliteStore, message_id: str) -> list[list[str]]:
    """The kinds of each recipient's events."""
    shown: Any = await store.get(message_id)
    return [[event["kind"] for event in recipient["events"]] for recipient in shown["recipients"]]


def settles(state: Any, **values: Any) -> Change:
    return lambda store, message_id: store.settle(
        Settlement(message_id, (RecipientUpdate(0, state, "ses", "451 4.3.0 later", **values),), (attempt(),))
    )


async def test_an_event_says_what_when_where_and_to_whom(store: SqliteStore) -> None:
    new = message("user@example.net")
    await store.put(new, claimed=True)
    await settles("sent", sent_at=NOW + 2.5)(store, new.id)
    shown: Any = await store.get(new.id)
    accepted, sent = shown["recipients"][0]["events"]
    assert sent == {
        "id": sent["id"],
        "at": "2027-01-15T08:00:02.500Z",
        "kind": "sent",
        "source": "relay",
        "message": new.id,
        "message_id": "<1@auth.example.com>",
        "recipient": "user@example.net",
        "lane": "otp",
        "upstream": "ses",
        "permanent": None,
        "reason": "451 4.3.0 later",
        "after_ms": 2500.0,
    }
    assert (accepted["kind"], accepted["after_ms"], accepted["upstream"]) == ("accepted", 0.0, None)
    assert accepted["id"].startswith("evt_")
    assert accepted["id"] != sent["id"]
    again: Any = await store.get(new.id)
    assert [event["id"] for event in again["recipients"][0]["events"]] == [accepted["id"], sent["id"]]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (settles("deferred", next_at=NOW + 9), "deferred"),
        (settles("bounced"), "bounced"),
        (settles("expired"), "expired"),
        (settles("ambiguous"), "ambiguous"),
        (settles("suppressed"), "suppressed"),
        (lambda store, _: store.recover(NOW + 1, ["otp"]), None),
    ],
)
async def test_each_change_of_a_claimed_recipient_is_its_event(
    store: SqliteStore, change: Change, kind: str | None
) -> None:
    new = message("a@x.org", "b@x.org")
    await store.put(new, claimed=True)
    await change(store, new.id)
    assert await kinds(store, new.id) == [["accepted", *([kind] if kind else [])], ["accepted"]]


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda store, _: store.supersede("key", "02", NOW + 1), "superseded"),
        (lambda store, _: store.end_expired("otp", NOW + 1e6, "451 4.4.7 expired"), "expired"),
        (lambda store, _: store.act("hold", Selection(), NOW + 1), "held"),
        (lambda store, _: store.act("drop", Selection(), NOW + 1), "bounced"),
        (lambda store, _: store.act("retry", Selection(), NOW + 1), None),
    ],
)
async def test_each_change_of_waiting_mail_is_its_event(store: SqliteStore, change: Change, kind: str | None) -> None:
    new = message(envelope=Envelope("", (Recipient("a@x.org"),)), supersede_key="key")
    await store.put(new, claimed=False)
    await change(store, new.id)
    shown: Any = await store.get(new.id)
    events = shown["recipients"][0]["events"]
    assert [event["kind"] for event in events] == ["accepted", *([kind] if kind else [])]
    assert all(event["at"] == "2027-01-15T08:00:07.000Z" for event in events[1:])


async def test_a_change_of_a_finished_recipient_is_no_event_of_the_relay(store: SqliteStore) -> None:
    new = message("a@x.org")
    await store.put(new, claimed=True)
    await settles("sent", sent_at=NOW + 1)(store, new.id)
    await store.state.write(
        lambda tx: tx.execute("UPDATE recipient SET state = 'bounced' WHERE message_id = ?", (new.id,))
    )
    assert await kinds(store, new.id) == [["accepted", "sent"]]


async def test_pruning_takes_a_message_s_events_but_never_uses_a_number_twice(store: SqliteStore) -> None:
    new = [message(f"u{n}@x.org") for n in range(3)]
    for each in new:
        await store.put(each, claimed=True)
        await settles("sent", sent_at=NOW + 1)(store, each.id)

    async def numbers() -> list[int]:
        return await store.state.write(lambda tx: [seq for (seq,) in tx.execute("SELECT seq FROM event")])

    before = await numbers()
    assert await store.prune(NOW + 100, limit=100) == 3
    assert await numbers() == [max(before)]
    await store.put(message("new@x.org"), claimed=False)
    assert max(await numbers()) > max(before)
    assert len(await claim(store)) == 1
