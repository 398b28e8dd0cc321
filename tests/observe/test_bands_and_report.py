from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.observe.bands import BANDS, Band, band, tally
from relay.observe.quantiles import percentile, percentile_of
from relay.observe.recent import NEVER_S, Recent
from relay.observe.report import build


@dataclass(frozen=True)
class Row:
    lane: str
    upstream: str | None
    provider: str
    state: str
    total_ms: float | None
    recipients: int = 1
    slow_receive: bool = False
    resent: bool = False
    in_time: bool | None = None


@dataclass(frozen=True)
class Event:
    lane: str
    upstream: str
    provider: str
    kind: str
    after_ms: float | None = None
    recipients: int = 1


@dataclass(frozen=True)
class Wanted:
    within_s: float = 10.0
    share: float = 0.99


@pytest.mark.parametrize(
    ("duration_s", "expected"),
    [
        (0.0, "excellent"),
        (9.999, "excellent"),
        (10.0, "good"),
        (29.999, "good"),
        (30.0, "acceptable"),
        (60.0, "poor"),
        (119.999, "poor"),
        (120.0, "failed"),
        (86400.0, "failed"),
    ],
)
def test_a_band_ends_just_below_its_edge(duration_s: float, expected: Band) -> None:
    assert band(duration_s) == expected


@given(st.lists(st.floats(min_value=0, max_value=1e6)))
def test_a_tally_names_every_band_and_counts_each_duration_once(durations_s: list[float]) -> None:
    counts = tally(durations_s)
    assert tuple(counts) == BANDS
    assert sum(counts.values()) == len(durations_s)


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7.0], 1, 7.0),
        ([7.0], 99, 7.0),
        ([1.0, 2.0, 3.0, 4.0], 50, 2.0),
        ([1.0, 2.0, 3.0, 4.0], 51, 3.0),
        ([float(n) for n in range(1, 101)], 95, 95.0),
        ([float(n) for n in range(1, 101)], 99, 99.0),
    ],
)
def test_a_percentile_is_a_measured_value(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(0, 1e9), min_size=1), st.floats(0.1, 100))
def test_at_least_that_share_does_not_exceed_a_percentile(values: list[float], percent: float) -> None:
    found = percentile(sorted(values), percent)
    assert found is not None
    assert sum(value <= found for value in values) >= len(values) * percent / 100 - 1e-9


def test_the_report_groups_by_lane_upstream_and_provider_and_totals_each_lane() -> None:
    report = build(
        [
            Row("otp", "postmark", "gmail.com", "sent", 40.0),
            Row("otp", "postmark", "gmail.com", "sent", 20_000.0),
            Row("otp", "ses", "gmail.com", "sent", 60.0),
            Row("otp", None, "gmail.com", "expired", None),
            Row("bulk", "ses", "gmx.de", "bounced", None),
        ]
    )
    assert [line.lane for line in report.lanes] == ["bulk", "otp"]
    otp = report.lanes[1].figures
    assert (otp.recipients, otp.states) == (4, {"expired": 1, "sent": 3})
    assert (otp.p50_ms, otp.p95_ms) == (60.0, 20_000.0)
    assert otp.bands == {"excellent": 2, "good": 1, "acceptable": 0, "poor": 0, "failed": 1}
    assert [(line.lane, line.upstream, line.provider, line.figures.recipients) for line in report.lines] == [
        ("bulk", "ses", "gmx.de", 1),
        ("otp", "postmark", "gmail.com", 2),
        ("otp", None, "gmail.com", 1),
        ("otp", "ses", "gmail.com", 1),
    ]
    assert report.lanes[0].figures.p50_ms is None


@given(st.dictionaries(st.floats(0, 1e9), st.integers(1, 5)), st.floats(0.1, 100))
def test_a_percentile_of_counted_values_is_that_of_all_of_them(counted: dict[float, int], percent: float) -> None:
    every = sorted(value for value, times in counted.items() for _ in range(times))
    assert percentile_of(sorted(counted.items()), percent) == percentile(every, percent)


def test_rows_that_stand_for_many_recipients_count_as_many() -> None:
    rows = [Row("otp", "a", "x", "sent", 40.0, 98), Row("otp", "a", "x", "sent", 12_000.0, 2)]
    (lane,) = build([*rows, Row("otp", "a", "x", "bounced", None, 3)]).lanes
    assert (lane.figures.recipients, lane.figures.states) == (103, {"bounced": 3, "sent": 100})
    assert (lane.figures.p95_ms, lane.figures.p99_ms) == (40.0, 12_000.0)
    assert (lane.figures.bands["excellent"], lane.figures.bands["good"]) == (98, 2)


def test_the_report_counts_recipients_whose_message_the_app_handed_over_slowly() -> None:
    rows = [Row("otp", "a", "x", "sent", 40.0, 5), Row("otp", "a", "x", "sent", 40.0, 3, slow_receive=True)]
    built = build([*rows, Row("otp", "b", "x", "expired", None, slow_receive=True)])
    assert [line.figures.slow_receive for line in built.lanes] == [4]
    assert [line.figures.slow_receive for line in built.lines] == [3, 1]


