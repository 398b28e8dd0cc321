"""The parts of tracing by themselves: what is asked for, ids and samplers, the way of records, spans of records."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import time
from collections.abc import Mapping
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, TraceIdRatioBased
from opentelemetry.trace import StatusCode, format_span_id, format_trace_id

from relay.config.model import Listener
from relay.delivery.traces import trace_own
from relay.intake.traces import trace_accepted
from relay.intake.types import Submission
from relay.mail.envelope import Envelope
from relay.observe import tracing
from relay.observe.trace_ids import Sampling, root_span_of, trace_of
from relay.observe.tracing import MOST_WAITING, Head, Tracing
from relay.service.tracing import Answer
from relay.store.ulid import IdMaker
from relay.tracing import messages, spans
from relay.tracing.export import REPEATED_AFTER_S, Counted, Way
from relay.tracing.spans import ATTRIBUTES, OPEN_FOR_S, Spans
from tests.store.build import CONTENT, message

ID = "01M81FM43AB5F5JTQCGDF8GVFM"
TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FIELD = f"00-{TRACE}-{PARENT}-01"
NOW = 1_800_000_000.0
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}


@pytest.mark.parametrize(
    ("environ", "is_on", "word"),
    [
        ({}, False, None),
        ({"OTEL_SERVICE_NAME": "codes", "OTEL_METRICS_EXPORTER": "otlp"}, False, None),
        (ENDPOINT, True, None),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True, None),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, False, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": ""}, True, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, False, None),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "false"}, True, None),
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, False, "zipkin"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, False, "grpc"),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}, True, None),
    ],
)
def test_the_standard_variables_switch_tracing_on_and_off(
    environ: Mapping[str, str], is_on: bool, word: str | None
) -> None:
    found = Answer.of(environ)
    assert found.is_on is is_on
    assert (found.warning is not None and word in found.warning) if word else found.warning is None


def test_a_trace_is_the_apps_or_the_number_that_its_id_is() -> None:
    assert trace_of(ID, FIELD) == TRACE
    known = int.from_bytes(bytes(range(1, 17)), "big")
    made = IdMaker().new_id((known >> 80) / 1000, known.to_bytes(16, "big")[6:])
    assert trace_of(made, None) == f"{known:032x}"
    assert len({trace_of(one, None) for one in (ID, made, "", "x" * 26, "0" * 26, "not-of-this-relay")}) == 6
    assert len({root_span_of(ID), root_span_of(made)}) == 2


def test_a_share_of_traces_is_the_one_that_the_sdk_records() -> None:
    sampling = Sampling.of({"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.3"})
    sdk, ids = TraceIdRatioBased(0.3), IdMaker()
    some = [ids.new_id(NOW + number, os.urandom(10)) for number in range(500)]
    theirs = [sdk.should_sample(None, int(trace_of(one, None), 16), "").decision is not Decision.DROP for one in some]
    assert [sampling.records(one, None) for one in some] == theirs
    assert 50 < sum(theirs) < 300


@pytest.mark.parametrize(
    ("sampler", "of_nothing", "of_sampled", "of_unsampled"),
    [
        ("", True, True, False),
        ("parentbased_always_on", True, True, False),
        ("parentbased_always_off", False, True, False),
        ("parentbased_traceidratio", True, True, False),
        ("always_on", True, True, True),
        ("ALWAYS_OFF", False, False, False),
        ("of-another-package", True, True, True),
    ],
)
def test_a_sampler_decides_with_the_app_or_alone(
    sampler: str, of_nothing: bool, of_sampled: bool, of_unsampled: bool
) -> None:
    sampling = Sampling.of({"OTEL_TRACES_SAMPLER": sampler})
    parents = (None, FIELD, f"{FIELD[:-2]}00")
    assert [sampling.records(ID, one) for one in parents] == [of_nothing, of_sampled, of_unsampled]


# the way of records


async def test_records_come_in_order_and_those_without_room_are_counted() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    way, head = Tracing(ours, Sampling()), Head(ID, FIELD, NOW, 1)
    for number in range(MOST_WAITING + 3):
        way.note(head, [tracing.event("sent", NOW + number, {"relay.lane": "x" * 50})])
    await asyncio.sleep(tracing.SEND_AFTER_S * 3)  # nothing is read: the socket is full by now
    theirs.setblocking(False)
    seen: list[float] = []
    dropped = 0
    async with asyncio.timeout(20):
        while len(seen) < MOST_WAITING:
            try:
                lost, records = json.loads(theirs.recv(1 << 20))
            except BlockingIOError:
                await asyncio.sleep(0.01)
                continue
            dropped += lost
            seen += [items[0][2] for _, items in records]
    assert seen == [NOW + number for number in range(MOST_WAITING)]
    assert dropped == 3
    way.close()
    theirs.close()


async def test_what_waits_at_the_end_is_written() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    way = Tracing(ours, Sampling())
    way.note(Head(ID, None, NOW, 1), [tracing.span("wait", NOW, NOW + 1)])
    way.close()
    assert json.loads(theirs.recv(1 << 20)) == [0, [[[ID, None, NOW, 1], [["span", "wait", NOW, NOW + 1]]]]]
    assert theirs.recv(1) == b""
    await asyncio.sleep(tracing.SEND_AFTER_S * 2)  # the timer that was set finds nothing to do
    theirs.close()


async def test_a_socket_that_nothing_reads_any_more_costs_the_records_only() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.close()
    way = Tracing(ours, Sampling())
    way.note(Head(ID, None, NOW, 1), [tracing.span("wait", NOW, NOW + 1)])
    way.close()


@pytest.mark.parametrize("packet", [b"", b"{", b"[]", b'{"exported": "x"}', b'{"other": 1}', b'{"failed": -1}'])
def test_counts_that_are_not_well_formed_count_nothing(packet: bytes) -> None:
    assert messages.read_counts(packet) == {}


# spans of records


class Room:
    """Spans as they are exported, from records as JSON has them."""

    def __init__(self, since: float = NOW - 1) -> None:
        self.exporter = InMemorySpanExporter()
        self.way = Way(self.exporter)
        self.spans = Spans(self.way, since)

    def add(self, *items: list[Any], head: Head | None = None, now: float = 0.0) -> None:
        self.spans.add(json.loads(json.dumps([head or Head(ID, FIELD, NOW, 1), list(items)])), now)

    def exported(self) -> dict[str, ReadableSpan]:
        self.way.finish(5.0)
        return {one.name: one for one in self.exporter.get_finished_spans()}


def test_a_workers_outcome_may_come_before_intakes_record() -> None:
    room = Room()
    room.add(tracing.event("sent", NOW + 2, {}, ended=1))
    room.add(tracing.root(NOW - 0.5, {"relay.lane": "bulk"}), tracing.span("receive", NOW - 0.5, NOW))
    root = room.exported()["relay.message"]
    assert (root.start_time, root.end_time) == ((NOW - 0.5) * 1e9, (NOW + 2) * 1e9)
    assert [one.name for one in root.events] == ["sent"]
    assert root.attributes is not None
    assert root.attributes["relay.state"] == "sent"


def test_a_messages_span_waits_for_all_its_recipients() -> None:
    room = Room()
    head = Head(ID, FIELD, NOW, 3)
    room.add(tracing.root(NOW, {}), head=head)
    room.add(tracing.event("sent", NOW + 1, {}, ended=2), tracing.event("deferred", NOW + 1, {}), head=head)
    assert room.way.made == 0
    room.add(tracing.event("expired", NOW + 9, {}, ended=1), head=Head(ID, None, 0.0, 0))  # the store's own
    root = room.exported()["relay.message"]
    assert [one.name for one in root.events] == ["sent", "deferred", "expired"]
    assert root.attributes is not None
    assert root.attributes["relay.state"] == "mixed"
    assert root.status.status_code is StatusCode.ERROR


def test_what_comes_after_its_span_is_a_span_of_its_own() -> None:
    room = Room()
    room.add(tracing.root(NOW, {}), tracing.event("sent", NOW + 1, {}, ended=1))
    room.add(tracing.event("delivered", NOW + 3, {"relay.event.source": "esp"}), head=Head(ID, FIELD, NOW, 0))
    room.add(tracing.event("expired", NOW + 4, {}, ended=1), head=Head(ID, None, 0.0, 0))  # of an unknown trace
    found = room.exported()
    later = found["relay.event"]
    assert set(found) == {"relay.message", "relay.event"}
    assert later.attributes is not None
    assert later.attributes["relay.event"] == "delivered"
    assert later.context is not None
    assert format_trace_id(later.context.trace_id) == TRACE


def test_mail_of_an_earlier_relay_gets_no_second_span() -> None:
    room = Room(since=NOW + 1)
    room.add(tracing.event("sent", NOW + 2, {}, ended=1))
    room.spans.finish()
    assert set(room.exported()) == {"relay.event"}


def test_a_messages_span_does_not_wait_for_ever() -> None:
    room = Room()
    room.add(tracing.root(NOW, {}), now=5.0)
    room.spans.forget(5.0 + OPEN_FOR_S - 1)
    assert room.way.made == 0
    room.spans.forget(5.0 + OPEN_FOR_S)
    root = room.exported()["relay.message"]
    assert root.attributes is not None
    assert root.attributes["relay.state"] == "waiting"


def test_too_many_messages_under_way_take_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "MOST_OPEN", 50)
    room = Room()
    for number in range(57):
        room.add(tracing.root(NOW, {}), head=Head(f"{number}", None, NOW, 1))
    room.spans.forget(0.0)
    assert room.way.made == 7


def test_a_record_says_nothing_that_isnt_listed() -> None:
    room = Room()
    junk: dict[str, Any] = {
        "subject": "Your code is 493871",
        "relay.lane": 7,
        "relay.recipients": "ann@example.org",
        "relay.rule": "r",
    }
    room.add(tracing.root(NOW, junk), tracing.event("sent", NOW, junk, ended=1))
    root = room.exported()["relay.message"]
    assert root.attributes is not None
    assert set(root.attributes) - set(ATTRIBUTES) == {
        "messaging.system",
        "messaging.operation.name",
        "messaging.message.id",
        "relay.state",
    }
    assert dict(root.events[0].attributes or {}) == {"relay.rule": "r"}


@pytest.mark.parametrize(
    "record",
    [
        None,
        [],
        [[ID, FIELD, NOW, 1]],
        [[ID, FIELD, "now", 1], []],
        [["x" * 65, FIELD, NOW, 1], []],
        [[ID, FIELD, NOW, 1], [["other"]]],
        [[ID, FIELD, NOW, 1], [["span", "wait", -1, 2]]],
        [[ID, FIELD, NOW, 1], [["span", "wait", 1e30, 2]]],
        [[ID, FIELD, NOW, 1], [["attempt", "esp", NOW, [["data", "x"]], {}, False]]],
        [[ID, FIELD, NOW, 1], [["event", "sent", NOW, None, 1]]],
        [[ID, FIELD, NOW, 1], [["root", NOW, {}, ["one"]]]],
    ],
)
def test_a_record_that_is_not_well_formed_is_refused(record: Any) -> None:
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        Room().spans.add(record, 0.0)


def test_a_traceparent_in_a_record_is_read_as_one_of_an_app() -> None:
    room = Room()
    room.add(tracing.root(NOW, {}), tracing.event("sent", NOW, {}, ended=1), head=Head(ID, "00-junk", NOW, 1))
    context = room.exported()["relay.message"].context
    assert context is not None
    assert format_trace_id(context.trace_id) == trace_of(ID, None)


# what intake and delivery note


async def noted(way: Tracing, reading: socket.socket) -> list[Any]:
    way.close()
    return [record for _, records in [json.loads(reading.recv(1 << 20))] for record in records]


async def test_the_parts_of_a_message_are_messages_with_a_link_to_its_entry() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    way = Tracing(ours, Sampling())
    entry, other = message(trace=FIELD), message("b@example.org", "c@example.org", trace=FIELD, lane="bulk")
    began = time.monotonic()
    submission = Submission(
        Envelope("a@example.com", ()), CONTENT, "127.0.0.1", "app", "ESMTP", cast(Listener, None), 0.25, began, None
    )
    trace_accepted(way, submission, entry, (other,), began)
    room = Room()
    for record in await noted(way, theirs):
        room.spans.add(record, 0.0)
    room.spans.finish()
    room.way.finish(5.0)
    spans = room.exporter.get_finished_spans()
    first, second = (one for one in spans if one.name == "relay.message")
    assert {one.name for one in spans} == {"relay.message", "receive", "classify", "accept"}
    assert first.attributes is not None
    assert second.attributes is not None
    assert (first.attributes["relay.parts"], second.attributes["relay.recipients"]) == (2, 2)
    assert (first.attributes["relay.lane"], second.attributes["relay.lane"]) == ("otp", "bulk")
    assert first.links == ()
    assert [format_span_id(one.context.span_id) for one in second.links] == [root_span_of(entry.id)]
    theirs.close()


async def test_what_isnt_recorded_is_not_even_noted() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    way = Tracing(ours, Sampling(0.0))
    trace_own(way, message(), "copy", ID, None)
    trace_own(way, message(trace=f"{FIELD[:-2]}00"), "copy", ID, None)
    trace_own(way, message(trace=FIELD), "copy", ID, None)
    (record,) = await noted(way, theirs)
    assert record[0][1] == FIELD
    theirs.close()


# the way out


class Failing(SpanExporter):
    result: SpanExportResult | None = None

    def export(self, spans: Any) -> SpanExportResult:
        if self.result is None:
            raise ConnectionError("https://user:s3cret@collector")
        return self.result


def test_failures_are_counted_and_logged_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    now, failing = 0.0, Failing()
    counted = Counted(failing, lambda: now)
    some: Any = ["one", "two"]
    for seconds in (0.0, 1.0, REPEATED_AFTER_S - 1, REPEATED_AFTER_S):
        now = seconds
        assert counted.export(some) is SpanExportResult.FAILURE
    failing.result = SpanExportResult.SUCCESS
    counted.export(some)
    assert [record.message for record in caplog.records] == [
        "event=trace_export_failed spans=2",
        "event=trace_export_failed spans=6",
        "event=trace_export_works",
    ]
    assert counted.take() == (2, 8)
    assert counted.take() == (0, 0)
    assert counted.done == 10


def test_the_way_is_full_before_the_sdk_drops_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "8")
    monkeypatch.setenv("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "4")
    way = Way(Failing())

    def is_full(made: int, done: int) -> bool:
        way.made, way.counted.done = made, done
        return way.is_full

    assert [is_full(0, 0), is_full(4, 0), is_full(4, 1), is_full(9, 5)] == [False, True, False, True]
