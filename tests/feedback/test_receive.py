"""What becomes of a proved body: its events, what follows from them, and nothing from a forged one."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from relay.feedback.receiver import Receiver
from relay.feedback.settings import WebhookSettings
from tests.feedback.rooms import relay_id, room
from tests.providers.signers import HMAC_KEY, SIGNERS, by_mailgun
from tests.providers.signers import NOW as SIGNED_AT
from tests.providers.test_webhook_junk import pack, plain_events
from tests.store.build import NOW

MAILGUN = WebhookSettings("mailgun", (HMAC_KEY,))


def mailgun(message_id: str, event: str = "delivered", recipient: str = "user@example.net", **more: Any) -> bytes:
    data = {"event": event, "id": "W3X4JOhFT-OZidZGKKr9iA", "timestamp": NOW + 3, "recipient": recipient, **more}
    return json.dumps({"event-data": {**data, "user-variables": relay_id(message_id)}}).encode()


async def test_a_token_of_mailgun_vouches_for_one_event_only_also_after_a_restart(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        here.webhooks.upstreams = {"mailgun": MAILGUN}
        sent = await here.sent("user@example.net", "ann@example.org", upstream="mailgun")
        right = by_mailgun(mailgun(sent), {}, here.now).posted.body
        proof = json.loads(right)["signature"]
        forged = [
            mailgun(sent, recipient="ann@example.org"),
            mailgun(sent, "complained"),
            mailgun(sent, "failed", severity="permanent"),
            mailgun("01UNKNOWN0000000000000000X"),
            mailgun(sent, "unheard"),
            mailgun(sent, id="another"),
        ]
        for _ in range(2):
            assert (await here.take(right, "mailgun")).status == 200
            for body in forged:
                posted = json.dumps({**json.loads(body), "signature": proof}).encode()
                assert (await here.take(posted, "mailgun")).status == 401
        assert here.rows() == [(sent, 0, "delivered")]
        assert here.counts.events == {("mailgun", "delivered"): 1}
    async with room(tmp_path) as here:
        here.webhooks.upstreams = {"mailgun": MAILGUN}
        assert (await here.take(right, "mailgun")).status == 200
        posted = json.dumps({**json.loads(forged[1]), "signature": proof}).encode()
        assert (await here.take(posted, "mailgun")).status == 401
        assert here.rows() == [(sent, 0, "delivered")]


BOUNCE: dict[str, object] = {"RecordType": "Bounce", "Email": "user@example.net", "ID": 1}
EFFECTS: dict[str, tuple[dict[str, object], list[str]]] = {
    "a permanent bounce": ({**BOUNCE, "Type": "HardBounce"}, ["end", "suppress"]),
    "a mailbox that is full": ({**BOUNCE, "Type": "SoftBounce"}, []),
    "a message that waits": ({**BOUNCE, "Type": "Transient"}, []),
    "a complaint": ({**BOUNCE, "Type": "SpamComplaint", "RecordType": "SpamComplaint"}, ["suppress"]),
    "a suppression": (
        {"RecordType": "SubscriptionChange", "SuppressSending": True, "SuppressionReason": "ManualSuppression"},
        ["suppress"],
    ),
    "an arrival": ({}, []),
}


@pytest.mark.parametrize(("fields", "actions"), EFFECTS.values(), ids=list(EFFECTS))
async def test_an_event_ends_or_suppresses_the_recipient_that_it_names_and_no_other(
    tmp_path: Path, fields: dict[str, object], actions: list[str]
) -> None:
    async with room(tmp_path) as here:
        sent = await here.sent("ann@example.org", "user@example.net", "bob@example.org")
        for _ in range(2):  # the second time it is known
            assert (await here.post(**fields, Metadata=relay_id(sent))).status == 200
        effects = here.rows("effect", "action, message_id, position, coalesce(address, '')")
        assert [one[0] for one in effects] == actions
        assert {one[1:3] for one in effects} <= {(sent, 1)}
        assert {one[3] for one in effects} <= {"", "user@example.net"}
        assert ("other",) not in here.rows("effect", "reason")


async def test_a_late_event_does_not_bring_an_erased_address_back(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        here.webhooks.receivers = [Receiver("https://a.example/", b"k")]
        sent, other = await here.sent("erase1@example.net"), await here.sent("kept@example.org")
        await here.stores[0].erase_address("erase1@example.net")
        quoting = "smtp;550 5.1.1 The account {} does not exist, erase1 is unknown"
        for address, message_id in (("erase1@example.net", sent), ("kept@example.org", other)):
            bounce = {**BOUNCE, "ID": address, "Email": address, "Type": "HardBounce"}
            told = {"Details": quoting.format(address), "Metadata": relay_id(message_id)}
            assert (await here.post(**bounce, **told)).status == 200
        hidden, kept = (row[0] for row in here.rows("event", "reason"))
        assert "erase1" not in hidden
        assert "account h:" in hidden
        assert "kept@example.org" in kept
        (hash_,) = re.findall("h:[0-9a-f]+@example.net", hidden.split("does")[0])
        assert f'"recipient":"{hash_}"' in here.rows("outbox", "body")[0][0].decode().replace(": ", ":")
        assert "erase1" not in str(here.rows("outbox", "body")[0])
        assert [one[0] for one in here.rows("effect", "action")] == ["end", "suppress_unnamed", "end", "suppress"]
        assert "erase1" not in str(here.rows("effect", "reason"))


async def test_receivers_get_what_they_want_of_an_event_once(tmp_path: Path) -> None:
    async with room(tmp_path) as here:
        wanting = Receiver("https://a.example/", b"k", frozenset({"delivered"}), frozenset({"otp"}))
        others = [
            Receiver("https://b.example/", b"k", frozenset({"bounced"})),
            Receiver("https://c.example/", b"k", None, frozenset({"bulk"})),
        ]
        here.webhooks.receivers = [wanting, *others]
        sent = await here.sent("user@example.net")
        for _ in range(2):
            assert (await here.post(Metadata=relay_id(sent))).status == 200
        assert here.rows("outbox", "receiver, message_id") == [(wanting.key, sent)]


async def test_no_line_counter_or_answer_has_an_address_a_code_or_a_reason(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = "Remote said: your code 493871 for gwen@example.net, token=hunter22"
    caplog.set_level("DEBUG")
    async with room(tmp_path) as here:
        sent = await here.sent("gwen@example.net")
        bounce = {**BOUNCE, "Email": "gwen@example.net", "Type": "HardBounce", "Details": secret, "Description": secret}
        texts = [(await here.post(**bounce, Metadata=relay_id(one), Subject=secret)).text for one in (sent, "unknown")]
        texts.append((await here.post(**{**bounce, "Email": "eve@example.net"}, Metadata=relay_id(sent))).text)
        texts.append((await here.take(secret.encode())).text)
        texts += [(await here.take(secret.encode(), headers={"authorization": secret})).text for _ in range(50)]
        shown = "\n".join([*caplog.messages, *texts, str(here.counts.take())])
        assert "kind=bounced" in shown
        assert not [one for one in ("493871", "gwen", "eve@", "hunter22", "Remote said", "s3cret") if one in shown]
        refusals = [line for line in caplog.messages if "webhook_refused" in line]
        assert len(refusals) == 2  # one a reason, not one a request
        assert "Webhooks" in refusals[1]  # where the password is set at the ESP
        (reason,) = here.rows("event", "reason")[0]
        assert "493871" not in reason
        assert "hunter22" not in reason


async def test_of_deliveries_to_one_recipient_the_first_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with room(tmp_path) as here:
        for address in ("user@example.net", "ann@example.org"):
            sent = await here.sent(address)
            for number in range(3):
                told = {"Metadata": relay_id(sent), "MessageID": f"x{number}"}
                assert (await here.post(**told, Recipient=address)).status == 200
        assert len(here.rows()) == 6
        assert len([line for line in caplog.messages if "esp_event" in line]) == 2


@pytest.mark.parametrize("esp", [one for one in SIGNERS if one != "ses"])
async def test_wrong_types_in_every_field_of_a_proved_event_get_200_or_400(tmp_path: Path, esp: str) -> None:
    junk: list[object] = [None, True, -1, 1e308, 10**30, "", "\ud800\x00", "9" * 5000, [], {}, [[[]]], {"a": {"b": []}}]
    async with room(tmp_path) as here:
        here.now = SIGNED_AT
        terms = SIGNERS[esp](b"{}", {}, here.now).terms
        here.webhooks.upstreams = {esp: WebhookSettings(esp, terms.secrets, url=terms.url)}
        sent = await here.sent("user@example.net", upstream=esp, at=SIGNED_AT - 5)
        event = {**plain_events(esp)[0]}
        for number, name in enumerate([*event, "recipient", "email", "metadata"]):
            value = junk[number % len(junk)]
            for changed in (value, [value], {"relay-id": sent, "x": value}):
                signed = pack(esp, {**event, name: changed})
                answer = await here.take(signed.posted.body, esp, dict(signed.posted.headers))
                assert answer.status in {200, 400}
        deep = json.dumps(event)[:-1].encode() + b', "deep": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
        headers = {"authorization": SIGNERS[esp](b"{}", {}, here.now).posted.headers.get("authorization", "")}
        assert (await here.take(deep, esp, headers)).status in {400, 401}
