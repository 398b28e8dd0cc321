"""Traces of a real relay, as a collector gets them."""

from __future__ import annotations

import base64
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from relay.observe.trace_ids import root_span_of, trace_of
from tests.support.app import Talk
from tests.support.collector import Collector, Span
from tests.support.processes import children
from tests.support.relay import RelayProcess, get, metrics, time_line, until, until_logged, upstream_keys, write_config
from tests.support.upstream import Upstream

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FIELD = f"traceparent: 00-{TRACE}-{PARENT}-01\r\n"
CODE = "493871"
SLACK_S = 0.002
"""spans are timed by two clocks"""
APP = "login@auth.example.com"
PROGRAM = """
import sys
{first}
from relay.__main__ import main
code = main()
found = sorted(name for name in sys.modules if name.startswith("opentelemetry"))
print("imported", found, file=sys.stderr, flush=True)
sys.exit(code)
"""
OPEN_METRICS = {"Accept": "application/openmetrics-text"}
BLOCKED = "sys.modules['opentelemetry'] = None"


def content(sender: str, field: str) -> bytes:
    return (
        f"From: {sender}\r\nTo: ann@example.org\r\n{field}Subject: Code {CODE} for Ann\r\n\r\nYour code is {CODE}\r\n"
    ).encode()


async def submit(relay: RelayProcess, *to: str, sender: str = APP, field: str = FIELD) -> str:
    async with Talk(relay.smtp) as talk:
        return await talk.submit(content(sender, field), sender, *(to or ("ann@example.org",)))


def traced(config: Path, collector: Collector, **variables: str) -> RelayProcess:
    return RelayProcess(config, {**collector.environment, **variables})


def by_name(spans: list[Span]) -> dict[str, Span]:
    return {one.name: one for one in spans}


def exemplars(text: str) -> dict[tuple[str, str], str]:
    """By sample and lane: the trace. `text` must be valid OpenMetrics."""
    return {
        (sample.name, sample.labels["lane"]): sample.exemplar.labels["trace_id"]
        for family in text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
        for sample in family.samples
        if sample.exemplar
    }


def lies_within(inner: Span, outer: Span) -> bool:
    return outer.start_s - SLACK_S <= inner.start_s <= inner.end_s <= outer.end_s + SLACK_S


async def test_a_code_is_a_trace_under_the_apps_span(tmp_path: Path) -> None:
    async with (
        Collector() as collector,
        Upstream() as esp,
        traced(write_config(tmp_path, {"fast": esp}), collector, OTEL_RESOURCE_ATTRIBUTES="team=mail") as relay,
    ):
        await submit(relay, field=f"traceparent: 00-{'a' * 32}-{PARENT}-00\r\n")
        message_id = await submit(relay)
        spans = await collector.trace(TRACE, "relay.message", "send fast", "data", "store", "wait")
        shown = await time_line(relay, message_id, "sent")
        assert await relay.terminate() == 0
    assert {one.trace_id for one in collector.spans} == {TRACE}  # an app that doesn't record its trace decides so
    assert collector.resources[0].items() >= {"service.name": "otp-relay", "team": "mail"}.items()
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
    assert "level=warning" not in relay.stderr
    assert "level=error" not in relay.stderr
    assert abs((root.end_s - named["receive"].end_s) * 1000 - shown["timings_ms"]["total"]) < 50


async def test_bulk_mail_without_a_trace_gets_one_from_its_worker_with_each_attempt(tmp_path: Path) -> None:
    lanes = {"bulk": {"upstreams": ["first"], "retry": ["100ms"], "expires": "2d"}}
    async with Collector() as collector, Upstream(script={"dot": ["451 4.3.0 later", "451 4.3.0 later"]}) as refusing:
        config = write_config(tmp_path, {"first": refusing}, lanes=lanes, rules=[], workers=1)
        async with traced(config, collector) as relay:
            await until_logged(relay, "event=worker_ready")
            message_id = await submit(relay, sender="news@example.com", field="")
            spans = await collector.trace(trace_of(message_id, None), "relay.message", "wait")
            text = (await get(relay, "/metrics", headers=OPEN_METRICS)).body
    (root,) = (one for one in spans if one.name == "relay.message")
    attempts = [one for one in spans if one.name == "send first"]
    assert (root.parent_id, root.attributes["relay.lane"]) == ("", "bulk")
    assert [one.name for one in root.events] == ["deferred", "deferred", "sent"]
    assert [one.attributes["relay.reply.code"] for one in attempts] == [451, 451, 250]
    assert [one.is_error for one in attempts] == [True, True, False]
    assert attempts[0].attributes["relay.reply.enhanced_code"] == "4.3.0"
    assert attempts[0].attributes["error.type"] == "451"
    assert 0 < root.events[0].attributes["relay.retry_in_s"] < 1
    assert all(lies_within(one, root) for one in attempts)
    assert not root.is_error
    assert exemplars(text) == {("relay_delivery_seconds_bucket", "bulk"): root.trace_id}


