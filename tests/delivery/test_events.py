"""What delivery reports, as log lines and metrics."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from relay.clock import Clock
from relay.delivery.events import DeliveryEvents
from relay.delivery.message import Job
from relay.mail.envelope import Envelope, Recipient
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.objectives import Objective, Objectives
from relay.observe.recent import Recent
from relay.store.model import OpenRecipient, Queued, RecipientUpdate, Settlement
from relay.upstream.attempt import Report
from relay.upstream.gate import Gate
from relay.upstream.results import LOST, Result
from tests.delivery.harness import config, delivering, unsigned
from tests.support.upstream import Close, Upstream

LINES: dict[str, tuple[Any, str, tuple[str, ...], str | None]] = {
    "deferred": ({"rcpt": "452 4.2.2 full"}, "deferred", ("attempted", "deferred"), "452"),
    "bounced": ({"rcpt": "550 5.1.1 no such user"}, "bounced", ("attempted", "bounced"), "550"),
    "connection lost": ({"dot": Close()}, "deferred", ("attempted", "deferred"), None),
}
ACCEPTED, FULL = Reply(250, "2.0.0 ok"), Reply(452, "4.2.2 full")


class Written:
    """DeliveryEvents over a log of its own, and what it wrote."""

    def __init__(self, caplog: pytest.LogCaptureFixture) -> None:
        caplog.set_level(logging.DEBUG, "relay.mail")
        self.metrics = Metrics()
        self.clock = Clock()
        self.log = MailLog(self.metrics, Recent())
        self.events = DeliveryEvents(self.log, self.clock)
        self._caplog = caplog

    @property
    def lines(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records]

    def value(self, name: str, **labels: str) -> float | None:
        return self.metrics.registry.get_sample_value(name, labels)


def job(recipients: int = 1, timings_ms: Mapping[str, float] | None = None) -> Job:
    addresses = tuple(Recipient(f"u{n}@example.net") for n in range(recipients))
    due = tuple(OpenRecipient(position, one) for position, one in enumerate(addresses))
    queued = Queued("01", "otp", None, Envelope("a@example.com", addresses), b"", 0.0, 60.0, due)
    made = Job(queued, Gate(60.0), lambda message, headers: unsigned(message, headers, express=True), 0.0)
    made.timings_ms.update(timings_ms or {})
    return made


def report(*results: Result, codes: tuple[int, ...] = (), timings_ms: Mapping[str, float] | None = None) -> Report:
    return Report("one", 0.0, "warm", results, dict(timings_ms or {}), codes)


@pytest.mark.parametrize("name", LINES)
async def test_a_code_is_what_an_upstream_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    script, state, events, code = LINES[name]
    written = Written(caplog)
    async with (
        Upstream(script=script) as one,
        delivering(tmp_path, config({"one": one}, retry=(20.0,)), events=written.events) as bench,
    ):
        await bench.ended(await bench.send("u@example.net", sender=""), state)  # no bounce of it
    for event in events:
        (line,) = (line for line in written.lines if line.startswith(f"event={event} "))
        assert (f" code={code}" in line) if code else ("code=" not in line)


def test_an_attempt_has_a_line_for_each_outcome_with_its_recipients(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog)
    results = [Result(n, "sent", ACCEPTED, "dot") for n in range(2)]
    written.events.on_attempt("otp", job(3), report(*results, Result(2, "deferred", FULL, "rcpt"), codes=(250, 452)))
    assert written.lines == [
        "event=attempted id=01 lane=otp upstream=one outcome=sent recipients=2 code=250",
        "event=attempted id=01 lane=otp upstream=one outcome=deferred recipients=1 code=452",
    ]
    for outcome, count in (("sent", 2.0), ("deferred", 1.0)):
        assert written.value("relay_recipients_total", lane="otp", upstream="one", outcome=outcome) == count
    for code in ("250", "452"):
        assert written.value("relay_upstream_replies_total", upstream="one", code=code) == 1.0


def test_an_attempt_whose_outcome_is_unknown_has_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog)
    written.events.on_attempt("otp", job(), report(Result(0, "ambiguous", LOST, "dot")))
    assert written.lines == [
        "event=attempted id=01 lane=otp upstream=one outcome=ambiguous recipients=1",
        "event=ambiguous id=01 lane=otp upstream=one recipients=1",
    ]


def test_a_phase_that_took_no_time_is_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog)
    timings_ms = {"connect": 0.0, "envelope": 20.0}
    written.events.on_attempt("otp", job(), report(Result(0, "sent", ACCEPTED, "dot"), timings_ms=timings_ms))
    assert written.value("relay_phase_seconds_sum", lane="otp", phase="envelope") == 0.02
    assert written.value("relay_phase_seconds_count", lane="otp", phase="connect") is None


def test_phases_of_an_attempt_are_counted_with_the_attempt_and_not_again_with_the_message(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = Written(caplog)
    sent = Settlement("01", (RecipientUpdate(0, "sent", upstream="one", reply="250 2.0.0 ok"),))
    written.events.on_settled("otp", job(timings_ms={"wait": 5.0, "envelope": 20.0, "total": 30.0}), sent)
    assert written.lines == ["event=sent id=01 lane=otp upstream=one recipients=1 total_ms=30.0 code=250"]
    assert written.value("relay_delivery_seconds_sum", lane="otp", upstream="one") == 0.03
    assert written.value("relay_phase_seconds_count", lane="otp", phase="wait") == 1.0
    assert written.value("relay_phase_seconds_count", lane="otp", phase="envelope") is None


def test_deferred_recipients_have_a_line_for_each_code_with_their_earliest_retry(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written = Written(caplog)
    now = written.clock.now()
    updates = tuple(
        RecipientUpdate(n, "deferred", reply=reply, next_at=now + wait_s)
        for n, (reply, wait_s) in enumerate([("452 4.2.2 full", 90.0), ("452 4.2.2 full", 59.5), (str(LOST), 29.5)])
    )
    written.events.on_settled("otp", job(3), Settlement("01", updates))
    full, lost = written.lines
    assert full.startswith("event=deferred id=01 lane=otp recipients=2 code=452 retry_in_ms=5")
    assert lost.startswith("event=deferred id=01 lane=otp recipients=1 retry_in_ms=2")


def test_an_end_without_delivery_is_logged_by_its_state_and_held_mail_by_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    written, message = Written(caplog), job(4)
    message.superseded_by = "02"
    updates = (
        RecipientUpdate(0, "bounced", upstream="one", reply="550 5.1.1 no such user"),
        RecipientUpdate(1, "expired", reply="451 4.4.7 otp-relay: expired"),
        RecipientUpdate(2, "superseded", reply="superseded by 02"),
        RecipientUpdate(3, "held"),
    )
    written.events.on_settled("otp", message, Settlement("01", updates))
    assert written.lines == [
        "event=bounced id=01 lane=otp recipients=1 code=550",
        "event=expired id=01 lane=otp recipients=1",
        "event=superseded id=01 lane=otp by=02 recipients=1",
    ]


@pytest.mark.parametrize(
    ("upstream", "state", "total_ms", "counted"),
    [
        ("one", "sent", 10_000.0, (1.0, 1.0)),
        ("one", "sent", 10_001.0, (1.0, 0.0)),
        ("reporting", "sent", 1.0, (0.0, 0.0)),  # its delivered event decides
        (None, "expired", 0.0, (1.0, 0.0)),
        ("one", "bounced", 1.0, (0.0, 0.0)),
        (None, "superseded", 0.0, (0.0, 0.0)),
        (None, "suppressed", 0.0, (0.0, 0.0)),
        (None, "held", 0.0, (0.0, 0.0)),
    ],
)
def test_an_objective_counts_what_was_sent_or_has_expired(
    caplog: pytest.LogCaptureFixture, upstream: str | None, state: Any, total_ms: float, counted: tuple[float, float]
) -> None:
    written = Written(caplog)
    server = {"host": "127.0.0.1", "port": 1, "tls": "none"}
    webhook = {"kind": "postmark", "secret": "user:password"}
    upstreams = {"one": server, "reporting": {**server, "webhook": webhook}}
    configured = config(upstreams, objective={"within": 10.0, "share": 0.99})
    written.log.objectives = Objectives.of(configured)
    written.metrics.begin({}, written.log.objectives)
    settlement = Settlement("01", (RecipientUpdate(0, state, upstream=upstream),))
    for lane in ("otp", "bulk"):
        written.events.on_settled(lane, job(timings_ms={"total": total_ms}), settlement)
    names = ("relay_objective_total", "relay_objective_good_total")
    assert tuple(written.value(name, lane="otp") for name in names) == counted
    assert [written.value(name, lane="bulk") for name in names] == [None, None]


def test_what_expires_in_the_store_misses_the_objective(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog)
    written.log.objectives = Objectives({"otp": Objective(10.0, frozenset())})
    written.events.on_expired("otp", "01", 2)
    assert written.value("relay_objective_total", lane="otp") == 2.0
    assert written.value("relay_objective_good_total", lane="otp") == 0.0


def test_what_ends_in_the_store_is_logged_as_what_ends_in_a_lane(caplog: pytest.LogCaptureFixture) -> None:
    written = Written(caplog)
    written.events.on_superseded("otp", "01", "02")
    written.events.on_expired("otp", "01", 2)
    written.events.on_error("claim", OSError("disk"))
    superseded, expired, trouble = written.lines
    assert superseded == "event=superseded id=01 lane=otp by=02 recipients=1"
    assert expired == "event=expired id=01 lane=otp recipients=2"
    assert trouble.startswith("event=trouble where=claim")
