"""Which recipient an event is about: by the relay's id, the ESP's, the Message-ID, or the address and the time."""

from __future__ import annotations

import json
from pathlib import Path

from relay.feedback.settings import WebhookSettings
from relay.store.model import Attempt, RecipientUpdate, Settlement
from tests.feedback.rooms import queued_as, relay_id, room
from tests.store.build import NOW

OTHER = "00000000-0000-0000-0000-00000000000f"


async def test_the_relays_id_decides_wherever_the_message_is(tmp_path: Path) -> None:
    async with room(tmp_path, stores=2) as here:
        first = await here.sent("user@example.net", "ann@example.org", reply=queued_as("a"))
        await here.sent("ann@example.org", at=NOW + 2)
        bulk = await here.sent("ann@example.org", store=1)
        early = await here.sent("ann@example.org", reply=None)
        for number, message_id in enumerate((first, bulk, early)):
            body: dict[str, object] = {
                "Metadata": relay_id(message_id),
                "Recipient": "Ann@Example.ORG",
                "MessageID": f"x{number}",
            }
            assert (await here.post(**body)).status == 200
        assert here.rows() == [(first, 1, "delivered"), (bulk, 0, "delivered"), (early, 0, "delivered")]


async def test_the_esps_id_finds_one_of_several_messages_and_never_another_one(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        first = await here.sent("user@example.net", reply=queued_as("a"))
        await here.sent("user@example.net", reply=queued_as("b"), at=NOW + 1)
        assert (await here.post()).status == 200
        assert (await here.post(MessageID=OTHER)).status == 200
        assert here.rows() == [(first, 0, "delivered")]


async def test_the_message_id_finds_it_where_the_esp_has_no_other_id(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        here.webhooks.upstreams = {"brevo": WebhookSettings("brevo", ("hook:s3cret",))}
        first = await here.sent("user@example.net", upstream="brevo", message_id="<first@x>")
        await here.sent("user@example.net", upstream="brevo", message_id="<second@x>", at=NOW + 1)
        body = {"event": "delivered", "email": "user@example.net", "ts_event": NOW + 3}
        for message_id in ("<first@x>", "<third@x>"):
            assert (await here.take(json.dumps({**body, "message-id": message_id}).encode(), "brevo")).status == 200
        assert here.rows() == [(first, 0, "delivered")]


async def test_by_address_and_time_it_is_the_newest_that_this_upstream_sent_before(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.sent("user@example.net", at=NOW - 10)
        right = await here.sent("USER@example.net")
        await here.sent("user@example.net", at=NOW + 1, upstream="ses")
        await here.sent("user@example.net", at=NOW + 2, reply=None)
        here.now = NOW + 1000
        await here.sent("user@example.net", at=NOW + 900)  # after the event
        await here.sent("user@example.net", at=NOW - 6 * 86400)
        assert (await here.post(MessageID="x")).status == 200
        assert here.rows() == [(right, 0, "delivered")]


async def test_what_matches_nothing_is_counted_once_and_leaves_no_row(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        sent = await here.sent("user@example.net", reply=queued_as("a"))
        unknown: list[dict[str, object]] = [
            {"Metadata": relay_id("01UNKNOWN0000000000000000X")},
            {"Metadata": relay_id(sent), "Recipient": "eve@example.net"},
            {"Recipient": "eve@example.net"},
            {"MessageID": OTHER},
            {"RecordType": "Unheard"},
            {"Recipient": None},
        ]
        for fields in unknown:
            assert (await here.post(**fields)).status == 200
        assert here.tables() == {}
        assert here.counts.events == {("postmark", "other"): len(unknown)}


async def test_an_upstream_is_believed_about_mail_only_that_it_can_have_had(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        here.webhooks.upstreams = {**here.webhooks.upstreams, "brevo": WebhookSettings("brevo", ("hook:s3cret",))}
        elsewhere = await here.sent("user@example.net", upstream="ses", message_id="<else@x>")
        hedged = await here.sent("user@example.net", reply=None, message_id="<hedged@x>")
        tried = [Attempt(0, n, name, NOW, "warm", "abandoned", "", {}) for n, name in enumerate(("postmark", "brevo"))]
        ended = RecipientUpdate(0, "sent", "ses", "250 ok", sent_at=NOW + 1)
        await here.stores[0].settle(Settlement(hedged, (ended,), tuple(tried)))
        under_way = await here.sent("user@example.net", reply=None, message_id="<open@x>")
        for message_id in (elsewhere, hedged, under_way):
            assert (await here.post(Metadata=relay_id(message_id))).status == 200
        body = {"event": "delivered", "email": "user@example.net", "ts_event": NOW + 3}
        for header_id in ("<else@x>", "<hedged@x>", "<open@x>"):
            assert (await here.take(json.dumps({**body, "message-id": header_id}).encode(), "brevo")).status == 200
        assert [row[0] for row in here.rows()] == [hedged, under_way] * 2
        assert [here.counts.events[name, "other"] for name in ("postmark", "brevo")] == [1, 1]


async def test_a_hashed_address_is_found_and_stays_hidden(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.stores[0].hash_addresses(wanted=True)
        here.webhooks.hashes_addresses = True
        by_id = await here.sent("gwendolyn@example.net")
        by_time = await here.sent("gwendolyn@example.net", at=NOW + 1)
        said = "smtp;550 5.1.1 <gwendolyn@example.net>: gwendolyn is no user, ask bob@example.org"
        bounce = {"RecordType": "Bounce", "Type": "HardBounce", "ID": 1, "Email": "Gwendolyn@example.net"}
        assert (await here.post(**bounce, Details=said, Description=said, Metadata=relay_id(by_id))).status == 200
        assert (await here.post(**{**bounce, "ID": 2}, Details=said, MessageID="x")).status == 200
        assert [one[:2] for one in here.rows()] == [(by_id, 0), (by_time, 0)]
        kept = str(here.rows("event", "*")) + str(here.rows("effect", "reason"))
        assert "550 5.1.1" in kept
        assert not [one for one in ("gwendolyn", "Gwendolyn", "bob@") if one in kept]


async def test_an_event_far_from_its_messages_life_gets_the_time_at_which_it_came(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        sent = await here.sent("user@example.net")
        times = {"2027-01-15T08:00:03Z": NOW + 3, "2027-01-01T00:00:00Z": here.now, "2029-01-01T00:00:00Z": here.now}
        for number, at in enumerate(times):
            body = {"Metadata": relay_id(sent), "DeliveredAt": at, "MessageID": str(number)}
            assert (await here.post(**body)).status == 200
        assert [at for (at,) in here.rows("event", "at")] == list(times.values())


async def test_a_wrong_clock_at_the_esp_does_not_hide_a_message_that_its_id_names(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        sent = await here.sent("user@example.net", reply=queued_as("a"))
        for at in ("1970-01-01T00:00:01Z", "2027-01-15T07:30:00Z"):
            assert (await here.post(DeliveredAt=at)).status == 200
        assert here.rows() == [(sent, 0, "delivered")] * 2


async def test_the_plan_of_each_lookup_uses_an_index(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        await here.sent("user@example.net")
        asked: list[str] = []
        plans: list[str] = []

        def explain(connection: object) -> None:
            for statement in asked:
                found = connection.execute(f"EXPLAIN QUERY PLAN {statement}")  # type: ignore[attr-defined]
                plans.extend(str(row[3]) for row in found)

        here.files.readers()[0].ask(lambda connection: connection.set_trace_callback(asked.append))
        assert (await here.post(MessageID="x")).status == 200
        assert (await here.post(Metadata=relay_id("unknown"))).status == 200
        here.files.readers()[0].ask(lambda connection: connection.set_trace_callback(None))
        asked[:] = [one for one in asked if one.startswith("SELECT")]
        here.files.readers()[0].ask(explain)
        assert any("recipient" in one for one in asked)
        assert plans
        assert not [plan for plan in plans if plan.startswith("SCAN") or "TEMP B-TREE" in plan]