async def test_what_an_esp_reports_later_is_in_the_trace_and_histograms_point_to_it(tmp_path: Path) -> None:
    webhook = {"kind": "postmark", "secret": "hook:s3cret"}
    async with Collector() as collector, Upstream() as esp:
        config = write_config(tmp_path, {"postmark": upstream_keys(esp, webhook=webhook)})
        async with traced(config, collector) as relay:
            message_id = await submit(relay)
            await collector.trace(TRACE, "relay.message")
            event = {"RecordType": "Delivery", "MessageID": "1", "Metadata": {"relay-id": message_id}}
            await _post(relay, {**event, "Recipient": "ann@example.org"})
            spans = await collector.trace(TRACE, "relay.event")
            (later,) = (one for one in spans if one.name == "relay.event")
            own = TRACE, root_span_of(message_id)
            assert (later.parent_id, later.links) == (own[1], (own,))
            assert later.attributes == {
                "relay.event": "delivered",
                "relay.event.source": "esp",
                "relay.lane": "otp",
                "messaging.destination.name": "postmark",
                "messaging.message.id": message_id,
            }

            async def observed() -> bool:
                return (await metrics(relay)).value("relay_inbox_seconds_count", lane="otp", provider="other") == 1

            await until(observed)
            text = (await get(relay, "/metrics", headers=OPEN_METRICS)).body
            plain = (await get(relay, "/metrics")).body
    assert exemplars(text) == {
        ("relay_delivery_seconds_bucket", "otp"): TRACE,
        ("relay_inbox_seconds_bucket", "otp"): TRACE,
    }
    assert "process_cpu_seconds_total" in text
    assert TRACE not in plain


