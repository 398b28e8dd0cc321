"""Traces of a real relay, as a collector gets them."""

from __future__ import annotations

from pathlib import Path

from relay.observe.trace_ids import root_span_of
from tests.support.app import Talk
from tests.support.collector import Collector, Span
from tests.support.relay import RelayProcess, time_line, write_config
from tests.support.upstream import Upstream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FIELD = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n"
CODE = "493871"
SLACK_S = 0.002
"""spans are timed by two clocks"""


def content(field: str = FIELD) -> bytes:
    return (
        f"From: login@auth.example.com\r\nTo: ann@example.org\r\n{field}Subject: Code {CODE} for Ann\r\n"
        f"\r\nYour code is {CODE}\r\n"
    ).encode()


async def submit(relay: RelayProcess, *to: str, sender: str = "login@auth.example.com", field: str = FIELD) -> str:
    async with Talk(relay.smtp) as talk:
        return await talk.submit(content(field), sender, *(to or ("ann@example.org",)))


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {one.name: one for one in spans}


def lies_within(inner: Span, outer: Span) -> bool:
    return outer.start_s - SLACK_S <= inner.start_s <= inner.end_s <= outer.end_s + SLACK_S


async def test_a_code_is_a_trace_under_the_apps_span(tmp_path: Path) -> None:
    async with Collector() as collector, Upstream() as esp:
        async with RelayProcess(write_config(tmp_path, {"fast": esp}), environment=collector.environment) as relay:
            message_id = await submit(relay)
            spans = await collector.trace(TRACE, "relay.message", "send fast", "data", "store", "wait")
            shown = await time_line(relay, message_id, "sent")
            assert await relay.terminate() == 0
    assert shown["trace"] == TRACE
    named = by_name(spans)
    root, attempt = named["relay.message"], named["send fast"]
    assert (root.parent_id, root.span_id, root.kind) == (PARENT, root_span_of(message_id), "SERVER")
    assert (attempt.parent_id, attempt.kind) == (root.span_id, "CLIENT")
    for name in ("receive", "classify", "accept", "store", "wait"):
        assert (named[name].parent_id, named[name].kind) == (root.span_id, "INTERNAL")
    for one in spans:
        assert lies_within(one, root), one.name
    for name in ("envelope", "data"):
        assert named[name].parent_id == attempt.span_id
        assert lies_within(named[name], attempt)
    assert named["receive"].end_s <= named["accept"].start_s + SLACK_S
    assert root.attributes == {
        "messaging.system": "smtp",
        "messaging.operation.name": "relay",
        "messaging.message.id": message_id,
        "messaging.message.envelope.size": shown["size"],
        "network.protocol.name": "smtp",
        "relay.lane": "otp",
        "relay.rule": "auth-sender",
        "relay.recipients": 1,
        "relay.state": "sent",
    }
    assert (
        attempt.attributes.items()
        >= {
            "messaging.operation.type": "send",
            "messaging.destination.name": "fast",
            "messaging.message.id": message_id,
            "relay.lane": "otp",
            "relay.via": "smtp",
            "relay.session": shown["recipients"][0]["attempts"][0]["session"],
            "relay.outcome": "sent",
            "relay.recipients": 1,
            "relay.reply.code": 250,
        }.items()
    )
    assert [one.name for one in root.events] == ["sent"]
    assert not root.is_error
    assert abs((root.end_s - named["receive"].end_s) * 1000 - shown["timings_ms"]["total"]) < 50
