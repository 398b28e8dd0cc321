"""What becomes of a message when upstreams misbehave, as the log, the API and the metrics tell it.

One relay; every case has a lane and upstreams of its own, so that none feels another's circuit.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from tests.delivery.harness import MESSAGE_PHASES
from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, get, metrics, time_line, until, upstream_keys, write_config
from tests.support.upstream import Close, Hang, Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count()
DEAD = {"host": "127.0.0.1", "port": 9, "tls": "none"}

SCRIPTS: dict[str, Any] = {
    "hangs": {"mail": Hang()},
    "silent": {"mail": Hang()},
    "busy": {"mail": "451 4.3.0 later"},
    "picky": {"rcpt": {"no@*": "550 5.1.1 no such user", "later*": "450 4.2.1 later"}},
    "content": {"dot": "554 5.6.0 content refused"},
    "locked": {"auth": "535 5.7.8 credentials refused"},
    "unverified": {"dot": "554 Message rejected: Email address is not verified."},
    "leaves": {"data": Close()},
    "swallows": {"dot": Close(taken=True)},
    "swallows-too": {"dot": Close(taken=True)},
    "never": {"rcpt": "451 4.3.0 never today"},
    "comes-back": {"dot": ["451 4.3.0 later"]},
    "returns": {},
}


@dataclass(frozen=True)
class World:
    relay: RelayProcess
    upstreams: dict[str, Upstream]

    async def send(self, lane: str, *recipients: str, mail: str = "", sender: str = BULK, text: str = "hello") -> str:
        async with Talk(self.relay.smtp) as app:
            content = letter(text, extra=f"X-Relay-Lane: {lane}\r\n")
            return await app.submit(content, sender, *recipients, mail=mail)

    async def outcome(self, lane: str, *states: str, mail: str = "", sender: str = BULK) -> Any:
        return await time_line(self.relay, await self.send(lane, somebody(), mail=mail, sender=sender), *states)

    def bounces_to(self, sender: str) -> list[bytes]:
        """What came back for that sender, which is by way of the default lane."""
        good = self.upstreams["good"]
        return [one.content for one in good.messages if one.recipients == (sender,) and one.sender == ""]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("outcomes")
    async with AsyncExitStack() as stack:
        upstreams = {"good": await stack.enter_async_context(Upstream())}
        for name, script in SCRIPTS.items():
            auth = {"app": "a-secret-password"} if name == "locked" else None
            upstreams[name] = await stack.enter_async_context(Upstream(script=script, auth=auth))
        named: dict[str, dict[str, object]] = {name: upstream_keys(one) for name, one in upstreams.items()}
        named["dead"] = DEAD
        named["good"]["sessions"] = {"max": 50}
        lanes: dict[str, Any] = {"bulk": {"upstreams": ["good"], "retry": ["1s"], "expires": "2d"}}
        for name in (*SCRIPTS, "dead"):
            lanes[name] = {"upstreams": [name, "good"], "retry": ["200ms"], "attempt": "1s", "expires": "10m"}
        lanes["silent"] |= {"attempt": "8s", "hedge": "300ms"}
        lanes["swallows-too"]["on_ambiguous"] = "hold"
        lanes["never"] |= {"upstreams": ["never"], "expires": "1s"}
        lanes["patient"] = {"upstreams": ["never"], "retry": ["200ms"], "expires": "10m"}
        lanes["superseding"] = {**lanes["patient"], "retry": ["30s"], "supersede": True}
        rules = [{"name": lane, "match": {"header": {"X-Relay-Lane": lane}}, "lane": lane} for lane in lanes]
        config = write_config(directory, named, lanes=lanes, rules=rules, workers=1)
        async with RelayProcess(config) as relay:
            yield World(relay, upstreams)


def somebody() -> str:
    return f"user{next(_numbers)}@example.net"


def way(shown: Any) -> list[tuple[str, str]]:
    """The attempts of the first recipient."""
    return [(one["upstream"], one["outcome"]) for one in shown["recipients"][0]["attempts"]]


FAILOVERS = [
    ("dead", "abandoned"),
    ("hangs", "abandoned"),
    ("leaves", "abandoned"),
    ("busy", "deferred"),
    ("locked", "refused"),
    ("unverified", "refused"),
]


@pytest.mark.parametrize(("lane", "outcome"), FAILOVERS)
async def test_what_an_upstream_does_not_take_goes_to_the_next_at_once(world: World, lane: str, outcome: str) -> None:
    shown = await world.outcome(lane, "sent")
    assert shown["recipients"][0]["upstream"] == "good"
    # A circuit that background probes opened before costs no attempt at all.
    assert way(shown) in ([(lane, outcome), ("good", "sent")], [("good", "sent")])
    assert world.bounces_to(BULK) == []


async def test_a_dead_upstream_costs_one_attempt_and_then_nobody_pays_again(world: World) -> None:
    await world.outcome("dead", "sent")
    shown = await world.outcome("dead", "sent")
    assert way(shown) == [("good", "sent")]
    assert (await metrics(world.relay)).value("relay_upstream_up", upstream="dead") == 0
    ready = await get(world.relay, "/readyz")
    assert ready.status == 200
    assert ready.document["lanes"]["dead"]["upstreams"]["dead"]["state"] in ("down", "half-open")
    assert ready.document["lanes"]["dead"]["upstreams"]["good"]["state"] == "up"


async def test_credentials_that_are_refused_open_the_circuit(world: World) -> None:
    await world.outcome("locked", "sent")

    async def is_down() -> bool:
        return (await metrics(world.relay)).value("relay_upstream_up", upstream="locked") == 0

    await until(is_down)
    assert way(await world.outcome("locked", "sent")) == [("good", "sent")]


async def test_each_recipient_has_its_own_end_and_nobody_is_sent_it_twice(world: World) -> None:
    kept, sender = somebody(), "each@example.com"
    message_id = await world.send("picky", kept, "no@example.net", "later@example.net", sender=sender)
    shown = await time_line(world.relay, message_id, "sent", "bounced")
    states = {one["address"]: (one["state"], one["upstream"]) for one in shown["recipients"]}
    assert states == {
        kept: ("sent", "picky"),
        "no@example.net": ("bounced", "picky"),
        "later@example.net": ("sent", "good"),
    }
    got = [
        one.recipients for name in ("picky", "good") for one in world.upstreams[name].messages if one.sender == sender
    ]
    assert got == [(kept,), ("later@example.net",)]


async def test_a_refused_recipient_is_bounced_by_the_default_lane(world: World) -> None:
    sender = "bounced@example.com"
    message_id = await world.send("content", to := somebody(), sender=sender, text="the body 918273")
    shown = await time_line(world.relay, message_id, "bounced")
    assert shown["recipients"][0]["reply"].startswith("554 5.6.0")

    async def came_back() -> bool:
        return bool(world.bounces_to(sender))

    await until(came_back)
    (bounce,) = world.bounces_to(sender)
    assert b"multipart/report" in bounce
    assert to.encode() in bounce
    (listed,) = (await get(world.relay, f"/api/messages?to={sender}")).document
    assert (listed["lane"], listed["sender"], listed["client"]) == ("bulk", "", "local")


async def test_the_null_sender_gets_no_bounce(world: World) -> None:
    before = (await get(world.relay, "/api/messages?lane=bulk&limit=1000")).document
    await world.outcome("content", "bounced", sender="")
    assert (await get(world.relay, "/api/messages?lane=bulk&limit=1000")).document == before


async def test_a_loss_behind_the_dot_is_ambiguous_and_resent_elsewhere(world: World) -> None:
    shown = await world.outcome("swallows", "sent")
    assert way(shown) == [("swallows", "ambiguous"), ("good", "sent")]


async def test_a_lane_that_holds_what_is_ambiguous_leaves_it_to_the_operator(world: World) -> None:
    shown = await world.outcome("swallows-too", "ambiguous")
    assert way(shown) == [("swallows-too", "ambiguous")]
    await asyncio.sleep(0.5)
    again = await time_line(world.relay, shown["id"], "ambiguous")
    assert way(again) == way(shown)
    assert (await metrics(world.relay)).value(
        "relay_queue_recipients", lane="swallows-too", state="ambiguous"
    ) == 1  # fmt: skip


async def test_a_code_past_its_time_is_never_sent(world: World) -> None:
    sender = "late@example.com"
    message_id = await world.send("never", to := somebody(), sender=sender)
    shown = await time_line(world.relay, message_id, "expired")
    world.upstreams["never"].set_script({})
    await asyncio.sleep(0.5)
    world.upstreams["never"].set_script(SCRIPTS["never"])
    assert [one for one in world.upstreams["never"].messages if to in one.recipients] == []
    assert between(shown["accepted_at"], shown["expires_at"]) == pytest.approx(1.0, abs=0.01)

    async def came_back() -> bool:
        return bool(world.bounces_to(sender))

    await until(came_back)


async def test_deliverby_with_r_shortens_the_life_and_its_end_is_reported(world: World) -> None:
    sender = "by@example.com"
    message_id = await world.send("patient", somebody(), sender=sender, mail="BY=1;R")
    shown = await time_line(world.relay, message_id, "expired")
    assert between(shown["accepted_at"], shown["expires_at"]) == pytest.approx(1.0, abs=0.01)

    async def came_back() -> bool:
        return bool(world.bounces_to(sender))

    await until(came_back)


async def test_deliverby_never_lengthens_a_life(world: World) -> None:
    shown = await world.outcome("comes-back", "sent", mail="BY=86400;R")
    assert between(shown["accepted_at"], shown["expires_at"]) == pytest.approx(600, abs=0.01)


async def test_the_ladder_comes_back_to_an_upstream_that_said_later(world: World) -> None:
    shown = await world.outcome("comes-back", "sent")
    assert way(shown)[-1][1] == "sent"
    assert {outcome for _, outcome in way(shown)} <= {"deferred", "sent"}


async def test_hedging_races_the_next_upstream_and_lets_one_final_dot_leave(world: World) -> None:
    shown = await world.outcome("silent", "sent")
    assert dict(way(shown)) in ({"silent": "abandoned", "good": "sent"}, {"good": "sent"})
    to = shown["recipients"][0]["address"]
    sent = [one for name in ("silent", "good") for one in world.upstreams[name].transfers if to in one.recipients]
    assert len(sent) == 1


async def test_a_newer_code_takes_the_place_of_an_older_one_that_waits(world: World) -> None:
    older = await world.send("superseding", to := somebody())
    await time_line(world.relay, older, "deferred")
    newer = await world.send("superseding", to)
    await time_line(world.relay, older, "superseded")
    assert (await time_line(world.relay, newer, "deferred"))["recipients"][0]["address"] == to


MESSAGE = {
    "id", "lane", "rule", "sender", "client", "message_id", "subject", "size", "accepted_at", "expires_at", "signed",
    "timings_ms", "recipients",
}  # fmt: skip
RECIPIENT = {"address", "provider", "state", "upstream", "reply", "sent_at", "delivered_at", "attempts"}
ATTEMPT = {"n", "upstream", "started_at", "session", "outcome", "reply", "timings_ms"}
TIMES = ("receive", "classify", "sign", "store", "wait", "send", "total")


async def test_a_message_in_json_is_as_the_contract_has_it(world: World) -> None:
    shown = await world.outcome("busy", "sent")
    assert set(shown) >= MESSAGE
    assert re.fullmatch(r"[0-9A-HJKMNP-TV-Z]{26}", shown["id"])
    assert (shown["lane"], shown["rule"], shown["sender"], shown["client"]) == ("busy", "busy", BULK, "127.0.0.1")
    assert (shown["message_id"], shown["subject"], shown["signed"]) == ("<fixed@app.example.com>", "hi", [])
    assert isinstance(shown["size"], int)
    assert set(shown["timings_ms"]) >= set(TIMES)
    assert all(shown["timings_ms"][name] >= 0 for name in TIMES)
    (recipient,) = shown["recipients"]
    assert set(recipient) >= RECIPIENT
    assert (recipient["provider"], recipient["delivered_at"]) == ("example.net", None)
    assert recipient["reply"].startswith("250 2.0.0 Ok: queued as")
    for at in (shown["accepted_at"], shown["expires_at"], recipient["sent_at"], recipient["attempts"][0]["started_at"]):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", at)
    for n, attempt in enumerate(recipient["attempts"], 1):
        assert set(attempt) >= ATTEMPT
        assert attempt["n"] == n
        assert attempt["session"] in ("warm", "new", "none")
        assert attempt["outcome"] in ("sent", "deferred", "refused", "ambiguous", "abandoned")
        assert set(attempt["timings_ms"]) >= {"connect", "tls", "auth", "envelope", "data"}
    spent_ms = shown["timings_ms"]
    assert sum(spent_ms.get(phase, 0.0) for phase in MESSAGE_PHASES) == pytest.approx(spent_ms["total"], abs=1.0)


async def test_total_runs_from_the_final_dot_to_the_reply(world: World) -> None:
    shown = await world.outcome("hangs", "sent")
    total_ms = between(shown["accepted_at"], shown["recipients"][0]["sent_at"]) * 1000
    assert shown["timings_ms"]["total"] == pytest.approx(total_ms, abs=50)


def between(begin: str, end: str) -> float:
    """Seconds."""
    return (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()


async def test_every_metric_of_the_contract_is_there_after_traffic(world: World) -> None:
    await world.outcome("busy", "sent")
    await world.outcome("content", "bounced")
    async with Talk(world.relay.smtp) as app:
        assert (await app.ask("MAIL FROM:<no angle")).startswith("5")
    found = await metrics(world.relay)
    labels = {
        "relay_messages_accepted_total": {"lane", "rule"},
        "relay_messages_rejected_total": {"reason"},
        "relay_recipients_total": {"lane", "upstream", "outcome"},
        "relay_delivery_seconds_bucket": {"lane", "upstream", "le"},
        "relay_delivery_seconds_sum": {"lane", "upstream"},
        "relay_delivery_seconds_count": {"lane", "upstream"},
        "relay_phase_seconds_bucket": {"lane", "phase", "le"},
        "relay_queue_recipients": {"lane", "state"},
        "relay_queue_oldest_seconds": {"lane"},
        "relay_upstream_sessions": {"upstream", "state"},
        "relay_upstream_up": {"upstream"},
        "relay_upstream_replies_total": {"upstream", "code"},
        "relay_config_reload_success": set[str](),
    }
    for name, expected in labels.items():
        series = found.labels(name)
        assert series, name
        assert all(set(one) == expected for one in series), name
    assert found.labels("relay_build_info")
    assert "relay_inbox_seconds" in (await get(world.relay, "/metrics")).body
    buckets = {float(one["le"]) for one in found.labels("relay_delivery_seconds_bucket")}
    assert {0.005, 10.0, 30.0, 60.0, 120.0} <= buckets
    assert found.value("relay_config_reload_success") == 1
    assert found.value("relay_upstream_replies_total", upstream="busy", code="451") >= 1
    assert found.value("relay_recipients_total", lane="busy", upstream="good", outcome="sent") >= 1
    assert found.value("relay_delivery_seconds_count", lane="busy", upstream="good") >= 1


async def test_what_an_alert_waits_for_is_0_before_it_happens(tmp_path: Path) -> None:
    """A counter that comes up as 1 has not increased for Prometheus."""
    keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    async with RelayProcess(write_config(tmp_path, {"up": keys})) as relay:
        found = await metrics(relay)
        upstream = {(one["lane"], one["upstream"], one["outcome"]) for one in found.labels("relay_recipients_total")}
        for lane in ("otp", "bulk"):
            assert {(lane, "none", "expired"), (lane, "up", "sent"), (lane, "up", "ambiguous")} <= upstream
        assert {"busy", "store"} <= {one["reason"] for one in found.labels("relay_messages_rejected_total")}
        assert found.value("relay_recipients_total", lane="otp", upstream="up", outcome="ambiguous") == 0
        assert found.value("process_start_time_seconds") > 0


async def test_no_label_of_a_metric_holds_an_address(world: World) -> None:
    await world.outcome("busy", "sent")
    body = (await get(world.relay, "/metrics")).body
    assert "@" not in body
    assert "example.net" not in body
    assert "user" not in "".join(line for line in body.splitlines() if not line.startswith("#"))


async def test_many_recipient_domains_make_no_more_series(world: World) -> None:

    async def sent(*domains: str) -> None:
        async with Talk(world.relay.smtp) as app:
            text = letter(extra="X-Relay-Lane: bulk\r\n")
            message_id = await app.submit(text, BULK, *(f"a@{domain}" for domain in domains))
        await time_line(world.relay, message_id, "sent")

    await sent("first.example", "second.example")  # the lane's own series
    before = len(await metrics(world.relay))
    for n in range(4):
        await sent(*(f"d{n}-{m}.example" for m in range(50)))
    assert len(await metrics(world.relay)) <= before + 60


async def test_health_and_readiness_and_the_console_answer(world: World) -> None:
    assert (await get(world.relay, "/healthz")).status == 200
    ready = await get(world.relay, "/readyz")
    assert ready.status == 200
    assert ready.document["ready"] is True
    console = await get(world.relay, "/")
    assert console.status == 200
    assert console.headers["content-type"].startswith("text/html")
    assert (await get(world.relay, "/api/messages/01ARZ3NDEKTSV4RRFFQ69G5FAV")).status == 404
    assert (await get(world.relay, "/api/report?since=1h")).document["lanes"]
    queue = (await get(world.relay, "/api/queue")).document
    assert {"lanes", "messages"} <= set(queue)


async def test_an_upstream_that_is_back_is_preferred_again(world: World) -> None:
    """Within 30 s, says the contract; background probes find out, no code pays for it."""
    upstream = world.upstreams["returns"]
    assert way(await world.outcome("returns", "sent")) == [("returns", "sent")]
    await upstream.pause()
    upstream.reset_sessions()
    shown = await world.outcome("returns", "sent")
    assert shown["recipients"][0]["upstream"] == "good"
    await upstream.resume()

    async def is_preferred() -> bool:
        return way(await world.outcome("returns", "sent")) == [("returns", "sent")]

    await until(is_preferred, within_s=30)
    assert (await metrics(world.relay)).value("relay_upstream_up", upstream="returns") == 1