async def _post(relay: RelayProcess, event: object) -> None:
    url, proof = f"http://{relay.http_address}/webhooks/postmark", base64.b64encode(b"hook:s3cret").decode()
    headers = {"Authorization": f"Basic {proof}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.post(url, json=event) as answer:
        assert answer.status == 200


async def test_no_address_no_subject_and_no_code_leaves_the_relay_with_a_trace(tmp_path: Path) -> None:
    said = f"550 5.1.1 <ann@example.org>: no such user, code {CODE}"
    async with (
        Collector() as collector,
        Upstream(script={"rcpt": {"ann@*": said}, "dot": [f"250 2.0.0 queued for bob@example.net {CODE}"]}) as esp,
        traced(write_config(tmp_path, {"esp": esp}), collector) as relay,
    ):
        message_id = await submit(relay, "ann@example.org", "bob@example.net")
        await collector.trace(TRACE, "relay.message")
        await collector.until(lambda: any(one.attributes.get("relay.origin") == "dsn" for one in collector.spans))
        log = relay.stderr
    (root,) = (one for one in collector.spans if one.name == "relay.message" and one.trace_id == TRACE)
    assert root.attributes["relay.state"] == "mixed"
    assert {one.name: one.attributes.get("relay.reply.code") for one in root.events} == {"sent": 250, "bounced": 550}
    (dsn,) = (one for one in collector.spans if one.attributes.get("relay.origin") == "dsn")
    assert dsn.links == ((TRACE, root_span_of(message_id)),)
    exported = b"".join(collector.bodies)
    assert message_id.encode() in exported
    for secret in (CODE, "ann", "bob", "example.org", "example.net", "login", "Code ", "no such user", "127.0.0.1"):
        assert secret.encode() not in exported, secret
    assert CODE not in log


@pytest.mark.fresh
@pytest.mark.parametrize(
    ("first", "endpoint", "warned"),
    [("", False, False), ("", True, False), (BLOCKED, True, True)],
    ids=["off", "on", "asked for without the extra"],
)
async def test_the_relay_itself_never_imports_the_library(
    tmp_path: Path, first: str, endpoint: bool, warned: bool
) -> None:
    program = (sys.executable, "-c", PROGRAM.format(first=first))
    async with Collector() as collector, Upstream() as esp:
        config = write_config(tmp_path, {"esp": esp}, shutdown="1s")
        environment = collector.environment if endpoint else {}
        async with RelayProcess(config, environment, program=program) as relay:
            await time_line(relay, await submit(relay), "sent")
            assert await relay.terminate() == 0
    (line,) = (line for line in relay.stderr.splitlines() if line.startswith("imported "))
    assert line == f"imported {['opentelemetry'] if first else []}"
    assert ("event=no_traces" in relay.stderr) is warned
    assert bool(collector.spans) is (endpoint and not warned)


@pytest.mark.parametrize("trouble", ["hangs", "is gone"])
async def test_a_collector_in_trouble_holds_up_no_mail_and_no_end(tmp_path: Path, trouble: str) -> None:
    collector = Collector(hangs=True)
    async with collector, Upstream() as esp:
        config = write_config(tmp_path, {"esp": esp}, shutdown="1s")
        if trouble == "is gone":
            collector.url = "http://127.0.0.1:9"
        async with traced(config, collector, OTEL_EXPORTER_OTLP_TIMEOUT="1") as relay:
            ids = [await submit(relay) for _ in range(10)]
            await collector.until(lambda: len(collector.bodies) > 0 or trouble == "is gone")
            ids.append(await submit(relay))
            for message_id in ids:
                await time_line(relay, message_id, "sent")

            async def failed() -> bool:
                return (await metrics(relay)).value("relay_trace_spans_total", result="failed") > 0

            await until(failed)
            assert await relay.terminate(within_s=10.0) == 0
    assert len(esp.messages) == 11
    assert relay.stderr.count("event=trace_export_failed") == 1
    assert collector.url not in relay.stderr


async def test_a_tracing_process_that_dies_is_started_again(tmp_path: Path) -> None:
    async with (
        Collector() as collector,
        Upstream() as esp,
        traced(write_config(tmp_path, {"esp": esp}), collector) as relay,
    ):
        await submit(relay)
        await collector.trace(TRACE, "relay.message")
        (tracing,) = (pid for pid in children(relay.pid) if Path(f"/proc/{pid}/comm").read_text() == "tracing\n")
        os.kill(tracing, signal.SIGKILL)
        await until_logged(relay, "task=tracing")
        message_id = await submit(relay, field="")
        await collector.trace(trace_of(message_id, None), "send esp")


async def test_a_message_that_waits_when_the_relay_ends_has_its_span_and_later_attempts_its_trace(
    tmp_path: Path,
) -> None:
    lanes = {"otp": {"upstreams": ["esp"], "retry": ["2s"], "expires": "10m"}}
    async with Collector() as collector, Upstream(script={"dot": ["451 4.3.0 later"]}) as esp:
        config = write_config(tmp_path, {"esp": esp}, lanes=lanes, rules=[], default_lane="otp")
        async with traced(config, collector) as relay:
            message_id = await submit(relay)
            await time_line(relay, message_id, "deferred")
            assert await relay.terminate() == 0
        (root,) = (one for one in collector.spans if one.name == "relay.message")
        assert (root.attributes["relay.state"], root.is_error) == ("waiting", True)
        assert [one.name for one in root.events] == ["deferred"]
        before = len(collector.spans)
        async with traced(config, collector):
            await collector.until(lambda: any(one.name == "relay.event" for one in collector.spans))
    later = by_name(collector.spans[before:])
    assert "relay.message" not in later
    assert later["relay.event"].attributes["relay.event"] == "sent"
    for name in ("send esp", "relay.event"):
        assert (later[name].trace_id, later[name].parent_id) == (TRACE, root.span_id)
