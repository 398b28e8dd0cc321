"""The relay's own events on their way to receivers: in order, once, none forgotten, no old ones for a new one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from relay.feedback.receiver import Receiver
from relay.feedback.tail import Following, Tail
from relay.store.model import RecipientUpdate, Settlement
from relay.store.sqlite.events_file import EventsFile, open_events
from tests.feedback.rooms import AT, Room, room
from tests.store.build import NOW, exported, message

RECEIVER = Receiver("https://app.example/hooks", b"key")
NEW = Receiver("https://new.example/hooks", b"key")


@asynccontextmanager
async def following(
    here: Room, folder: Path, *receivers: Receiver, since: float = 0.0, begin: dict[str, int] | None = None
) -> AsyncIterator[tuple[Tail, EventsFile]]:
    """A tail over the room's files, as after a start of the process."""
    events = await open_events(folder / "relay-events.db", lambda: AT)

    def never(what: str, error: BaseException) -> None:
        raise AssertionError(what) from error

    tail = Tail(here.files, events, lambda: None, never)
    tail.begin = begin or {}
    await tail.load()
    await follow(tail, events, receivers, since)
    yield tail, events
    await events.close()


async def follow(tail: Tail, events: EventsFile, receivers: Sequence[Receiver], since: float) -> None:
    known = await events.receivers([one.key for one in receivers], since)
    tail.following = Following(receivers, known)


def news(here: Room, receiver: Receiver = RECEIVER) -> list[tuple[str, int, str]]:
    """Message, position and kind of what was put into a receiver's outbox, in order."""
    rows = here.rows("outbox", "receiver, message_id, position, json_extract(CAST(body AS TEXT), '$.type')")
    return [(message_id, position, kind) for key, message_id, position, kind in rows if key == receiver.key]


async def test_what_the_relay_did_comes_in_order_and_once_over_restarts(tmp_path: Path) -> None:
    async with room(tmp_path, stores=2) as here:
        async with following(here, tmp_path, RECEIVER) as (tail, _):
            first = await here.sent("user@example.net", "ann@example.org")
            bulk = await here.sent("user@example.net", store=1)
            await tail.catch_up()
            expected = [(first, 0, "accepted"), (first, 1, "accepted"), (first, 0, "sent"), (first, 1, "sent")]
            assert news(here) == [*expected, (bulk, 0, "accepted"), (bulk, 0, "sent")]
            await tail.catch_up()
        second = await here.sent("user@example.net")  # while no process ran; it was killed: nothing was saved
        async with following(here, tmp_path, RECEIVER) as (tail, _):
            await tail.catch_up()
            assert news(here)[6:] == [(second, 0, "accepted"), (second, 0, "sent")]


async def test_a_new_receiver_gets_no_old_news(tmp_path: Path) -> None:
    async with room(tmp_path) as here, following(here, tmp_path, RECEIVER) as (tail, events):
        await here.sent("user@example.net")
        await follow(tail, events, [RECEIVER, NEW], NOW + 0.5)  # between `accepted` and `sent`
        await tail.catch_up()
        assert [kind for *_, kind in news(here)] == ["accepted", "sent"]
        assert [kind for *_, kind in news(here, NEW)] == ["sent"]


async def test_a_file_is_followed_from_where_it_was_when_the_relay_began_to(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        old = await here.sent("user@example.net")
        begin = {"relay.db": 1}
        async with following(here, tmp_path, RECEIVER, begin=begin) as (tail, _):
            await tail.catch_up()
            assert news(here) == [(old, 0, "sent")]


async def test_a_message_that_moved_to_a_workers_file_is_followed_there(tmp_path: Path) -> None:
    async with room(tmp_path, stores=2) as here, following(here, tmp_path, RECEIVER) as (tail, _):
        main, worker = here.stores
        new = message("user@example.net", lane="bulk")
        await main.put(new, claimed=False)
        moved = await exported(main, new.id)
        await worker.import_message(moved)
        await main.delete_transferred(new.id)
        sent = RecipientUpdate(0, "sent", "postmark", "250 ok", sent_at=NOW + 1)
        await worker.settle(Settlement(new.id, (sent,)))
        await tail.catch_up()
        assert news(here) == [(new.id, 0, "accepted"), (new.id, 0, "sent")]


async def test_more_than_is_read_at_once_arrives_as_a_whole(tmp_path: Path) -> None:
    async with room(tmp_path) as here, following(here, tmp_path, RECEIVER) as (tail, _):
        sent = [await here.sent("user@example.net", "ann@example.org") for _ in range(300)]
        await tail.catch_up()
        kinds = [kind for *_, kind in news(here)]
        assert len(kinds) == 4 * len(sent)
        assert {message_id for message_id, *_ in news(here)} == set(sent)


async def test_what_the_relay_did_comes_before_what_the_esp_reports_of_it(tmp_path: Path) -> None:
    async with room(tmp_path) as here, following(here, tmp_path, RECEIVER) as (tail, _):
        here.webhooks.receivers = [RECEIVER]
        here.webhooks.catch_up = tail.catch_up
        sent = await here.sent("user@example.net")
        assert (await here.post(MessageID="x")).status == 200
        assert news(here) == [(sent, 0, "accepted"), (sent, 0, "sent"), (sent, 0, "delivered")]
