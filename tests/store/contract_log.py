"""What every store must show of what it was given: get, search, waiting, counts, deliveries; and prune."""

from __future__ import annotations

from typing import Any

import pytest

from relay.store import receive
from relay.store.base import Store
from relay.store.model import DeliveryRow, LaneCount, RecipientUpdate, Selection, Settlement, State
from relay.store.search_text import SearchText
from tests.store.build import CONTENT, EVERYTHING, NOW, attempt, ids, in_state, message, settled


async def without_events(store: Store, message_id: str) -> Any:
    """A message without its recipients' events, which a store in memory has none of."""
    shown: Any = await store.get(message_id)
    for recipient in shown["recipients"]:
        recipient.pop("events", None)
    return shown


class LogContract:
    async def test_a_message_is_shown_as_the_contract_has_it(self, store: Store) -> None:
        new = message(
            "user@example.net",
            "b@example.org",
            signed=("s1", "e1"),
            detected="otp",
            trace="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            timings_ms={"receive": 1.23456, "classify": 0.1, "store": 0.4},
        )
        await store.put(new, claimed=True)
        await store.settle(
            Settlement(
                new.id,
                (RecipientUpdate(0, "deferred", "ses", "451 4.3.0 try later", next_at=NOW + 2.5),),
                (attempt(0, 1, upstream="ses", session="new", outcome="deferred", reply="451 4.3.0 try later"),),
                note="expired before the final dot",
            )
        )
        await store.settle(
            Settlement(
                new.id,
                (RecipientUpdate(0, "sent", "postmark", "250 2.0.0 OK 1234", sent_at=NOW + 3.0426),),
                (attempt(0, 2, started_at=NOW + 3.0004),),
                {"wait": 0.1, "store": 0.5, "total": 3042.6},
            )
        )
        assert await without_events(store, new.id) == {
            "id": new.id,
            "lane": "otp",
            "rule": "auth-sender",
            "sender": "no-reply@auth.example.com",
            "client": "127.0.0.1",
            "message_id": "<1@auth.example.com>",
            "subject": "Your verification code: ••••••",
            "size": len(CONTENT),
            "accepted_at": "2027-01-15T08:00:00.000Z",
            "expires_at": "2027-01-15T08:10:00.000Z",
            "signed": ["s1", "e1"],
            "content": "otp",
            "trace": "0af7651916cd43dd8448eb211c80319c",
            "priority": None,
            "deliver_by": None,
            "timings_ms": {"receive": 1.235, "classify": 0.1, "store": 0.5, "wait": 0.1, "total": 3042.6},
            "recipients": [
                {
                    "address": "user@example.net",
                    "provider": "example.net",
                    "state": "sent",
                    "upstream": "postmark",
                    "reply": "250 2.0.0 OK 1234",
                    "sent_at": "2027-01-15T08:00:03.043Z",
                    "delivered_at": None,
                    "attempts": [
                        {
                            "n": 1,
                            "upstream": "ses",
                            "started_at": "2027-01-15T08:00:01.000Z",
                            "via": "smtp",
                            "session": "new",
                            "outcome": "deferred",
                            "reply": "451 4.3.0 try later",
                            "timings_ms": {"connect": 0, "envelope": 20.123, "data": 20.9},
                        },
                        {
                            "n": 2,
                            "upstream": "postmark",
                            "started_at": "2027-01-15T08:00:03.000Z",
                            "via": "smtp",
                            "session": "warm",
                            "outcome": "sent",
                            "reply": "250 2.0.0 OK",
                            "timings_ms": {"connect": 0, "envelope": 20.123, "data": 20.9},
                        },
                    ],
                },
                {
                    "address": "b@example.org",
                    "provider": "example.org",
                    "state": "sending",
                    "upstream": None,
                    "reply": None,
                    "sent_at": None,
                    "delivered_at": None,
                    "attempts": [],
                },
            ],
            "hint": None,
            "notes": [{"at": "2027-01-15T08:00:00.000Z", "text": "expired before the final dot"}],
        }

    async def test_an_unknown_message_is_none(self, store: Store) -> None:
        assert await store.get("01UNKNOWN") is None

    async def test_a_search_gives_what_get_gives_but_for_the_attempts(self, store: Store) -> None:
        message_id = await in_state(store, "sent", "a@x.org", "b@x.org")
        shown = await without_events(store, message_id)
        for recipient in shown["recipients"]:
            del recipient["attempts"]
        assert await store.search(EVERYTHING) == [shown]

    @pytest.mark.parametrize(
        ("selection", "found"),
        [
            (Selection(), [6, 5, 4, 3, 2, 1, 0]),
            (Selection(limit=2), [6, 5]),
            (Selection(lane="bulk"), [6, 4]),
            (Selection(to="a@x.org"), [5, 2, 0]),
            (Selection(to="A@X.ORG", limit=1), [5]),
            (Selection(to="ÜSER@x.org"), [6]),
            (Selection(to="nobody@x.org"), []),
            (Selection(state="sent"), [6, 3, 0]),
            (Selection(state="bounced"), [2, 1]),
            (Selection(state="deferred"), [5, 4]),
            (Selection(state="held"), []),
            (Selection(state="sent", lane="otp"), [3, 0]),
            (Selection(state="deferred", lane="bulk"), [4]),
            (Selection(state="bounced", to="a@x.org"), [2]),
            (Selection(state="sent", to="a@x.org"), [0]),
            (Selection(since=NOW + 2), [6, 5, 4, 3, 2]),
            (Selection(since=NOW + 2, until=NOW + 4), [3, 2]),
            (Selection(since=NOW + 2, to="a@x.org"), [5, 2]),
            (Selection(until=NOW + 2, to="a@x.org", lane="otp"), [0]),
            (Selection(until=NOW + 2, state="bounced"), [1]),
        ],
    )
    async def test_all_that_a_selection_names_must_hold(
        self, store: Store, selection: Selection, found: list[int]
    ) -> None:
        await self._fill(store)
        assert [int(each["subject"]) for each in await store.search(selection)] == found  # type: ignore[call-overload]

    @pytest.mark.parametrize(
        ("selection", "found"),
        [
            (Selection(), [6, 5, 4, 3, 2, 1, 0]),
            (Selection(to="a@x.org", limit=2), [5, 2]),
            (Selection(states=frozenset({"sent", "deferred"})), [6, 5, 4, 3, 0]),
            (Selection(states=frozenset({"bounced"}), to="A@x.org"), [2]),
            (Selection(states=frozenset({"deferred"}), lane="otp"), [5]),
            (Selection(text=SearchText(to="A@")), [5, 2, 0]),
            (Selection(text=SearchText(to="*@X.org"), limit=3), [6, 5, 4]),
            (Selection(text=SearchText(to="?@x.org")), [5, 4, 3, 2, 1, 0]),
            (Selection(text=SearchText(to="ÜSER")), [6]),
            (Selection(text=SearchText(to="%")), []),
            (Selection(text=SearchText(to="_@x.org")), []),
            (Selection(text=SearchText(to="a@x"), since=NOW + 2), [5, 2]),
            (Selection(text=SearchText(to="a@x", subject="2")), [2]),
            (Selection(text=SearchText(subject="?"), until=NOW + 2), [1, 0]),
            (Selection(text=SearchText(sender="no-reply")), [6, 5, 4, 3, 2, 1, 0]),
            (Selection(text=SearchText(sender="somebody")), []),
            (Selection(text=SearchText(anywhere="a@X")), [5, 2, 0]),
            (Selection(text=SearchText(anywhere="a@x"), state="bounced"), [2]),
        ],
    )
    async def test_texts_and_states_are_found_wherever_they_stand(
        self, store: Store, selection: Selection, found: list[int]
    ) -> None:
        await self._fill(store)
        shown = await store.find(selection, 10.0)
        assert [int(each["subject"]) for each in shown.messages] == found
        assert shown.searched_since is None

    @pytest.mark.parametrize(
        ("text", "waiting"),
        [
            (SearchText(to="a@"), ["5"]),
            (SearchText(to="*@x.org", subject="4"), ["4"]),
            (SearchText(anywhere="a@x"), ["5"]),
            (SearchText(sender="somebody"), []),
        ],
    )
    async def test_what_waits_is_found_by_texts_too(self, store: Store, text: SearchText, waiting: list[str]) -> None:
        await self._fill(store)
        assert [one["subject"] for one in await store.waiting(Selection(text=text))] == waiting

    async def test_messages_are_found_by_the_begin_of_their_id(self, store: Store) -> None:
        put = await self._fill(store)
        assert await store.ids_that_begin(put[3], 10) == [put[3]]
        assert await store.ids_that_begin(put[0][:2], 10) == sorted(put, reverse=True)
        assert await store.ids_that_begin(put[0][:2], 2) == sorted(put, reverse=True)[:2]
        assert await store.ids_that_begin("7Z", 10) == []
        found = await store.find(Selection(text=SearchText(anywhere=put[2].lower())), 10.0)
        assert ids(found.messages) == [put[2]]

    async def test_a_search_by_ids_keeps_to_them(self, store: Store) -> None:
        put = await self._fill(store)
        assert ids(await store.search(Selection(ids=(put[1], put[4], "01UNKNOWN")))) == [put[4], put[1]]
        assert ids(await store.search(Selection(ids=(put[1], put[4]), lane="bulk"))) == [put[4]]
        assert ids(await store.search(Selection(ids=(put[0], put[2]), to="a@x.org", state="bounced"))) == [put[2]]

    async def _fill(self, store: Store) -> list[str]:
        """Seven messages, a second apart, whose subject is their number."""
        rows: list[tuple[str, list[str], State]] = [
            ("otp", ["a@x.org"], "sent"),
            ("otp", ["b@x.org"], "bounced"),
            ("otp", ["b@x.org", "A@x.org"], "bounced"),
            ("otp", ["c@x.org", "c@x.org"], "sent"),
            ("bulk", ["b@x.org"], "deferred"),
            ("otp", ["a@X.org"], "deferred"),
            ("bulk", ["üser@x.org"], "sent"),
        ]
        put = []
        for number, (lane, to, state) in enumerate(rows):
            new = message(*to, at=NOW + number, lane=lane, subject=str(number))
            await store.put(new, claimed=True)
            await store.settle(settled(new.id, state, *range(len(to)), next_at=NOW + 60))
            put.append(new.id)
        return put

    async def test_what_waits_is_shown_earliest_due_first_with_its_next_try(self, store: Store) -> None:
        held = await in_state(store, "held")
        deferred = await in_state(store, "deferred", "a@x.org", "b@x.org")
        await store.settle(Settlement(deferred, (), (attempt(0, 1), attempt(0, 2))))
        queued = await in_state(store, "queued")
        await in_state(store, "sent")
        waiting: Any = await store.waiting(Selection())
        assert ids(waiting) == [queued, deferred, held]
        assert [recipient["next_at"] for recipient in waiting[1]["recipients"]] == ["2027-01-15T08:01:00.000Z"] * 2
        assert [recipient["attempts"] for recipient in waiting[1]["recipients"]] == [2, 0]
        assert waiting[2]["recipients"][0]["next_at"] is None
        assert ids(await store.waiting(Selection(limit=1))) == [queued]
        assert ids(await store.waiting(Selection(state="held"))) == [held]
        assert ids(await store.waiting(Selection(to="B@x.org"))) == [deferred]
        assert ids(await store.waiting(Selection(ids=(held,)))) == [held]
        assert ids(await store.waiting(Selection(lane="bulk"))) == []

    async def test_counts_are_of_open_recipients_by_lane_and_state(self, store: Store) -> None:
        await store.put(message("a@x.org", "b@x.org", at=NOW - 5), claimed=False)
        await store.put(message(at=NOW - 9), claimed=False)
        await store.put(message(lane="bulk"), claimed=True)
        await in_state(store, "sent")
        counts = sorted(await store.counts(), key=lambda row: row.lane)
        assert counts == [LaneCount("bulk", "sending", 1, NOW), LaneCount("otp", "queued", 3, NOW - 9)]

    async def test_a_report_counts_finished_recipients_of_messages_accepted_since(self, store: Store) -> None:
        old = message(at=NOW - 100)
        new = message("a@x.org", "b@x.org", "c@x.org")
        for each in (old, new):
            await store.put(each, claimed=True)
        await store.settle(settled(old.id, "sent", sent_at=NOW))
        await store.settle(settled(new.id, "sent", 0, upstream="ses", sent_at=NOW + 0.25))
        await store.settle(settled(new.id, "expired", 1))
        assert sorted(await store.deliveries(NOW - 50), key=lambda row: row.state) == [
            DeliveryRow("otp", None, "x.org", "expired", None),
            DeliveryRow("otp", "ses", "x.org", "sent", 250.0),
        ]
        assert len(await store.deliveries(0)) == 3

    async def test_a_report_counts_what_the_same_rule_sent_to_a_recipient_again_within_its_life(
        self, store: Store
    ) -> None:
        for new in (
            message("a@x.org", at=NOW - 700),  # more than its life before the next
            message("a@x.org", at=NOW - 60),
            message("A@x.org", "b@x.org", at=NOW - 30),
            message("a@x.org", at=NOW - 20, rule="another"),
            message("b@x.org", at=NOW - 10, lane="bulk"),
        ):
            await store.put(new, claimed=True)
            await store.settle(settled(new.id, "superseded", *range(len(new.providers))))
        counted = [(row.lane, row.resent, row.recipients) for row in await store.deliveries(0)]
        assert sorted(counted) == [("bulk", False, 1), ("otp", False, 4), ("otp", True, 1)]

    async def test_a_report_counts_who_was_sent_to_in_time_where_the_lane_has_an_objective(self, store: Store) -> None:
        in_time, late, bounced, expired = (message(f"{name}@x.org") for name in "abcd")
        for new in (in_time, late, bounced, expired, bulk := message("e@x.org", lane="bulk")):
            await store.put(new, claimed=True)
        await store.settle(settled(in_time.id, "sent", sent_at=NOW + 10))
        await store.settle(settled(late.id, "sent", sent_at=NOW + 10.5))
        await store.settle(settled(bounced.id, "bounced"))
        await store.settle(settled(expired.id, "expired"))
        await store.settle(settled(bulk.id, "sent", sent_at=NOW + 1))
        rows = await store.deliveries(0, {"otp": 10.0})
        assert {(row.lane, row.state, row.total_ms): row.in_time for row in rows} == {
            ("otp", "sent", 10_000.0): True,
            ("otp", "sent", 10_500.0): False,
            ("otp", "bounced", None): None,
            ("otp", "expired", None): False,
            ("bulk", "sent", 1000.0): None,
        }
        assert {row.in_time for row in await store.deliveries(0)} == {None}

    @pytest.mark.parametrize(
        ("timings_ms", "size_bytes", "slow"),
        [
            ({"receive": 10.0}, 900, False),
            ({"receive": 10.1}, 900, True),
            ({"receive": 47.0}, receive.MOST_BYTES, True),
            ({"receive": 47.0}, receive.MOST_BYTES + 1, False),
            ({}, 900, False),
        ],
    )
    async def test_a_message_that_its_app_handed_over_slowly_has_a_hint_and_is_counted(
        self, store: Store, timings_ms: dict[str, float], size_bytes: int, slow: bool
    ) -> None:
        new = message(content=b"x" * size_bytes, timings_ms=timings_ms)
        await store.put(new, claimed=True)
        await store.settle(settled(new.id, "sent")._replace(timings_ms={"total": 3.0}))
        (row,) = await store.deliveries(0)
        assert bool(row.slow_receive) is slow
        for shown in (await store.get(new.id), *(await store.search(EVERYTHING))):
            assert shown is not None
            assert (shown["hint"] is not None) is slow

    # housekeeping

    async def test_pruning_deletes_old_finished_messages_and_nothing_else(self, store: Store) -> None:
        old, old_open, new = message(at=NOW - 100), message(at=NOW - 100), message()
        for each in (old, old_open, new):
            await store.put(each, claimed=True)
        await store.settle(Settlement(old.id, (RecipientUpdate(0, "sent"),), (attempt(),), note="n"))
        await store.settle(settled(new.id))
        assert await store.prune(NOW - 50, limit=10) == 1
        assert await store.get(old.id) is None
        assert ids(await store.search(EVERYTHING)) == [new.id, old_open.id]
        await store.put(old, claimed=False)  # nothing of it was left behind
        shown: Any = await store.get(old.id)
        assert (shown["notes"], shown["recipients"][0]["attempts"]) == ([], [])

    async def test_pruning_keeps_to_its_limit(self, store: Store) -> None:
        for n in range(60):
            new = message(at=NOW - 100 - n)
            await store.put(new, claimed=True)
            await store.settle(settled(new.id))
        assert [await store.prune(NOW, limit=limit) for limit in (2, 40, 100, 5)] == [2, 40, 18, 0]
