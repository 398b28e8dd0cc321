"""A command's view of a relay's files tells what the relay's own view does."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.store.base import StoreDamaged, StoreError
from relay.store.merge import shard
from relay.store.merged import Several
from relay.store.model import Selection, State
from relay.store.offline import look_at
from relay.store.sqlite import search
from relay.store.sqlite.store import open_store
from tests.store.build import EVERYTHING, NOW, in_state, message

STATES: tuple[State, ...] = ("queued", "deferred", "held", "sent", "bounced")


@pytest.mark.parametrize(
    "selection", [EVERYTHING, Selection(limit=3), Selection(to="a@example.net"), Selection(lane="x")]
)
async def test_both_views_of_several_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, selection: Selection
) -> None:
    monkeypatch.setattr(search, "SLICE_MESSAGES", 2)
    path = tmp_path / "relay.db"
    files = [await open_store(one, now=lambda: NOW) for one in (path, shard(path, 1), shard(path, 2))]
    several = Several(lambda: files)
    try:
        made = [await in_state(file, state, "a@example.net", "b@example.net") for state in STATES for file in files]
        doubled = message(lane="x")  # on its way from one file to the other
        for file in files[:2]:
            await file.put(doubled, claimed=False)
        with look_at(path) as look:
            assert look.search(selection) == await several.search(selection)
            assert look.waiting(selection) == await several.waiting(selection)
            assert look.counts() == await several.counts()
            assert look.deliveries(NOW - 1) == await several.deliveries(NOW - 1) != []
            for message_id in (*made, doubled.id):
                assert look.get(message_id) == await several.get(message_id) is not None
            assert look.get("01JD0000000000000000000000") is None
    finally:
        for file in files:
            await file.close()


async def test_a_look_changes_nothing_and_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"), look_at(tmp_path / "relay.db"):
        pass
    assert not list(tmp_path.iterdir())
    store = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    await store.close()
    shard(tmp_path / "relay.db", 1).write_bytes(b"not a store" * 1_000)
    with pytest.raises(StoreDamaged, match=r"relay-bulk1\.db"), look_at(tmp_path / "relay.db"):
        pass


async def test_what_breaks_under_a_look_is_the_store_s_own_error(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await open_store(path, now=lambda: NOW)
    for _ in range(30):
        await in_state(store, "sent")
    await store.close()
    with path.open("r+b") as file:  # past the first page, which has the schema
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with look_at(path) as look, pytest.raises(StoreDamaged, match=r"relay\.db: damaged"):
        look.search(EVERYTHING)
