"""Acceptance of a message whose recipients take different routes: in parts, judged together."""

from __future__ import annotations

import logging
import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from relay.intake.spool import IN_MEMORY_BYTES, Body
from relay.intake.types import Refused
from relay.mail.envelope import DeliverBy
from relay.policy.check import FULL
from relay.store.base import StoreError
from relay.store.model import NewMessage, SplitPart
from tests.intake.test_accept import LETTER, Relay, configured, suppress

CONFIG = """\
listen: {address: 127.0.0.1:2525}
hostname: relay.test
queue: {min_free: 1B}
upstreams: {a: {host: 127.0.0.1, tls: none}, b: {host: 127.0.0.1, tls: none}}
lanes:
  otp: {upstreams: [a, b], expires: 10m, supersede: true, limits: {OTP}}
  bulk: {upstreams: [b, a], expires: 2d, limits: {BULK}}
default_lane: bulk
rules:
  - {name: first, match: {recipient: "*@one.test"}, lane: otp}
  - {name: second, match: {recipient: "*@two.test"}, lane: otp, upstreams: [b], expires: 1m}
"""
TO = ("x@bulk.test", "a@one.test", "b@two.test", "c@one.test", "y@bulk.test")


def limited(folder: Path, otp: str = "{}", bulk: str = "{}") -> Relay:
    return Relay(configured(folder, CONFIG.replace("{OTP}", otp).replace("{BULK}", bulk)))


@pytest.fixture
def relay(tmp_path: Path) -> Relay:
    return limited(tmp_path)


def submitted(relay: Relay) -> list[NewMessage]:
    return [message for message, _ in relay.target.submitted]


def addresses(message: NewMessage) -> list[str]:
    return [one.address for one in message.envelope.recipients]


async def refusal(relay: Relay, *to: str) -> str:
    count = len(relay.target.submitted)
    with pytest.raises(Refused) as refused:
        await relay.accept(relay.submission(LETTER, *to))
    assert len(relay.target.submitted) == count
    return str(refused.value.reply)


async def test_each_part_is_a_message_of_its_own_route_with_the_same_content(relay: Relay) -> None:
    receipt = await relay.accept(relay.submission(LETTER, *TO, deliver_by=DeliverBy(300, "R"), envid="e", ret="HDRS"))
    entry, second, bulk = submitted(relay)
    assert (receipt.id, receipt.express) == (entry.id, True)
    assert [(one.lane, one.rule) for one in (entry, second, bulk)] == [
        ("otp", "first"),
        ("otp", "second"),
        ("bulk", None),
    ]
    assert [addresses(one) for one in (entry, second, bulk)] == [[TO[1], TO[3]], [TO[2]], [TO[0], TO[4]]]
    assert [one.split for one in (entry, second, bulk)] == [
        SplitPart(None, (1, 3)),
        SplitPart(entry.id, (2,)),
        SplitPart(entry.id, (0, 4)),
    ]
    assert len({one.id for one in (entry, second, bulk)}) == 3
    assert len({(one.content, one.message_id, one.accepted_at, one.subject) for one in (entry, second, bulk)}) == 1
    assert f"id {entry.id};".encode() in entry.content
    assert entry.message_id == f"<{entry.id.lower()}@relay.test>"
    # Each has its own upstreams, life and supersede key, and all other parameters of MAIL.
    assert [one.upstreams for one in (entry, second, bulk)] == [(), ("b",), ()]
    assert [one.expires_at - one.accepted_at for one in (entry, second, bulk)] == [300, 60, 300]
    assert [one.supersede_key is None for one in (entry, second, bulk)] == [True, False, True]
    assert {(one.envelope.envid, one.envelope.ret, one.providers[0]) for one in (bulk, second)} == {
        ("e", "HDRS", "bulk.test"),
        ("e", "HDRS", "two.test"),
    }


async def test_the_first_recipient_s_part_is_the_entry_where_none_or_all_are_express(relay: Relay) -> None:
    receipt = await relay.accept(relay.submission(LETTER, *TO[2:4]))
    assert [(one.id == receipt.id, one.rule) for one in submitted(relay)] == [(True, "second"), (False, "first")]


async def test_a_message_of_one_route_is_no_part(relay: Relay) -> None:
    message = await relay.submitted(LETTER, TO[1], TO[3])
    assert (message.split, len(relay.target.submitted)) == (None, 1)


