from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from relay.logfmt import logfmt
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent

Event = Callable[[MailLog], None]

EVENTS: list[tuple[Event, str]] = [
    (lambda log: log.rejected("size"), "event=rejected reason=size"),
    (
        lambda log: log.accepted("01J", "otp", "auth", recipients=2, size_bytes=812, timings_ms={"store": 0.4}),
        "event=accepted id=01J lane=otp rule=auth recipients=2 size=812",
    ),
    (
        lambda log: log.accepted("01J", "bulk", None, recipients=1, size_bytes=5, timings_ms={}),
        "event=accepted id=01J lane=bulk recipients=1 size=5",
    ),
    (
        lambda log: log.unsigned("01J", "otp", "no From header"),
        'event=unsigned id=01J lane=otp reason="no From header"',
    ),
    (
        lambda log: log.attempted("01J", "otp", "ses", "deferred", code=451, timings_ms={"envelope": 20.1}),
        "event=attempted id=01J lane=otp upstream=ses outcome=deferred recipients=1 code=451",
    ),
    (
        lambda log: log.sent("01J", "otp", "ses", total_s=0.0433),
        "event=sent id=01J lane=otp upstream=ses recipients=1 total_ms=43.3",
    ),
    (
        lambda log: log.deferred("01J", "otp", code=451, retry_in_s=0.2),
        "event=deferred id=01J lane=otp recipients=1 code=451 retry_in_ms=200.0",
    ),
    (
        lambda log: log.ambiguous("01J", "otp", "ses"),
        "event=ambiguous id=01J lane=otp upstream=ses recipients=1",
    ),
    (lambda log: log.bounced("01J", "otp", code=550), "event=bounced id=01J lane=otp recipients=1 code=550"),
    (lambda log: log.expired("01J", "otp"), "event=expired id=01J lane=otp recipients=1"),
    (
        lambda log: log.superseded("01J", "otp", by="01K"),
        "event=superseded id=01J lane=otp by=01K recipients=1",
    ),
    (
        lambda log: log.down("otp", "ses", "554 5.7.1 <no-reply@auth.example> not verified"),
        'event=upstream_down lane=otp upstream=ses reason="554 5.7.1 <<address>> not verified"',
    ),
    (lambda log: log.up("otp", "ses"), "event=upstream_up lane=otp upstream=ses"),
    (
        lambda log: log.on_demand("otp", "ses", 0.2504),
        "event=sessions_on_demand lane=otp upstream=ses closed_after=250ms",
    ),
    (
        lambda log: log.one_at_a_time("otp", "ses", "slow"),
        "event=one_message_at_a_time lane=otp upstream=ses reason=slow",
    ),
    (
        lambda log: log.trouble("put", OSError("no space for a@b.example")),
        'event=trouble where=put error=OSError reason="no space for <address>"',
    ),
    (lambda log: log.reloaded(success=False), "event=reloaded success=false"),
]


@pytest.fixture
def log() -> MailLog:
    return MailLog(Metrics(), Recent(), clock=lambda: 50.0)


@pytest.mark.parametrize(("event", "line"), EVENTS, ids=[line.split()[0] for _, line in EVENTS])
def test_an_event_writes_one_line(log: MailLog, event: Event, line: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, "relay.mail"):
        event(log)
    assert [record.getMessage() for record in caplog.records] == [line]


def test_the_events_of_a_message_move_the_metrics_of_the_contract(log: MailLog) -> None:
    log.accepted("01J", "otp", None, recipients=3, size_bytes=1, timings_ms={"store": 400.0})
    log.attempted("01J", "otp", "ses", "sent", recipients=2, code=250, timings_ms={"data": 20.0})
    log.sent("01J", "otp", "ses", recipients=2, total_s=0.5)
    log.attempted("01J", "otp", "ses", "refused", code=550, timings_ms={})
    log.bounced("01J", "otp")
    log.expired("01K", "otp")
    log.superseded("01L", "otp")
    log.reply("ses", 250)
    registry = log.metrics.registry

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, labels)

    assert value("relay_messages_accepted_total", lane="otp", rule="default") == 1
    assert value("relay_recipients_total", lane="otp", upstream="ses", outcome="sent") == 2
    assert value("relay_recipients_total", lane="otp", upstream="ses", outcome="refused") == 1
    assert value("relay_recipients_total", lane="otp", upstream="none", outcome="expired") == 1
    assert value("relay_recipients_total", lane="otp", upstream="none", outcome="superseded") == 1
    assert value("relay_delivery_seconds_count", lane="otp", upstream="ses") == 2
    assert value("relay_delivery_seconds_sum", lane="otp", upstream="ses") == 1.0
    assert value("relay_phase_seconds_sum", lane="otp", phase="store") == pytest.approx(0.4)
    assert value("relay_phase_seconds_count", lane="otp", phase="data") == 1
    assert value("relay_upstream_replies_total", upstream="ses", code="250") == 1
    pace = log.recent.pace("otp", since=0)
    assert (pace.sent, pace.failed) == (2, 2)


def test_the_line_about_a_reload_agrees_with_the_metric(log: MailLog, caplog: pytest.LogCaptureFixture) -> None:
    def seen() -> tuple[str, str, float | None]:
        record = caplog.records[-1]
        return (
            record.levelname,
            record.getMessage(),
            log.metrics.registry.get_sample_value("relay_config_reload_success"),
        )

    with caplog.at_level(logging.INFO, "relay.mail"):
        log.reloaded(success=False)
        assert seen() == ("ERROR", "event=reloaded success=false", 0)
        log.reloaded(success=True, ignored=("store", "http"))
        assert seen() == ("WARNING", "event=reloaded success=false ignored=store,http", 0)
        log.reloaded(success=True)
        assert seen() == ("INFO", "event=reloaded success=true", 1)


def test_a_quiet_logger_still_moves_the_metrics(log: MailLog, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR, "relay.mail"):
        log.rejected("size")
    assert not caplog.records
    assert log.metrics.registry.get_sample_value("relay_messages_rejected_total", {"reason": "size"}) == 1


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain", "plain"),
        ("", '""'),
        ("two words", '"two words"'),
        ('a"b', '"a\\"b"'),
        ("a\r\nevent=forged", '"a\\r\\nevent=forged"'),
        ("\x1b[31m", '"\\u001b[31m"'),
        ("ü", '"\\u00fc"'),
        (1.26, "1.3"),
        (7, "7"),
        ("x" * 5000, "x" * 200),
    ],
)
def test_a_value_stays_on_its_line_and_in_its_field(value: object, written: str) -> None:
    assert str(logfmt("e", key=value, left_out=None)) == f"event=e key={written}"
