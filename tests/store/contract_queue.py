"""What every store must do with what is to be sent: put, claim, settle, recover, supersede, act."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from relay.mail.envelope import DeliverBy, Envelope, Recipient
from relay.store.base import Store, StoreError
from relay.store.model import (
    BOOKED,
    MOST_DEATHS,
    OPEN_STATES,
    Action,
    Booking,
    LaneCount,
    OpenRecipient,
    Queued,
    RecipientUpdate,
    Repeat,
    Selection,
    Settlement,
    State,
)
from tests.store.build import CONTENT, NOW, attempt, claim, ids_of, in_state, message, settled, states

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class QueueContract:
    # put and claim

    async def test_a_queued_message_is_claimed_as_it_was_put(self, store: Store) -> None:
        envelope = Envelope(
            "",
            (
                Recipient("a@example.net", frozenset({"FAILURE", "DELAY"}), "rfc822;a+2Bb@example.net"),
                Recipient("ü@example.org", frozenset({"NEVER"})),
            ),
            body="8BITMIME",
            smtputf8=True,
            ret="HDRS",
            envid="QQ+2B314159",
            priority=-3,
            deliver_by=DeliverBy(-60, "N", trace=True),
        )
        content = bytes(range(256)) * 3
        new = message(
            envelope=envelope,
            content=content,
            rule=None,
            upstreams=("ses", "post mark"),
            supersede_key="auth a@b",
            trace=TRACE,
        )
        await store.put(new, claimed=False)
        assert await claim(store) == [
            Queued(
                id=new.id,
                lane="otp",
                rule=None,
                envelope=envelope,
                content=content,
                accepted_at=NOW,
                expires_at=NOW + 600,
                due=(OpenRecipient(0, envelope.recipients[0]), OpenRecipient(1, envelope.recipients[1])),
                upstreams=("ses", "post mark"),
                supersede_key="auth a@b",
                trace=TRACE,
            )
        ]
        assert await claim(store) == []

    @pytest.mark.parametrize("size", [0, 1, 499_999, 500_000, 500_001, 1_700_000])
    async def test_a_content_of_any_size_comes_back_byte_for_byte(self, store: Store, size: int) -> None:
        content = (bytes(range(251)) * (size // 251 + 1))[:size]
        new, other = message(content=content), message()
        await asyncio.gather(store.put(new, claimed=False), store.put(other, claimed=False))
        assert {queued.id: queued.content for queued in await claim(store)} == {new.id: content, other.id: CONTENT}
        assert store.size() == (2, size + len(CONTENT))

    @pytest.mark.parametrize("sizes", [[1], [400_000, 100_000], [3, 499_998], [1_200_000, 7, 16_384, 16_384]])
    async def test_a_content_in_pieces_is_stored_as_if_it_were_whole(self, store: Store, sizes: list[int]) -> None:
        pieces = [bytes([number]) * size for number, size in enumerate(sizes)]
        new = message(content=b"")
        await store.put_large(new, iter(pieces), most_bytes=2 * sum(sizes))
        other = message()
        await store.put(other, claimed=False)
        assert await states(store, new.id) == ["queued"]
        claimed = {queued.id: queued.content for queued in await claim(store)}
        assert claimed == {new.id: b"".join(pieces), other.id: CONTENT}
        assert store.size() == (2, sum(sizes) + len(CONTENT))
        await store.settle(settled(new.id))
        assert store.size() == (1, len(CONTENT))

    async def test_pieces_that_fail_midway_leave_no_message(self, store: Store) -> None:
        def failing() -> Iterator[bytes]:
            yield bytes(600_000)
            raise OSError("gone")

        new = message(content=b"")
        with pytest.raises(OSError, match="gone"):
            await store.put_large(new, failing(), most_bytes=1_000_000)
        assert (await store.get(new.id), store.size()) == (None, (0, 0))
        await store.put(new._replace(content=b"again"), claimed=False)
        assert [queued.content for queued in await claim(store)] == [b"again"]

    async def test_a_message_put_as_claimed_is_nobody_elses(self, store: Store) -> None:
        new = message()
        await store.put(new, claimed=True)
        assert await states(store, new.id) == ["sending"]
        assert await claim(store) == []
        assert await store.next_due("otp") is None

    async def test_an_id_is_put_once_and_the_second_changes_nothing(self, store: Store) -> None:
        new = message()
        await store.put(new, claimed=False)
        with pytest.raises(StoreError):
            await store.put(message(id=new.id, content=b"other"), claimed=False)
        assert [queued.content for queued in await claim(store)] == [CONTENT]
        assert store.size() == (1, len(CONTENT))

    async def test_claims_come_in_the_order_they_are_due_and_from_their_lane(self, store: Store) -> None:
        late, early, future = message(at=NOW - 1), message(at=NOW - 5), message(at=NOW + 5)
        for new in (late, early, future, message(lane="bulk", at=NOW - 9)):
            await store.put(new, claimed=False)
        assert await store.next_due("otp") == NOW - 5
        assert ids_of(await claim(store)) == [early.id, late.id]
        assert await store.next_due("otp") == NOW + 5
        assert await store.next_due("nothing") is None

    async def test_a_claim_takes_no_more_messages_than_asked(self, store: Store) -> None:
        for _ in range(5):
            await store.put(message(), claimed=False)
        assert [len(await claim(store, messages=2)) for _ in range(4)] == [2, 2, 1, 0]

    async def test_a_claim_takes_one_message_however_large_and_then_what_fits(self, store: Store) -> None:
        for at, size in enumerate((50, 50, 51, 300, 1)):
            await store.put(message(at=NOW + at, content=b"x" * size), claimed=False)
        taken = [await store.claim("otp", NOW + 9, messages=9, size_bytes=100) for _ in range(4)]
        assert [[len(queued.content) for queued in each] for each in taken] == [[50, 50], [51], [300], [1]]

    async def test_concurrent_claims_share_out_what_is_due(self, store: Store) -> None:
        put = [message() for _ in range(30)]
        await asyncio.gather(*(store.put(new, claimed=False) for new in put))
        taken = await asyncio.gather(*(claim(store, messages=4) for _ in range(10)))
        claimed = [queued.id for each in taken for queued in each]
        assert sorted(claimed) == sorted(new.id for new in put)

    async def test_only_the_recipients_that_are_due_are_claimed(self, store: Store) -> None:
        new = message("a@x.org", "b@x.org", "c@x.org")
        await store.put(new, claimed=True)
        await store.settle(
            Settlement(
                new.id,
                (
                    RecipientUpdate(0, "sent"),
                    RecipientUpdate(1, "deferred", next_at=NOW + 10, step=1, delay_notified=True),
                    RecipientUpdate(2, "deferred", next_at=NOW + 20, step=1),
                ),
                (attempt(1, 1), attempt(1, 2)),
            )
        )
        assert await claim(store, NOW + 9) == []
        [queued] = await claim(store, NOW + 10)
        assert queued.envelope == new.envelope
        assert queued.due == (OpenRecipient(1, Recipient("b@x.org"), step=1, attempts=2, delay_notified=True),)
        assert await states(store, new.id) == ["sent", "sending", "deferred"]
        assert await store.next_due("otp") == NOW + 20

    async def test_what_is_to_be_repeated_at_an_upstream_is_kept_until_it_is_settled_otherwise(
        self, store: Store
    ) -> None:
        new = message("a@x.org")
        await store.put(new, claimed=True)
        repeat = Repeat("resend", NOW + 30, "key-1")
        await store.settle(Settlement(new.id, (RecipientUpdate(0, "deferred", next_at=NOW + 1, repeat=repeat),)))
        [queued] = await claim(store, NOW + 1)
        assert queued.due[0].repeat == repeat
        await store.settle(Settlement(new.id, (RecipientUpdate(0, "deferred", next_at=NOW + 2),)))
        [queued] = await claim(store, NOW + 2)
        assert queued.due[0].repeat is None

    async def test_what_an_upstream_took_without_our_signatures_isnt_shown_as_signed(self, store: Store) -> None:
        new = message("a@x.org")._replace(signed=("s1",))
        await store.put(new, claimed=True)
        await store.settle(Settlement(new.id, (RecipientUpdate(0, "sent"),), (attempt(0, 1),), went_unsigned=True))
        shown = await store.get(new.id)
        assert shown is not None
        assert shown["signed"] == []

    async def test_a_recipient_whose_process_ended_while_it_was_sending_says_so_until_it_is_settled(
        self, store: Store
    ) -> None:
        new = message("a@x.org")
        await store.put(new, claimed=True)
        await store.recover(NOW, [])
        [queued] = await claim(store, NOW + 100)
        assert queued.due[0].crashed
        await store.settle(Settlement(new.id, (RecipientUpdate(0, "deferred", next_at=NOW + 200),)))
        [queued] = await claim(store, NOW + 200)
        assert not queued.due[0].crashed

    async def test_what_is_unclaimed_is_due_at_once(self, store: Store) -> None:
        new = message("a@x.org", "b@x.org")
        await store.put(new, claimed=True)
        await store.settle(settled(new.id))
        await store.unclaim(new.id)
        [queued] = await claim(store)
        assert [open_one.position for open_one in queued.due] == [1]
        await store.unclaim("01UNKNOWN")

    # expiry

    async def test_what_expired_ends_in_the_store_where_no_dsn_is_due(self, store: Store) -> None:
        never, asked = Recipient("a@x.org", frozenset({"NEVER"})), Recipient("b@x.org", frozenset({"FAILURE"}))
        delay = Recipient("c@x.org", frozenset({"DELAY"}))
        bounce = message(envelope=Envelope("", (Recipient("a@x.org"), asked)))
        mixed = message(envelope=Envelope("app@example.com", (never, asked, delay, Recipient("d@x.org"))))
        quiet, alive = message(envelope=Envelope("a@b.org", (never,))), message(envelope=Envelope("", (never,)))
        for each in (bounce, mixed, quiet, alive._replace(expires_at=NOW + 900)):
            await store.put(each, claimed=False)
        other = message(lane="bulk", envelope=Envelope("", (never,)))
        await store.put(other, claimed=False)
        assert await store.end_expired("otp", NOW + 599, "451 expired") == []
        ended = await store.end_expired("otp", NOW + 600, "451 expired")
        assert sorted(ended) == sorted([(bounce.id, 2), (mixed.id, 2), (quiet.id, 1)])
        assert await states(store, bounce.id) == ["expired", "expired"]
        assert await states(store, mixed.id) == ["expired", "queued", "expired", "queued"]
        assert await states(store, quiet.id) == ["expired"]
        shown: Any = await store.get(quiet.id)
        assert shown["recipients"][0]["reply"] == "451 expired"
        assert store.size() == (3, 3 * len(CONTENT))
        assert {queued.id: len(queued.due) for queued in await claim(store, NOW + 600)} == {mixed.id: 2, alive.id: 1}
        assert await store.end_expired("otp", NOW + 999, "451 expired") == []  # what is being sent isn't touched

    async def test_a_backlog_that_expired_ends_whole(self, store: Store) -> None:
        large = message(envelope=Envelope("", (Recipient("a@x.org"),)), content=b"x" * 1_200_000)
        put = [large, *(message(envelope=Envelope("", (Recipient("a@x.org"),))) for _ in range(450))]
        await asyncio.gather(*(store.put(new, claimed=False) for new in put))
        assert {one.message_id for one in await store.end_expired("otp", NOW + 600, "451")} == {new.id for new in put}
        assert store.size() == (0, 0)
        assert await store.next_due("otp") is None

    # settle

    async def test_the_body_goes_with_the_last_open_recipient_and_the_log_row_stays(self, store: Store) -> None:
        new = message("a@x.org", "b@x.org")
        await store.put(new, claimed=True)
        await store.settle(settled(new.id, "sent", 0, sent_at=NOW))
        assert store.size() == (1, len(CONTENT))
        await store.settle(settled(new.id, "bounced", 1, reply="550 5.1.1 no such user"))
        assert store.size() == (0, 0)
        assert await states(store, new.id) == ["sent", "bounced"]
        assert await store.counts() == []

    @pytest.mark.parametrize("state", ["sent", "bounced", "expired", "superseded", "suppressed"])
    async def test_a_finished_recipient_stays_what_it_is_but_its_attempt_is_added(
        self, store: Store, state: State
    ) -> None:
        message_id = await in_state(store, state)
        late = settled(message_id, "deferred", next_at=NOW)
        await store.settle(Settlement(message_id, late.updates, (attempt(n=7),)))
        assert await states(store, message_id) == [state]
        assert await claim(store, NOW + 99) == []
        shown: Any = await store.get(message_id)
        assert [each["n"] for each in shown["recipients"][0]["attempts"]] == [7]

    async def test_what_is_deferred_without_a_time_is_due_at_once(self, store: Store) -> None:
        new = message()
        await store.put(new, claimed=True)
        await store.settle(settled(new.id, "deferred"))
        assert len(await claim(store)) == 1

    async def test_an_attempt_settled_twice_is_one_and_hedged_ones_of_one_number_are_two(self, store: Store) -> None:
        new = message()
        await store.put(new, claimed=True)
        hedged = (attempt(upstream="postmark"), attempt(upstream="ses", started_at=NOW + 1.2, outcome="abandoned"))
        for _ in range(2):
            await store.settle(Settlement(new.id, attempts=hedged))
        shown: Any = await store.get(new.id)
        assert [each["upstream"] for each in shown["recipients"][0]["attempts"]] == ["postmark", "ses"]

    @pytest.mark.parametrize("order", [(1, 2), (2, 1)])
    async def test_the_next_attempt_is_numbered_after_the_highest_whichever_of_hedged_ones_ended_first(
        self, store: Store, order: tuple[int, int]
    ) -> None:
        new = message()
        await store.put(new, claimed=True)
        update = RecipientUpdate(0, "deferred", next_at=NOW)
        await store.settle(Settlement(new.id, (update,), tuple(attempt(n=n) for n in order)))
        (queued,) = await claim(store)
        assert queued.due[0].attempts == 2

    async def test_bounces_are_queued_with_what_caused_them(self, store: Store) -> None:
        new = message()
        await store.put(new, claimed=True)
        dsn = message("no-reply@auth.example.com", lane="bulk", content=b"sorry", client="local", rule=None)
        await store.settle(Settlement(new.id, (RecipientUpdate(0, "bounced"),), bounces=(dsn,)))
        assert [queued.content for queued in await claim(store, lane="bulk")] == [b"sorry"]
        assert store.size() == (1, 5)

    async def test_a_settlement_applies_whole_or_not_at_all(self, store: Store) -> None:
        new, existing = message(), message(lane="bulk")
        await store.put(new, claimed=True)
        await store.put(existing, claimed=True)
        with pytest.raises(StoreError):
            await store.settle(
                Settlement(new.id, (RecipientUpdate(0, "bounced"),), (attempt(),), note="x", bounces=(existing,))
            )
        shown: Any = await store.get(new.id)
        assert (shown["recipients"][0]["state"], shown["recipients"][0]["attempts"]) == ("sending", [])
        assert shown["notes"] == []
        assert store.size() == (2, 2 * len(CONTENT))

    async def test_settling_what_is_not_there_is_an_error(self, store: Store) -> None:
        with pytest.raises(StoreError, match="no message 01UNKNOWN"):
            await store.settle(settled("01UNKNOWN"))

    async def test_five_hundred_recipients_are_one_message(self, store: Store) -> None:
        new = message(*(f"user{n}@example.net" for n in range(500)))
        await store.put(new, claimed=False)
        [queued] = await claim(store)
        assert [each.position for each in queued.due] == list(range(500))
        await store.settle(settled(new.id, "sent", *range(499)))
        assert await store.counts() == [LaneCount("otp", "sending", 1, NOW)]
        await store.settle(settled(new.id, "sent", 499))
        assert store.size() == (0, 0)

    # after a crash

    async def test_recovery_queues_what_was_being_sent_and_leaves_ambiguous_what_may_have_left(
        self, store: Store
    ) -> None:
        new = message("a@x.org", "b@x.org", "c@x.org", "d@x.org")
        await store.put(new, claimed=True)
        await store.mark_final(new.id, [1, 2])
        await store.settle(settled(new.id, "sent", 2))
        held = await in_state(store, "held")
        await store.settle(settled(new.id, "deferred", 3, next_at=NOW + 60))
        assert sorted(await store.recover(NOW + 5)) == [
            (new.id, "otp", "ambiguous", 1),
            (new.id, "otp", "queued", 1),
        ]
        assert await states(store, new.id) == ["queued", "ambiguous", "sent", "deferred"]
        assert await states(store, held) == ["held"]
        assert await store.next_due("otp") == NOW + BOOKED.ladder_s[0]
        assert await store.recover(NOW + 6) == []

    async def test_what_was_in_hand_at_the_end_has_a_note_that_says_what_is_known(self, store: Store) -> None:
        perhaps, marked, unmarked = message(), message(lane="bulk"), message(lane="bulk")
        for each in (perhaps, marked, unmarked):
            await store.put(each, claimed=True)
        await store.mark_final(marked.id, [0])
        recovered = await store.recover(NOW + 5, marking={"bulk"})
        assert {one.message_id: one.state for one in recovered} == {
            perhaps.id: "queued",
            marked.id: "ambiguous",
            unmarked.id: "queued",
        }
        in_hand = "the relay ended while it had this message in hand"
        for message_id, text in (
            (perhaps.id, f"{in_hand}: an upstream may have it already"),
            (marked.id, "the relay ended before the upstream answered: it may have this message"),
            (unmarked.id, in_hand),
        ):
            view: Any = await store.get(message_id)
            assert [note["text"] for note in view["notes"]] == [text]

    async def test_a_claim_counts_the_attempt_and_books_the_next_at_the_ladders_step(self, store: Store) -> None:
        """So a crash is a late, counted retry."""
        ladder = Booking((2.0, 7.0))
        new = message()
        await store.put(new, claimed=False)
        (first,) = await store.claim("otp", NOW, messages=9, size_bytes=1, booking=ladder)
        assert first.due[0].attempts == 0
        await store.settle(settled(new.id, "deferred", next_at=NOW + 1, step=1))
        await store.claim("otp", NOW + 1, messages=9, size_bytes=1, booking=ladder)
        await store.recover(NOW + 2)
        assert await store.next_due("otp") == NOW + 1 + 7
        (again,) = await store.claim("otp", NOW + 8, messages=9, size_bytes=1, booking=ladder)
        assert again.due[0].attempts == 1
        await store.unclaim(new.id)
        (given_back,) = await store.claim("otp", NOW + 9, messages=9, size_bytes=1, booking=ladder)
        assert given_back.due[0].attempts == 1
        await store.settle(settled(new.id, "deferred", next_at=NOW + 10))  # without an attempt, so it doesn't count
        (put_off,) = await store.claim("otp", NOW + 10, messages=9, size_bytes=1, booking=ladder)
        assert put_off.due[0].attempts == 1

    async def test_what_kills_its_process_comes_alone_and_last_and_is_held_in_the_end(self, store: Store) -> None:
        poison, *others = [message(at=NOW + n) for n in range(4)]
        for each in (poison, *others):
            await store.put(each, claimed=False)
        now, claims, lost = NOW + 10, [], 0
        while await store.next_due("otp") is not None:
            now += 10
            claimed = [each.id for each in await claim(store, now)]
            claims.append(claimed)
            if poison.id in claimed:
                await store.recover(now)
                lost += 1
            else:
                for message_id in claimed:
                    await store.settle(settled(message_id))
        assert lost == MOST_DEATHS
        assert await states(store, poison.id) == ["held"]
        view: Any = await store.get(poison.id)
        *earlier, last = [note["text"] for note in view["notes"]]
        assert earlier == ["the relay ended while it had this message in hand: an upstream may have it already"] * 4
        assert last == "held: the relay ended 5 times while it had this message in hand"
        # Twice they die together; then each of them comes alone, and only one kills.
        assert [len(each) for each in claims[:2]] == [4, 4]
        assert {len(each) for each in claims[2:]} == {1}
        for each in others:
            assert await states(store, each.id) == ["sent"]
        assert await store.act("release", Selection(ids=(poison.id,)), now) == [poison.id]
        assert [each.id for each in await claim(store, now)] == [poison.id]

    async def test_suspects_come_one_at_a_time_and_behind_all_that_is_due(self, store: Store) -> None:
        suspects = [message(at=NOW + n) for n in range(3)]
        for each in suspects:
            await store.put(each, claimed=False)
        for n in range(2):
            await claim(store, NOW + 10 * (n + 1))
            await store.recover(NOW + 10 * (n + 1))
        fresh = message(at=NOW + 50)
        await store.put(fresh, claimed=False)
        assert [each.id for each in await claim(store, NOW + 60)] == [fresh.id]
        (first,) = await claim(store, NOW + 60)
        assert first.id == suspects[0].id
        assert first.suspect
        assert await claim(store, NOW + 60) == []
        assert await store.next_due("otp") is None
        await store.settle(settled(first.id, "deferred", next_at=NOW + 70))
        assert [each.id for each in await claim(store, NOW + 60)] == [suspects[1].id]
        # What was settled killed no process: it waits with the others again.
        assert [each.suspect for each in await claim(store, NOW + 80)] == [False]

    async def test_what_a_wrong_clock_put_into_the_future_is_due_now(self, store: Store) -> None:
        ahead = message(at=NOW + 3600)
        await store.put(ahead, claimed=True)
        before = await in_state(store, "deferred")  # due at NOW + 60
        await store.recover(NOW)
        assert await store.next_due("otp") == NOW
        claimed = {each.id: each for each in await claim(store, NOW)}
        assert set(claimed) == {ahead.id, before}
        assert (claimed[ahead.id].accepted_at, claimed[ahead.id].expires_at) == (NOW, NOW + 600)

    async def test_only_what_an_operator_urged_is_hastened_where_that_is_asked(self, store: Store) -> None:
        urged, other = await in_state(store, "deferred"), await in_state(store, "deferred")
        await store.act("retry", Selection(ids=(urged,)), NOW)
        await claim(store)
        await store.settle(settled(urged, "deferred", next_at=NOW + 90))
        assert await store.retry_deferred("otp", NOW + 1, only_urged=True) == 1
        assert [each.id for each in await claim(store, NOW + 1)] == [urged]
        assert await store.retry_deferred("otp", NOW + 1) == 1
        assert [each.id for each in await claim(store, NOW + 1)] == [other]

    async def test_a_retry_leaves_what_is_ambiguous_unless_it_is_named(self, store: Store) -> None:
        doubtful = await in_state(store, "ambiguous")
        assert await store.act("retry", Selection(), NOW) == []
        assert await store.act("retry", Selection(lane="otp"), NOW) == []
        assert await store.act("retry", Selection(ambiguous=True), NOW) == [doubtful]
        assert await states(store, doubtful) == ["queued"]

    async def test_a_retry_leaves_what_is_ambiguous_and_has_expired(self, store: Store) -> None:
        doubtful = await in_state(store, "ambiguous")
        expiry = NOW + 600
        assert await store.act("retry", Selection(ids=(doubtful,)), expiry) == []
        assert await states(store, doubtful) == ["ambiguous"]
        assert await store.act("retry", Selection(ids=(doubtful,)), expiry - 1) == [doubtful]

    @pytest.mark.parametrize("then", ["deferred", "unclaimed"])
    async def test_a_mark_lasts_only_until_the_recipient_is_settled_or_given_back(
        self, store: Store, then: str
    ) -> None:
        new = message()
        await store.put(new, claimed=True)
        await store.mark_final(new.id, [0])
        if then == "deferred":
            await store.settle(settled(new.id, "deferred", next_at=NOW))
        else:
            await store.unclaim(new.id)
        await claim(store)
        await store.recover(NOW)
        assert await states(store, new.id) == ["queued"]

    # superseding

    async def test_a_newer_message_ends_the_older_ones_with_its_key_that_have_not_left(self, store: Store) -> None:
        queued, partly, sending, other = (
            message("a@x.org", supersede_key="k"),
            message("a@x.org", "b@x.org", supersede_key="k"),
            message("a@x.org", supersede_key="k"),
            message("a@x.org", supersede_key="other"),
        )
        for new in (queued, partly, sending, other):
            await store.put(new, claimed=new is sending)
        await store.settle(settled(partly.id, "sent", 1))
        newer = message("a@x.org", supersede_key="k")
        await store.put(newer, claimed=True)
        newest = message("a@x.org", supersede_key="k")
        await store.put(newest, claimed=False)
        assert sorted(await store.supersede("k", newer.id, NOW)) == sorted([queued.id, partly.id])
        assert await states(store, queued.id) == ["superseded"]
        assert await states(store, partly.id) == ["superseded", "sent"]
        assert await states(store, sending.id) == ["sending"]
        assert ids_of(await claim(store)) == [other.id, newest.id]
        assert await store.supersede("k", newer.id, NOW) == []
        assert store.size() == (4, 4 * len(CONTENT))

    # the operator

    @pytest.mark.parametrize(
        ("action", "before", "after"),
        [
            ("retry", "queued", "queued"),
            ("retry", "deferred", "queued"),
            ("retry", "ambiguous", "queued"),
            ("retry", "held", None),
            ("retry", "sending", None),
            ("hold", "queued", "held"),
            ("hold", "deferred", "held"),
            ("hold", "ambiguous", None),
            ("hold", "sending", None),
            ("release", "held", "queued"),
            ("release", "queued", None),
            ("release", "deferred", None),
            ("release", "sending", None),
            ("drop", "queued", "bounced"),
            ("drop", "deferred", "bounced"),
            ("drop", "held", "bounced"),
            ("drop", "ambiguous", "bounced"),
            ("drop", "sending", None),
            ("retry", "sent", None),
            ("drop", "sent", None),
            ("hold", "bounced", None),
            ("release", "expired", None),
        ],
    )
    async def test_an_action_changes_the_states_it_is_for_and_no_others(
        self, store: Store, action: Action, before: State, after: State | None
    ) -> None:
        message_id = await in_state(store, before)
        changed = await store.act(action, Selection(ids=(message_id,)), NOW)
        assert changed == ([] if after is None else [message_id])
        assert await states(store, message_id) == [after or before]
        open_messages, _ = store.size()
        assert open_messages == ((after or before) in OPEN_STATES)

    async def test_retry_is_due_now_with_its_ladder_from_the_start(self, store: Store) -> None:
        await in_state(store, "deferred")
        await store.act("retry", Selection(lane="otp"), NOW + 1)
        [queued] = await claim(store, NOW + 1)
        assert queued.due[0].step == 0

    async def test_release_goes_on_where_the_ladder_was(self, store: Store) -> None:
        message_id = await in_state(store, "deferred")
        await store.act("hold", Selection(ids=(message_id,)), NOW)
        assert await claim(store, NOW + 99) == []
        await store.act("release", Selection(ids=(message_id,)), NOW + 1)
        [queued] = await claim(store, NOW + 1)
        assert queued.due[0].step == 2

    async def test_a_drop_says_who_did_it(self, store: Store) -> None:
        message_id = await in_state(store, "queued")
        await store.act("drop", Selection(), NOW)
        shown: Any = await store.get(message_id)
        assert shown["recipients"][0]["reply"] == "dropped by the operator"
        assert shown["notes"] == [{"at": "2027-01-15T08:00:00.000Z", "text": "drop by the operator"}]

    async def test_an_action_without_a_limit_is_about_all_that_match(self, store: Store) -> None:
        put = [message() for _ in range(130)]
        await asyncio.gather(*(store.put(new, claimed=False) for new in put))
        changed = await store.act("hold", Selection(lane="otp"), NOW)
        assert sorted(changed) == sorted(new.id for new in put)

    async def test_an_action_touches_only_the_recipients_that_address_and_state_name(self, store: Store) -> None:
        new = message("a@x.org", "b@x.org", "C@x.org")
        await store.put(new, claimed=True)
        await store.settle(settled(new.id, "deferred", 0, next_at=NOW + 60))
        await store.settle(settled(new.id, "ambiguous", 1))
        await store.settle(settled(new.id, "deferred", 2, next_at=NOW + 60))
        await store.act("retry", Selection(state="ambiguous"), NOW)
        assert await states(store, new.id) == ["deferred", "queued", "deferred"]
        await store.act("hold", Selection(to="c@X.org"), NOW)
        assert await states(store, new.id) == ["deferred", "queued", "held"]
        assert await store.act("hold", Selection(lane="bulk"), NOW) == []
        assert await store.act("hold", Selection(to="a@x.org", state="queued"), NOW) == []

    # when upstreams and lanes come and go

    async def test_an_upstream_that_is_back_makes_what_its_lane_deferred_due_now(self, store: Store) -> None:
        deferred = [await in_state(store, "deferred") for _ in range(3)]
        other = message(lane="bulk")
        await store.put(other, claimed=True)
        await store.settle(settled(other.id, "deferred", next_at=NOW + 60))
        held = await in_state(store, "held")
        assert await store.retry_deferred("otp", NOW + 1) == 3
        assert await store.retry_deferred("otp", NOW + 1) == 0
        claimed = await claim(store, NOW + 1)
        assert sorted(ids_of(claimed)) == sorted(deferred)
        assert {queued.due[0].step for queued in claimed} == {2}
        assert await states(store, held) == ["held"]
        assert await claim(store, NOW + 59, lane="bulk") == []

    async def test_hastening_and_adopting_are_about_all_however_many(self, store: Store) -> None:
        new = message(*(f"user{n}@example.net" for n in range(450)), lane="gone")
        await store.put(new, claimed=True)
        await store.settle(settled(new.id, "deferred", *range(450), next_at=NOW + 60))
        assert await store.retry_deferred("gone", NOW) == 450
        assert await store.adopt(["otp", "bulk"], "bulk") == 450
        assert len((await claim(store, lane="bulk"))[0].due) == 450

    async def test_mail_of_a_lane_that_is_no_more_goes_by_the_default_lane(self, store: Store) -> None:
        partly, finished, kept = message("a@x.org", "b@x.org", lane="gone"), message(lane="gone"), message()
        for new in (partly, finished, kept):
            await store.put(new, claimed=True)
        await store.settle(settled(partly.id, "sent", 1))
        await store.settle(settled(finished.id))
        await store.unclaim(partly.id)
        await store.unclaim(kept.id)
        assert await store.adopt(["otp", "bulk"], "bulk") == 1
        assert await store.adopt(["otp", "bulk"], "bulk") == 0
        [queued] = await claim(store, lane="bulk")
        assert (queued.id, queued.lane, len(queued.due)) == (partly.id, "bulk", 1)
        assert ids_of(await claim(store)) == [kept.id]
        shown: Any = await store.get(finished.id)
        assert shown["lane"] == "gone"
