"""What the feedback process counts, and says, on its way to the main process: which believes none of it."""

from __future__ import annotations

import contextlib
import json
import math
from typing import Any

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from relay.feedback import counts, messages
from relay.feedback.counts import Arrival, Counts
from relay.feedback.settings import ReceiverSettings, Settings, WebhookSettings
from relay.observe.metrics import Metrics

ANY = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**400, -1, "postmark", "otp", "delivered", "accepted", "gmail"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
ROWS = st.lists(st.lists(ANY, max_size=4) | ANY, max_size=3) | ANY
KEYS = ("requests", "events", "posts", "objectives", "tasks", "backlog", "inbox")
REPORTS = ANY | st.fixed_dictionaries(dict.fromkeys(KEYS, ROWS))
EMPTY: dict[str, Any] = {**{key: [] for key in KEYS}, "backlog": None}
SOME = settings(max_examples=50, deadline=None, suppress_health_check=list(HealthCheck))
KNOWN = {
    "upstream": {"postmark", "other"},
    "lane": {"otp", "bulk"},
    "result": {*counts.RESULTS, *counts.POSTS, "other"},
}


def series(metrics: Metrics) -> set[tuple[str, str]]:
    return {
        (name, value)
        for metric in metrics.registry.collect()
        for sample in metric.samples
        if sample.name.startswith(("relay_event", "relay_webhook", "relay_inbox", "relay_objective"))
        for name, value in sample.labels.items()
    }


@SOME
@given(REPORTS)
@example({**EMPTY, "requests": [["postmark", "accepted", 10**400]]})
@example({**EMPTY, "inbox": [["otp", "a" * 100, 1.0, "postmark"], ["otp", [[]], 1.0, []]]})
@example({**EMPTY, "events": [["postmark", {"a": 1}, 1], [[], "delivered", 1]]})
def test_a_malformed_report_makes_no_label_and_raises_what_its_caller_catches(report: Any) -> None:
    metrics = Metrics()
    before = series(metrics)
    with contextlib.suppress(ValueError, TypeError, LookupError):
        counts.add(metrics, report, {"postmark"}, {"otp", "bulk"})
    for name, value in series(metrics) - before:
        if name in KNOWN:
            assert value in KNOWN[name], (name, value)
        elif name in {"kind", "provider"}:
            assert value.isascii()
            assert len(value) < 20


def test_what_is_counted_arrives_once() -> None:
    counted, metrics = Counts(), Metrics()
    counted.requests["postmark", "accepted"] += 2
    counted.events["postmark", "delivered"] += 3
    counted.posts["dead"] += 1
    counted.backlog = 7, 12.5
    counted.objectives["otp", True] += 4
    counted.objectives["otp", False] += 1
    arrived = Arrival("otp", "gmail", 1.5, "postmark")
    for one in (arrived, arrived._replace(upstream="unknown"), arrived._replace(lane="unknown")):
        counted.observe_inbox(one)
    assert counts.add(metrics, json.loads(json.dumps(counted.take())), {"postmark"}, {"otp"}) == [arrived]
    assert counted.take() is None
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for metric in metrics.registry.collect()
        for sample in metric.samples
    }
    assert found["relay_webhook_requests_total", "postmark", "accepted"] == 2
    assert found["relay_events_total", "postmark", "delivered"] == 3
    assert found["relay_event_posts_total", "dead"] == 1
    assert (found["relay_event_posts_waiting",], found["relay_event_posts_oldest_seconds",]) == (7, 12.5)
    assert found["relay_objective_total", "otp"] == 5
    assert found["relay_objective_good_total", "otp"] == 4
    assert found["relay_inbox_seconds_sum", "otp", "gmail"] == 3.0


EFFECT = ["end", "01X", 0, "postmark", 1.0, "otp", None, None, "550 5.1.1 no such user"]


@SOME
@given(st.integers(0, len(EFFECT)), ANY | st.text(st.characters(codec=None), max_size=5))
@example(2, 2**70)
@example(2, -1)
@example(4, math.nan)
@example(4, 10**400)
@example(7, "\ud800@example.net")
@example(8, "x" * 5_000)
def test_an_effect_is_read_as_values_that_a_store_can_take_or_not_at_all(place: int, value: Any) -> None:
    assert messages.read_effect(EFFECT) is not None
    effect = messages.read_effect([*EFFECT[:place], value, *EFFECT[place + 1 :]])
    if effect is not None:
        assert effect.action in {"end", "suppress", "suppress_unnamed"}
        assert 0 <= effect.position < 2**31
        assert 0 <= effect.at < 1e12
        for text in (effect.message_id, effect.upstream, effect.lane, effect.cause, effect.address, effect.reason):
            assert text is None or len(text.encode()) < 10_000


TEXT = st.text(max_size=10)
TEXTS = st.lists(TEXT, max_size=2).map(tuple)
WEBHOOKS = st.builds(WebhookSettings, TEXT, TEXTS, TEXTS, st.none() | TEXT, st.none() | TEXT, st.booleans())
RECEIVERS = st.builds(ReceiverSettings, TEXT, TEXT, st.none() | TEXTS, st.none() | TEXTS, st.none() | TEXT)


@SOME
@given(
    st.builds(
        Settings,
        store=TEXT,
        clock_offset=st.floats(allow_nan=False),
        keep_s=st.floats(allow_nan=False),
        hashes_addresses=st.booleans(),
        webhooks=st.dictionaries(TEXT, WEBHOOKS, max_size=3),
        receivers=st.lists(RECEIVERS, max_size=2).map(tuple),
        objectives=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2),
        since=st.floats(allow_nan=False),
        begin=st.dictionaries(TEXT, st.integers(), max_size=2),
        listens=st.booleans(),
        cert_file=st.none() | TEXT,
    )
)
def test_settings_cross_the_link_unchanged(given_settings: Settings) -> None:
    assert Settings.from_json(json.loads(json.dumps(given_settings.as_json()))) == given_settings


def test_settings_show_no_secret() -> None:
    shown = repr(WebhookSettings("postmark", ("hook:s3cret",))) + repr(ReceiverSettings("https://a/s3cret", "s3cret"))
    assert "s3cret" not in shown