async def test_a_listener_s_lane_and_one_that_the_request_names_split_nothing(relay: Relay) -> None:
    submission = relay.submission(LETTER, *TO)
    await relay.accept(submission._replace(lane="bulk"))
    pinned = submission.listener.model_copy(update={"lane": "otp"})
    await relay.accept(submission._replace(listener=pinned))
    assert [(one.lane, one.split, len(one.providers)) for one in submitted(relay)] == [
        ("bulk", None, 5),
        ("otp", None, 5),
    ]


async def test_a_large_message_is_split_from_its_file(relay: Relay, tmp_path: Path) -> None:
    body = Body(tmp_path)
    body.write(LETTER + b"line\r\n" * (IN_MEMORY_BYTES // 5))
    receipt = await relay.accept(relay.submission(body.content(), *TO))
    ((draft, _),) = relay.target.spooled
    assert (draft.new.id, len(draft.others)) == (receipt.id, 2)
    assert len({(one.content, one.message_id) for one in submitted(relay)}) == 1
    assert [addresses(one) for one in submitted(relay)] == [[TO[1], TO[3]], [TO[2]], [TO[0], TO[4]]]
    body.close()


async def test_one_line_tells_of_the_message_and_one_of_each_further_part(
    relay: Relay, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        receipt = await relay.accept(relay.submission(LETTER, *TO))
    _, second, bulk = submitted(relay)
    (accepted,) = [one for one in caplog.messages if "event=accepted" in one]
    assert f"id={receipt.id} lane=otp rule=first recipients=5" in accepted
    assert " parts=3 " in accepted
    assert [one for one in caplog.messages if "event=part" in one] == [
        f"event=part id={second.id} part_of={receipt.id} lane=otp rule=second recipients=1",
        f"event=part id={bulk.id} part_of={receipt.id} lane=bulk recipients=2",
    ]
    value = relay.metrics.registry.get_sample_value
    for lane, rule in (("otp", "first"), ("otp", "second"), ("bulk", "default")):
        assert value("relay_messages_accepted_total", {"lane": lane, "rule": rule}) == 1


# Limits


async def test_a_part_over_a_limit_refuses_the_message_and_the_others_do_not_count(tmp_path: Path) -> None:
    relay = limited(tmp_path, "{per_recipient: 1/1h}", "{per_recipient: 1/1h}")
    await relay.accept(relay.submission(LETTER, "x@bulk.test"))
    for to in (("a@one.test", "x@bulk.test"), ("x@bulk.test", "a@one.test"), TO):
        assert (await refusal(relay, *to)).startswith("450 4.7.1 limit per_recipient of lane bulk")
    await relay.accept(relay.submission(LETTER, "a@one.test"))
    assert (await refusal(relay, "a@one.test", "b@two.test")).startswith("450 4.7.1 limit per_recipient of lane otp")
    await relay.accept(relay.submission(LETTER, "b@two.test"))


@pytest.mark.parametrize("limit", ["per_client", "per_sender"])
async def test_client_and_sender_count_a_message_once_in_a_lane(tmp_path: Path, limit: str) -> None:
    relay = limited(tmp_path, f"{{{limit}: 2/1h}}", f"{{{limit}: 3/1h}}")
    for _ in range(2):
        await relay.accept(relay.submission(LETTER, *TO))
    assert (await refusal(relay, *TO)).startswith(f"450 4.7.1 limit {limit} of lane otp")
    await relay.accept(relay.submission(LETTER, "x@bulk.test"))
    assert (await refusal(relay, "x@bulk.test")).startswith(f"450 4.7.1 limit {limit} of lane bulk")


async def test_one_mailbox_in_two_parts_is_two_messages_to_it(tmp_path: Path) -> None:
    text = CONFIG.replace("{OTP}", "{per_recipient: 1/1h, fold_tags: true}").replace("{BULK}", "{}")
    relay = Relay(
        configured(tmp_path, text.replace("*@two.test", "a+tag@one.test").replace("*@one.test", "a@one.test"))
    )
    assert (await refusal(relay, "a@one.test", "a+tag@one.test")).startswith(
        "450 4.7.1 limit per_recipient of lane otp"
    )
    await relay.accept(relay.submission(LETTER, "a+tag@one.test"))


async def test_a_part_that_is_delayed_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    relay = limited(tmp_path, "{per_recipient: 1/1m, action: delay}")
    await relay.accept(relay.submission(LETTER, "a@one.test"))
    await relay.accept(relay.submission(LETTER, "a@one.test", "x@bulk.test", "b@two.test"))
    delayed, second, bulk = submitted(relay)[1:]
    assert (delayed.rule, second.rule, bulk.lane) == ("first", "second", "bulk")
    assert delayed.due_at is not None
    assert 50 < delayed.due_at - delayed.accepted_at <= 60
    assert (second.due_at, bulk.due_at) == (None, None)


async def test_a_demoted_part_is_the_entry_no_more(tmp_path: Path) -> None:
    relay = limited(tmp_path, "{per_recipient: 1/1h, action: demote}")
    await relay.accept(relay.submission(LETTER, "a@one.test"))
    await relay.accept(relay.submission(LETTER, "a@one.test", "b@two.test", "x@bulk.test"))
    entry, demoted, bulk = submitted(relay)[1:]
    assert [(one.lane, one.rule) for one in (entry, demoted, bulk)] == [
        ("otp", "second"),
        ("bulk", "first"),
        ("bulk", None),
    ]
    assert demoted.limited == ("per_recipient of lane otp: demoted to lane bulk",)
    assert (entry.limited, bulk.limited) == ((), ())


async def test_what_is_not_stored_counts_in_no_lane(tmp_path: Path) -> None:
    relay = limited(tmp_path, "{per_recipient: 1/1h}", "{per_recipient: 1/1h}")

    async def fails() -> None:
        raise StoreError("disk I/O error")

    relay.target.before = fails
    assert (await refusal(relay, *TO)).startswith("451")
    relay.target.before = None
    await relay.accept(relay.submission(LETTER, *TO))
    assert len(relay.target.submitted) == 3


# Suppressed recipients, repeated requests, space


async def test_only_where_all_recipients_of_all_parts_are_suppressed_is_the_message_refused(relay: Relay) -> None:
    suppress(relay, "a@one.test", "x@bulk.test")
    assert await refusal(relay, "x@bulk.test", "a@one.test") == "550 5.7.1 suppressed: left us"
    value = relay.metrics.registry.get_sample_value
    assert [value("relay_suppressed_total", {"lane": lane}) for lane in ("otp", "bulk")] == [1, 1]
    await relay.accept(relay.submission(LETTER, "x@bulk.test", "a@one.test", "b@two.test"))
    assert [addresses(one) for one in submitted(relay)] == [["a@one.test"], ["b@two.test"], ["x@bulk.test"]]


async def test_a_key_stands_for_the_whole_message_and_is_kept_with_the_entry(relay: Relay) -> None:
    submission = relay.submission(LETTER, *TO)._replace(idempotency_key="one")
    first = await relay.accept(submission)
    again = await relay.accept(submission)
    assert (again.id, again.express) == (first.id, None)
    assert [one.idempotency is None for one in submitted(relay)] == [False, True, True]


async def test_each_part_needs_room_of_its_own_on_the_disk(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _: SimpleNamespace(f_bavail=2 * len(LETTER), f_frsize=1))
    assert await refusal(relay, *TO) == str(FULL)
    await relay.accept(relay.submission(LETTER, TO[1], TO[0]))
    assert len(relay.target.submitted) == 2


async def test_each_lane_that_takes_a_part_may_lint_the_message(relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
    linted: list[tuple[str, bytes | None]] = []
    services = replace(relay.accept._services, lint=lambda *what: linted.append(what))
    monkeypatch.setattr(relay.accept, "_services", services)
    await relay.accept(relay.submission(LETTER, *TO))
    assert linted == [("otp", LETTER), ("bulk", LETTER)]


async def test_an_archive_that_is_in_another_part_gets_no_copy(tmp_path: Path) -> None:
    text = CONFIG.replace("{OTP}", "{}").replace("{BULK}", "{}")
    relay = Relay(configured(tmp_path, text.replace("otp: {", "otp: {copy_to: x@bulk.test, ")))
    await relay.accept(relay.submission(LETTER, *TO))
    assert [one.rule for one in submitted(relay)] == ["first", "second", None]
    await relay.accept(relay.submission(LETTER, *TO[1:]))
    assert [one.rule for one in submitted(relay)][3:] == ["first", "second", None, "copy"]
    assert submitted(relay)[-1].split is None
