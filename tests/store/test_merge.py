"""Several files read as one, by the commands and by the relay."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from relay.store.base import StoreDamaged, StoreError
from relay.store.events import EventSelection
from relay.store.merge import MergedReader, open_offline, open_readers, shard
from relay.store.model import LaneCount, NewMessage, Selection, SplitPart, State
from relay.store.search_text import SearchText
from relay.store.sqlite import report_rows, windows
from relay.store.sqlite.log import SqliteLog
from relay.store.sqlite.reader import Reader
from relay.store.sqlite.store import SqliteStore, open_store
from relay.store.sqlite.thread import WorkThread
from tests.store.build import EVERYTHING, NOW, ids, in_state, message

STATES: tuple[State, ...] = ("queued", "deferred", "held", "sent", "bounced")


@pytest.fixture
async def files(tmp_path: Path) -> AsyncIterator[list[SqliteStore]]:
    """A main store and those of two workers."""
    path = tmp_path / "relay.db"
    opened = [await open_store(one, now=lambda: NOW) for one in (path, shard(path, 1), shard(path, 2))]
    yield opened
    for file in opened:
        await file.close()


@pytest.mark.parametrize(
    "selection", [EVERYTHING, Selection(limit=3), Selection(to="a@example.net"), Selection(lane="x")]
)
async def test_a_command_and_the_relay_show_the_same_and_each_message_once(
    tmp_path: Path, files: list[SqliteStore], monkeypatch: pytest.MonkeyPatch, selection: Selection
) -> None:
    monkeypatch.setattr(report_rows, "SLICE_MESSAGES", 2)
    made = [await in_state(file, state, "a@example.net", "b@example.net") for state in STATES for file in files]
    doubled = message(lane="x")  # on its way from one file to the other
    for file in files[:2]:
        await file.put(doubled, claimed=False)
    log = SqliteLog(open_readers(tmp_path / "relay.db"), WorkThread("log"))
    with open_offline(tmp_path / "relay.db") as reader:
        found = reader.search(selection)
        assert found == await log.search(selection)
        assert len(found) == len(set(ids(found))) > 0
        assert reader.waiting(selection) == await log.waiting(selection)
        assert reader.counts() == await log.counts()
        assert reader.deliveries(NOW - 1) == await log.deliveries(NOW - 1) != []
        for message_id in (*made, doubled.id):
            assert reader.get(message_id) == await log.get(message_id) is not None
        assert reader.get("01JD0000000000000000000000") is None
    await log.close()
    await log.close()
    with pytest.raises(StoreError):
        await log.counts()


async def test_what_waits_in_a_lane_is_counted_over_all_files_and_as_old_as_the_oldest(
    tmp_path: Path, files: list[SqliteStore]
) -> None:
    main, bulk, _ = files
    await main.put(message(lane="bulk", at=NOW - 30), claimed=False)
    await bulk.put(message("a@example.net", "b@example.net", lane="bulk", at=NOW - 90), claimed=False)
    await bulk.put(message(lane="otp", at=NOW - 10), claimed=False)
    with open_offline(tmp_path / "relay.db") as reader:
        found = reader.counts()
    assert sorted(found, key=lambda row: row.lane) == [
        LaneCount("bulk", "queued", 3, NOW - 90),
        LaneCount("otp", "queued", 1, NOW - 10),
    ]


async def test_a_worker_s_file_that_is_damaged_is_said_and_leaves_the_main_one_free(tmp_path: Path) -> None:
    main = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    await main.close()
    shard(tmp_path / "relay.db", 1).write_bytes(b"not a store" * 1_000)
    with pytest.raises(StoreDamaged, match=r"relay-bulk1\.db"):
        open_readers(tmp_path / "relay.db")
    again = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    await again.close()


async def test_a_file_that_is_added_is_read_too(tmp_path: Path, files: list[SqliteStore]) -> None:
    made = [await in_state(file, "queued") for file in files[:2]]
    with closing(MergedReader(Reader.open(tmp_path / "relay.db"))) as reader:
        assert ids(reader.search(EVERYTHING)) == made[:1]
        reader.add(Reader.open(shard(tmp_path / "relay.db", 1)))
        assert ids(reader.search(EVERYTHING)) == made[::-1]


async def test_a_look_changes_nothing_and_makes_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="there is no store"), open_offline(tmp_path / "relay.db"):
        pass
    assert not list(tmp_path.iterdir())
    store = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    await store.close()
    shard(tmp_path / "relay.db", 1).write_bytes(b"not a store" * 1_000)
    with pytest.raises(StoreDamaged, match=r"relay-bulk1\.db"), open_offline(tmp_path / "relay.db"):
        pass


async def test_damage_met_while_reading_is_the_store_s_own_error(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    store = await open_store(path, now=lambda: NOW)
    for _ in range(30):
        await in_state(store, "sent")
    await store.close()
    with path.open("r+b") as file:  # past the first page, which has the schema
        file.seek(4096)
        file.write(b"\xff" * (path.stat().st_size - 4096))
    with pytest.raises(StoreDamaged, match=r"relay\.db: damaged"), open_offline(path) as reader:
        reader.search(EVERYTHING)


def split(number: int = 0) -> tuple[NewMessage, NewMessage]:
    """The parts of a message to `a@`, `b@` and `c@example.net`: the entry has the second."""
    entry = message("b@example.net", lane="otp", at=NOW + number, split=SplitPart(None, (1,)))
    other = message("a@example.net", "c@example.net", lane="bulk", at=NOW + number, split=SplitPart(entry.id, (0, 2)))
    return entry, other


async def test_parts_in_several_files_are_one_message_by_the_id_of_any(
    tmp_path: Path, files: list[SqliteStore]
) -> None:
    main, worker, _ = files
    entry, other = split()
    await main.put(entry, claimed=False)
    await worker.put(other, claimed=False)
    with open_offline(tmp_path / "relay.db") as reader:
        shown = reader.get(entry.id)
        assert shown is not None
        assert [one["address"] for one in shown["recipients"]] == ["a@example.net", "b@example.net", "c@example.net"]
        assert reader.get(other.id) == shown
        for selection in (EVERYTHING, Selection(lane="bulk"), Selection(lane="otp"), Selection(to="c@example.net")):
            for found in (reader.search(selection), reader.waiting(selection)):
                assert ids(found) == [entry.id]
                assert [one["part"] for one in found[0]["recipients"]] == [other.id, entry.id, other.id]
        assert sorted(reader.with_parts([other.id])) == sorted(reader.with_parts([entry.id])) == [entry.id, other.id]


async def test_a_part_that_is_on_its_way_to_another_file_is_shown_once(
    tmp_path: Path, files: list[SqliteStore]
) -> None:
    entry, other = split()
    await files[0].put(entry, claimed=False, others=[other])
    moved = await files[0].export_message(other.id)
    assert moved is not None
    await files[2].import_message(moved)
    with open_offline(tmp_path / "relay.db") as reader:
        before = reader.get(entry.id)
        assert ids(reader.search(EVERYTHING)) == [entry.id]
        await files[0].delete_transferred(other.id)
        assert reader.get(entry.id) == before
        assert before is not None
        kinds = [[event["kind"] for event in one["events"]] for one in before["recipients"]]
        assert kinds == [["accepted"]] * 3
        assert {event["message"] for one in before["recipients"] for event in one["events"]} == {entry.id}
        assert ids(reader.search(EVERYTHING)) == [entry.id]


async def test_a_listing_over_several_files_ends_at_its_limit_and_leaves_out_none_before(
    tmp_path: Path, files: list[SqliteStore]
) -> None:
    put = []
    for number in range(12):
        entry, other = split(number)
        # One file has both parts of each, the other single messages.
        await files[1].put(entry, claimed=False, others=[other])
        single = message(at=NOW + number + 0.5)
        await files[2].put(single, claimed=False)
        put += [entry.id, single.id]
    with open_offline(tmp_path / "relay.db") as reader:
        for limit in (1, 2, 5, 12, 23, 24, 100):
            assert ids(reader.search(Selection(limit=limit))) == put[::-1][:limit]
            assert ids(reader.waiting(Selection(limit=limit))) == put[:limit]


async def test_a_search_by_text_reads_all_files_newest_first_a_window_at_a_time(
    tmp_path: Path, files: list[SqliteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "MESSAGES", 3)
    put = []
    for number in range(12):
        entry, other = split(number)
        await files[0].put(entry, claimed=False, others=[other])
        single = message("d@example.net", at=NOW + number + 0.5)
        await files[1 + number % 2].put(single, claimed=False)
        put += [entry.id, single.id]
    log = SqliteLog(open_readers(tmp_path / "relay.db"), WorkThread("store log"))
    for selection, wanted in (
        (Selection(text=SearchText(to="*@example.net")), put[::-1]),
        (Selection(text=SearchText(to="@example"), limit=5), put[::-1][:5]),
        (Selection(text=SearchText(to="a@")), put[-2::-2]),
        (Selection(text=SearchText(anywhere="d@"), since=NOW + 3, until=NOW + 6), [put[11], put[9], put[7]]),
        (Selection(text=SearchText(to="d@"), ids=(put[1], put[2])), [put[1]]),
    ):
        found = await log.find(selection, 10.0)
        assert ids(found.messages) == wanted
        assert found.searched_since is None
    cut = await log.find(Selection(text=SearchText(to="d@")), 0.0)
    assert cut.searched_since == NOW + 10
    assert ids(cut.messages) == [put[23], put[21]]
    await log.close()


@pytest.mark.parametrize(
    ("selection", "expected"),
    [
        (EventSelection(), ["a@example.net", "b@example.net", "c@example.net"]),
        (EventSelection(since=NOW - 1), ["a@example.net", "b@example.net", "c@example.net"]),
        (EventSelection(kind="accepted", lane="bulk"), ["a@example.net", "c@example.net"]),
        (EventSelection(lane="otp"), ["b@example.net"]),
        (EventSelection(to="C@example.net"), ["c@example.net"]),
        (EventSelection(kind="sent"), []),
        (EventSelection(since=NOW + 60), []),
    ],
)
async def test_events_of_a_message_that_has_moved_to_another_file_are_listed(
    tmp_path: Path, files: list[SqliteStore], selection: EventSelection, expected: list[str]
) -> None:
    entry, other = split()
    await files[0].put(entry, claimed=False, others=[other])
    moved = await files[0].export_message(other.id)
    assert moved is not None
    for step in (files[1].import_message(moved), files[0].delete_transferred(other.id)):
        await step
        with open_offline(tmp_path / "relay.db") as reader:
            found = reader.events(selection)
        assert sorted(one["recipient"] for one in found) == expected
        assert {one["message"] for one in found} <= {entry.id}
