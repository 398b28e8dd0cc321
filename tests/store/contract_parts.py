"""What every store must do with a message that is split: it is put whole or not at all, and shown as one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from relay.mail.envelope import Envelope, Recipient
from relay.store.base import Store, StoreError
from relay.store.model import NewMessage, RecipientUpdate, Selection, Settlement, SplitPart
from tests.store.build import CONTENT, EVERYTHING, NOW, attempt, claim, ids, ids_of, message, settled

TO = ("a@bulk.example", "b@users.example", "c@bulk.example", "d@vip.example")


def part(lane: str, entry: str | None, *places: int, **changed: Any) -> NewMessage:
    envelope = Envelope("no-reply@auth.example.com", tuple(Recipient(TO[place]) for place in places))
    return message(lane=lane, rule=f"{lane} rule", envelope=envelope, split=SplitPart(entry, places), **changed)


def split(**changed: Any) -> tuple[NewMessage, NewMessage, NewMessage]:
    """The parts of a message to TO: the entry, of the lane `otp`, those of `bulk` and `vip`."""
    entry = part("otp", None, 1, **changed)
    return (
        entry,
        part("bulk", entry.id, 0, 2, expires_at=NOW + 86_400, **changed),
        part("vip", entry.id, 3, **changed),
    )


def column(shown: Any, name: str) -> list[Any]:
    return [one[name] for one in shown["recipients"]]


class PartsContract:
    async def test_parts_are_written_together_and_only_the_first_is_claimed(self, store: Store) -> None:
        entry, bulk, vip = split()
        await store.put(entry, claimed=True, others=[bulk, vip])
        assert await claim(store) == []
        (of_bulk,) = await claim(store, lane="bulk")
        assert (of_bulk.id, of_bulk.content, of_bulk.envelope) == (bulk.id, CONTENT, bulk.envelope)
        assert ids_of(await claim(store, lane="vip")) == [vip.id]
        assert store.size() == (3, 3 * len(CONTENT))

    async def test_an_express_part_takes_the_others_along(self, store: Store) -> None:
        entry, *others = split()
        await store.start_put(entry, express=True, others=others)
        assert [await store.next_due(lane) for lane in ("otp", "bulk", "vip")] == [None, NOW, NOW]

    @pytest.mark.parametrize("size", [5, 600_000])
    async def test_where_one_part_can_t_be_written_none_is(self, store: Store, size: int) -> None:
        entry, bulk, vip = split(content=bytes(size))
        await store.put(message(id=vip.id, content=b"x"), claimed=False)
        with pytest.raises(StoreError):
            await store.put(entry, claimed=True, others=[bulk, vip])
        assert store.size() == (1, 1)
        assert [await store.next_due(lane) for lane in ("otp", "bulk")] == [NOW, None]
        assert ids(await store.search(EVERYTHING)) == [vip.id]

    async def test_large_contents_are_each_part_s_own(self, store: Store) -> None:
        entry, *others = split(content=bytes(1_200_000))
        await store.put(entry, claimed=False, others=others)
        assert store.size() == (3, 3_600_000)
        assert [queued.content for queued in await claim(store, lane="bulk")] == [entry.content]
        await store.settle(settled(others[0].id, "sent", 0, 1))
        assert store.size() == (2, 2_400_000)
        assert [queued.content for queued in await claim(store)] == [entry.content]

    async def test_contents_in_pieces_are_written_together(self, store: Store) -> None:
        entry, *others = split(content=b"")

        def pieces() -> Iterator[bytes]:
            return iter([bytes(400_000), b"x" * 400_000])

        await store.put_large(entry, pieces(), most_bytes=800_000, others=[(one, pieces()) for one in others])
        claimed = [queued for lane in ("otp", "bulk", "vip") for queued in await claim(store, lane=lane)]
        assert ids_of(claimed) == [entry.id, *(one.id for one in others)]
        assert {queued.content for queued in claimed} == {b"".join(pieces())}

        def failing() -> Iterator[bytes]:
            yield bytes(600_000)
            raise OSError("gone")

        entry, bulk, _ = split(content=b"")
        with pytest.raises(OSError, match="gone"):
            await store.put_large(entry, pieces(), most_bytes=800_000, others=[(bulk, failing())])
        assert (await store.get(entry.id), store.size()[0]) == (None, 3)

    async def test_any_part_s_id_shows_the_whole_message(self, store: Store) -> None:
        entry, bulk, vip = split(timings_ms={"classify": 0.1})
        await store.put(entry, claimed=True, others=[bulk, vip])
        await store.settle(
            Settlement(
                bulk.id,
                (RecipientUpdate(1, "sent", "ses", "250 ok", sent_at=NOW + 1),),
                (attempt(1, 1, upstream="ses"),),
                note="of bulk",
            )
        )
        shown: Any = await store.get(entry.id)
        assert (shown["id"], shown["lane"], shown["rule"]) == (entry.id, "otp", "otp rule")
        assert column(shown, "address") == list(TO)
        assert column(shown, "lane") == ["bulk", "otp", "bulk", "vip"]
        assert column(shown, "rule") == ["bulk rule", "otp rule", "bulk rule", "vip rule"]
        assert column(shown, "part") == [bulk.id, entry.id, bulk.id, vip.id]
        assert column(shown, "state") == ["queued", "sending", "sent", "queued"]
        assert column(shown, "upstream") == [None, None, "ses", None]
        assert column(shown, "expires_at") == [
            "2027-01-16T08:00:00.000Z", "2027-01-15T08:10:00.000Z", "2027-01-16T08:00:00.000Z",
            "2027-01-15T08:10:00.000Z",
        ]  # fmt: skip
        assert [len(each) for each in column(shown, "attempts")] == [0, 0, 1, 0]
        assert [note["text"] for note in shown["notes"]] == ["of bulk"]
        assert not {"split", "places", "part_of", "entry"} & shown.keys()
        assert [await store.get(one.id) for one in (bulk, vip)] == [shown, shown]

    @pytest.mark.parametrize(
        "selection",
        [
            EVERYTHING,
            Selection(lane="otp"),
            Selection(lane="bulk"),
            Selection(to="C@bulk.example"),
            Selection(to=TO[1]),
            Selection(state="sending"),
            Selection(lane="vip", state="queued"),
        ],
    )
    async def test_a_listing_shows_a_message_once_where_any_of_its_parts_is_selected(
        self, store: Store, selection: Selection
    ) -> None:
        entry, *others = split()
        await store.put(entry, claimed=True, others=others)
        for listed in (await store.search(selection), await store.waiting(selection)):
            assert ids(listed) == [entry.id]
            assert column(listed[0], "address") == list(TO)
        assert await store.search(Selection(lane="bulk", state="sending")) == []

    async def test_a_listing_is_as_long_as_it_may_be(self, store: Store) -> None:
        put = []
        for number in range(5):
            entry, *others = split(at=NOW + number)
            await store.put(entry, claimed=False, others=others)
            put.append(entry.id)
            single = message(at=NOW + number + 0.5)
            await store.put(single, claimed=False)
            put.append(single.id)
        for limit in (1, 2, 3, 7, 10, 100):
            selection = Selection(limit=limit)
            assert ids(await store.search(selection)) == put[::-1][:limit]
            assert ids(await store.waiting(selection)) == put[:limit]

    @pytest.mark.parametrize("named", [0, 1, 2])
    async def test_an_action_by_the_ids_of_all_parts_changes_all_and_names_the_entry(
        self, store: Store, named: int
    ) -> None:
        parts = split()
        other = message()
        await store.put(parts[0], claimed=False, others=parts[1:])
        await store.put(other, claimed=False)
        wanted = await store.with_parts([parts[named].id])
        assert sorted(wanted) == sorted(one.id for one in parts)
        assert await store.act("drop", Selection(ids=tuple(wanted)), NOW + 1) == [parts[0].id]
        shown: Any = await store.get(parts[named].id)
        assert column(shown, "state") == ["bounced"] * 4
        assert shown["notes"] == [{"at": "2027-01-15T08:00:01.000Z", "text": "drop by the operator"}]
        assert await store.with_parts([other.id, "01UNKNOWN"]) == [other.id, "01UNKNOWN"]
        assert store.size()[0] == 1

    async def test_an_action_on_a_lane_leaves_the_other_parts_alone(self, store: Store) -> None:
        entry, *others = split()
        await store.put(entry, claimed=False, others=others)
        assert await store.act("hold", Selection(lane="bulk"), NOW) == [entry.id]
        assert column(await store.get(entry.id), "state") == ["held", "queued", "held", "queued"]

    async def test_what_is_left_of_a_message_is_shown_by_its_id(self, store: Store) -> None:
        entry, bulk, vip = split()
        await store.put(entry, claimed=True, others=[bulk, vip])
        await store.settle(settled(entry.id))
        assert await store.prune(NOW + 1, limit=10) == 1
        for message_id in (entry.id, bulk.id, vip.id):
            shown: Any = await store.get(message_id)
            assert (shown["id"], column(shown, "address")) == (entry.id, [TO[0], TO[2], TO[3]])
        assert ids(await store.search(EVERYTHING)) == [entry.id]

    async def test_many_split_messages_at_once_are_each_whole(self, store: Store) -> None:
        put: Sequence[tuple[NewMessage, ...]] = [split() for _ in range(40)]
        puts = (store.put(entry, claimed=bool(n % 2), others=more) for n, (entry, *more) in enumerate(put))
        await asyncio.gather(*puts)
        listed = await store.search(EVERYTHING)
        assert sorted(ids(listed)) == sorted(entry.id for entry, *_ in put)
        assert all(column(one, "address") == list(TO) for one in listed)