def test_the_report_says_when_mail_reached_the_mailbox_by_the_delivered_events() -> None:
    rows = [Row("otp", "a", "gmail", "sent", 40.0, 3), Row("otp", "a", "gmx", "sent", 40.0)]
    events = [
        Event("otp", "a", "gmail", "delivered", 2_000.0, 2),
        Event("otp", "a", "gmail", "delivered", 31_000.0),
        Event("otp", "a", "gmail", "opened", None, 3),
    ]
    built = build(rows, events)
    (lane,), (gmail, gmx) = built.lanes, built.lines
    assert lane.figures.inbox == gmail.figures.inbox
    inbox = gmail.figures.inbox
    assert (inbox.delivered, inbox.p50_ms, inbox.p95_ms, inbox.p99_ms) == (3, 2_000.0, 31_000.0, 31_000.0)
    assert inbox.bands == {**tally(()), "excellent": 2, "acceptable": 1}
    assert gmail.figures.reported == {"delivered": 3, "opened": 3}
    assert (gmail.figures.p95_ms, gmx.figures.inbox.delivered, gmx.figures.inbox.p50_ms) == (40.0, 0, None)


def test_rates_are_shares_of_the_finished_recipients_and_complaints_of_those_that_were_sent() -> None:
    rows = [
        Row("otp", "a", "x", "sent", 40.0, 13),
        Row("otp", "a", "x", "sent", 40.0, 3, resent=True),
        Row("otp", "a", "x", "bounced", None, 2),
        Row("otp", None, "x", "expired", None),
        Row("otp", None, "x", "superseded", None),
    ]
    (lane,) = build(rows, [Event("otp", "a", "x", "complained", None, 4)]).lanes
    rates = lane.figures.rates
    assert (rates.bounced, rates.expired, rates.superseded, rates.suppressed) == (0.1, 0.05, 0.05, 0.0)
    assert (rates.resent, rates.complained, rates.unsubscribed) == (0.15, 0.25, 0.0)


@pytest.mark.parametrize(
    ("good", "late", "is_met", "share"), [(99, 1, True, 0.99), (98, 2, False, 0.98), (0, 0, None, None)]
)
def test_a_lane_with_an_objective_says_whether_it_is_met(
    good: int, late: int, is_met: bool | None, share: float | None
) -> None:
    rows = [
        Row("otp", "a", "x", "bounced", None),
        *([Row("otp", "a", "x", "sent", 40.0, good, in_time=True)] if good else ()),
        *([Row("otp", "a", "x", "expired", None, late, in_time=False)] if late else ()),
    ]
    text = json.loads(json.dumps(build(rows, (), {"otp": Wanted(), "unused": Wanted()}).as_json()))
    assert len(text["lanes"]) == 1
    assert text["lanes"][0]["objective"] == {
        "within_ms": 10_000.0,
        "wanted_share": 0.99,
        "good": good,
        "total": good + late,
        "share": share,
        "met": is_met,
    }
    assert "objective" not in text["lines"][0]


def test_a_lane_without_an_objective_has_none_in_the_report() -> None:
    (shown,) = build([Row("otp", "a", "x", "sent", 40.0)]).lanes
    assert shown.objective is None


def test_the_report_of_nothing_is_empty_not_an_error() -> None:
    assert build([]).as_json() == {"lanes": [], "lines": []}


def test_a_refused_recipient_has_no_time_even_when_one_was_measured() -> None:
    (lane,) = build([Row("otp", "a", "x", "bounced", 12.0)]).lanes
    assert lane.figures.p50_ms is None
    assert lane.figures.bands == {**tally(()), "failed": 1}


def test_bounced_and_expired_count_as_failed_and_superseded_and_suppressed_do_not() -> None:
    states = ("expired", "bounced", "superseded", "suppressed")
    (lane,) = build([Row("otp", None, "x", state, None, 3) for state in states]).lanes
    assert lane.figures.bands == {**tally(()), "failed": 6}


def test_the_pace_is_of_the_window_and_the_memory_is_bounded() -> None:
    recent = Recent(kept=3)
    for at in range(5):
        recent.note("otp", float(at), at / 10)
    pace = recent.pace("otp", since=3.0)
    assert (pace.sent, pace.p50_ms, pace.max_ms) == (2, 300.0, 400.0)
    assert pace.latest_ms == (300.0, 400.0)
    assert recent.pace("otp", since=0.0).sent == 3
    assert recent.pace("bulk", since=0.0).sent == 0


def test_failed_deliveries_count_in_the_bands_and_have_no_time() -> None:
    recent = Recent()
    for at, total_s in enumerate((1.0, NEVER_S, 200.0, NEVER_S)):
        recent.note("otp", float(at), total_s)
    pace = recent.pace("otp", since=1.0)
    assert (pace.sent, pace.failed, pace.max_ms) == (1, 2, 200_000.0)
    assert pace.bands == {**tally(()), "failed": 3}
    assert pace.latest_ms == (200_000.0,)
