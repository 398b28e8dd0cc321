"""Suppressed addresses in a real file: what a second entry changes, listings, removal, expiry, what a start reads."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.policy.suppression import hash_of, shown_hash
from relay.store.sqlite.store import SqliteStore, open_store
from relay.store.sqlite.suppressions import OfflineSuppressions, load
from relay.store.suppressions import Suppression, SuppressionQuery
from tests.store.build import NOW

DAY = 86_400.0


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    yield opened
    await opened.close()


async def made(store: SqliteStore, address: str = "bob@example.net", **given: Any) -> Suppression:
    values = {"cause": "bounce", "reason": "5.1.1", "upstream": "one", "at": NOW, **given}
    return Suppression.of(address, hash_key=await store.suppressions.hash_key(), **values)


async def listed(store: SqliteStore, **asked: Any) -> list[Suppression]:
    return await store.suppressions.listing(SuppressionQuery(**asked))


SECOND: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any] | None]] = {
    "the same event": ({"until": NOW + 9}, {"until": NOW + 9}, None),
    "an older event": ({"at": NOW + 5}, {"reason": "5.1.2"}, None),
    "a newer event": ({"until": NOW + 9}, {"at": NOW + 5, "reason": "5.1.2", "until": NOW + 14},
                      {"at": NOW + 5, "reason": "5.1.2", "until": NOW + 14}),
    "a newer event that ends earlier": ({}, {"at": NOW + 5, "until": NOW + 9}, {"at": NOW + 5, "until": None}),
    "an older event that never ends": ({"at": NOW + 5, "until": NOW + 9}, {"reason": "5.1.2"},
                                       {"at": NOW + 5, "reason": "5.1.1", "until": None}),
    "the same by hand": ({"cause": "manual"}, {"cause": "manual", "at": NOW + 5}, None),
    "another reason by hand": ({"cause": "manual"}, {"cause": "manual", "reason": "left"}, {"reason": "left"}),
    "an end by hand": ({"cause": "manual"}, {"cause": "manual", "until": NOW + 9}, {"until": NOW + 9}),
    "nothing said by hand": ({"cause": "manual", "until": NOW + 9}, {"cause": "manual", "reason": "", "at": NOW + 5},
                             None),
    "only an end by hand": ({"cause": "manual"}, {"cause": "manual", "reason": "", "until": NOW + 9},
                            {"until": NOW + 9}),
    "an import of what is known": ({}, {"at": NOW + 5, "reason": "", "upstream": None}, None),
    "an import that never ends": ({"until": NOW + 9}, {"at": NOW + 5, "reason": "", "upstream": None}, {"until": None}),
    "no end by hand": ({"cause": "manual", "until": NOW + 9}, {"cause": "manual"}, {"until": None}),
}  # fmt: skip


@pytest.mark.parametrize("case", SECOND)
async def test_a_second_entry_changes_the_first_only_where_it_says_more(store: SqliteStore, case: str) -> None:
    first, second, becomes = SECOND[case]
    before = await made(store, **first)
    assert await store.suppressions.add([before]) == [before]
    after = before._replace(**becomes or {})
    changed = await store.suppressions.add([await made(store, "BOB@example.net", **second)])
    assert [one._replace(address=None, at=0) for one in changed] == (
        [after._replace(address=None, at=0)] if becomes is not None else []
    )
    (found,) = await listed(store)
    assert (found.at >= after.at, found.reason, found.until) == (True, after.reason, after.until)


async def test_an_address_has_an_entry_for_each_cause_and_is_removed_as_a_whole(store: SqliteStore) -> None:
    bounce, complaint = await made(store), await made(store, cause="complaint", at=NOW + 1)
    other = await made(store, "eve@example.net", at=NOW + 2)
    assert len(await store.suppressions.add([bounce, complaint, other])) == 3
    hashed = hash_of("Bob@Example.net", await store.suppressions.hash_key())
    assert await listed(store, hashed=hashed) == [complaint, bounce]
    assert await listed(store, cause="bounce") == [other, bounce]
    assert sorted(await store.suppressions.remove([hashed])) == sorted([bounce.key, complaint.key])
    assert await store.suppressions.remove([hashed]) == []
    assert await listed(store) == [other]


async def test_pages_show_each_entry_once_also_where_times_are_equal(store: SqliteStore, tmp_path: Path) -> None:
    rows = [await made(store, f"user{number}@example.net", at=NOW + number // 4) for number in range(30)]
    await store.suppressions.add(rows)
    offline = OfflineSuppressions(tmp_path / "relay.db")
    pages = list(offline.pages(SuppressionQuery(limit=7)))
    offline.close()
    assert pages == sorted(rows, key=lambda row: (row.at, row.key), reverse=True)


async def test_a_start_reads_what_was_written_with_times_in_whole_seconds(store: SqliteStore, tmp_path: Path) -> None:
    assert len(load(tmp_path / "relay.db")[1]) == 0
    rows = [
        await made(store, at=NOW + 0.7, until=NOW + 9.2),
        await made(store, cause="complaint", reason="abuse"),
        await made(store, "eve@example.net", cause="manual", reason="asked by eve@example.net"),
    ]
    await store.suppressions.add(rows)
    key, entries = load(tmp_path / "relay.db")
    assert key == await store.suppressions.hash_key()
    found = [*entries.find(hash_of("bob@example.net", key)), *entries.find(hash_of("eve@example.net", key))]
    assert found == [row.entry() for row in rows]
    assert [(one.at, one.until, one.detail) for one in found] == [
        (int(NOW), int(NOW) + 10, "5.1.1"),
        (int(NOW), None, ""),
        (int(NOW), None, "asked by (address)"),
    ]


async def test_what_no_longer_counts_is_deleted(store: SqliteStore) -> None:
    ended, lasting = await made(store, until=NOW + 1), await made(store, "eve@example.net")
    await store.suppressions.add([ended, lasting])
    assert await store.suppressions.prune(NOW) == []
    assert await store.suppressions.prune(NOW + 1) == [ended.key]
    assert await listed(store) == [lasting]


async def test_an_erased_address_keeps_its_entry_under_its_hash(store: SqliteStore) -> None:
    bob = await made(store)
    eve = await made(store, "eve@example.net", cause="manual", reason="a friend of bob@example.net")
    await store.suppressions.add([bob, eve])
    hashed = hash_of("bob@example.net", await store.suppressions.hash_key())
    assert await store.suppressions.erase(hashed, "bob@example.net") == 2
    assert await store.suppressions.erase(hashed, "bob@example.net") == 0
    shown = {row.key: row.as_json() for row in await listed(store)}
    assert shown[bob.key]["address"] == shown_hash(hashed)
    assert shown[eve.key]["reason"] == "a friend of (address)"
    assert [row.key for row in await listed(store, hashed=hash_of(shown_hash(hashed), b""))] == [bob.key]


async def test_with_hashed_addresses_only_those_given_by_hand_are_kept(store: SqliteStore) -> None:
    by_hand = await made(store, "eve@example.net", cause="manual", hashed=True)
    assert (await made(store, hashed=True)).address is None
    earlier = await made(store)
    await store.suppressions.add([by_hand, earlier])
    await store.suppressions.blank_readable()
    assert {row.key: row.address for row in await listed(store)} == {earlier.key: None, by_hand.key: "eve@example.net"}


async def test_a_reason_of_an_event_is_kept_without_addresses(store: SqliteStore) -> None:
    row = await made(store, reason="550 5.1.1 <bob@example.net>:\r\n  no\x00 user")
    assert row.reason == "550 5.1.1 <(address)>: no? user"
