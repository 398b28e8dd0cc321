from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from relay.observe.bands import EDGES_S
from relay.observe.gauges import Snapshot
from relay.observe.metrics import MAX_REASONS, Metrics
from relay.observe.pressure import IntakeLoad, QueueFill

CONTRACT = {
    "relay_messages_accepted_total": {"lane", "rule"},
    "relay_messages_rejected_total": {"reason"},
    "relay_recipients_total": {"lane", "upstream", "outcome"},
    "relay_delivery_seconds_count": {"lane", "upstream"},
    "relay_phase_seconds_count": {"lane", "phase"},
    "relay_inbox_seconds_count": {"lane", "provider"},
    "relay_queue_recipients": {"lane", "state"},
    "relay_queue_oldest_seconds": {"lane"},
    "relay_upstream_sessions": {"upstream", "state"},
    "relay_upstream_up": {"upstream"},
    "relay_upstream_replies_total": {"upstream", "code"},
    "relay_config_reload_success": set(),
    "relay_build_info": {"version", "python"},
    "relay_tasks_restarted_total": {"task"},
    "relay_event_posts_total": {"result"},
}
OWN = {
    "relay_upstream_warm_sessions": {"lane", "upstream"},
    "relay_upstream_window": {"lane", "upstream"},
    "relay_queue_messages": set(),
    "relay_queue_bytes": set(),
    "relay_queue_free_bytes": set(),
    "relay_queue_limit": {"limit"},
    "relay_intake_sessions": set(),
    "relay_intake_messages": {"state"},
    "relay_intake_slowed": set(),
    "relay_intake_held_back_seconds_total": {"brake"},
    "relay_log_lines_lost_total": set(),
    "relay_event_posts_waiting": set(),
    "relay_event_posts_oldest_seconds": set(),
}


@dataclass(frozen=True)
class Count:
    lane: str
    state: str
    recipients: int
    oldest_at: float | None


def samples(metrics: Metrics, snapshot: Snapshot) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    body, _ = metrics.render(snapshot)
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(body.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def fed() -> Metrics:
    metrics = Metrics()
    metrics.accepted["otp", "auth-sender"].inc()
    metrics.count_rejected("size")
    metrics.recipients["otp", "postmark", "sent"].inc(2)
    metrics.delivery["otp", "postmark"].observe(0.041)
    metrics.observe_phases("otp", {"store": 0.4, "total": 43.3})
    metrics.observe_inbox("otp", "gmail.com", 3.0)
    metrics.count_reply("postmark", 250)
    metrics.restarts[("feed",)].inc()
    metrics.event_posts[("delivered",)].inc()
    return metrics


SNAPSHOT = Snapshot(
    now=100.0,
    queue=[Count("otp", "deferred", 3, 70.0), Count("otp", "queued", 1, 90.0)],
    lanes=("otp", "bulk"),
    states=("queued", "deferred"),
    upstream_up={"postmark": True, "ses": False},
    upstream_sessions={("postmark", "idle"): 2},
    upstream_windows={("bulk", "ses"): 6},
    upstream_warm={("otp", "postmark"): 3, ("otp", "ses"): 0},
    fill=QueueFill(3, 6_000, 5_000_000, 64_000, max_messages=1_000),
    intake=IntakeLoad(sessions=7, storing=5, waiting=2, held_back_s={"turn": 1.5, "pace": 0.0}),
)


@pytest.mark.parametrize("name", [*CONTRACT, *OWN])
def test_each_metric_is_there_with_its_labels(name: str) -> None:
    found = samples(fed(), SNAPSHOT)
    assert {label for label, _ in next(iter(found[name]))} == {**CONTRACT, **OWN}[name]


def test_no_other_metric_and_no_created_series_is_there() -> None:
    families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in samples(fed(), SNAPSHOT)}
    assert families == {name.removesuffix("_count") for name in (*CONTRACT, *OWN)}


def test_the_delivery_buckets_run_from_5_ms_to_120_s_over_the_bands_edges() -> None:
    found = samples(fed(), SNAPSHOT)["relay_delivery_seconds_bucket"]
    edges = sorted(float(dict(labels)["le"]) for labels in found)
    assert edges[0] == 0.005
    assert edges[-2] == 120.0
    assert {edge_s for edge_s, _ in EDGES_S} <= set(edges)


def test_the_gauges_are_those_of_the_snapshot() -> None:
    found = samples(fed(), SNAPSHOT)
    assert found["relay_queue_recipients"] == {
        (("lane", "otp"), ("state", "deferred")): 3,
        (("lane", "otp"), ("state", "queued")): 1,
        (("lane", "bulk"), ("state", "deferred")): 0,
        (("lane", "bulk"), ("state", "queued")): 0,
    }
    assert found["relay_queue_oldest_seconds"] == {(("lane", "otp"),): 30, (("lane", "bulk"),): 0}
    assert found["relay_upstream_up"] == {(("upstream", "postmark"),): 1, (("upstream", "ses"),): 0}
    assert found["relay_upstream_sessions"] == {(("state", "idle"), ("upstream", "postmark")): 2}
    assert found["relay_upstream_window"] == {(("lane", "bulk"), ("upstream", "ses")): 6}
    assert found["relay_upstream_warm_sessions"] == {
        (("lane", "otp"), ("upstream", "postmark")): 3,
        (("lane", "otp"), ("upstream", "ses")): 0,
    }
    assert found["relay_intake_sessions"] == {(): 7}
    assert found["relay_intake_messages"] == {(("state", "storing"),): 3, (("state", "waiting"),): 2}
    assert found["relay_intake_held_back_seconds_total"] == {(("brake", "turn"),): 1.5, (("brake", "pace"),): 0}


def test_the_queue_is_shown_beside_the_configured_limits() -> None:
    found = samples(fed(), SNAPSHOT)
    assert found["relay_queue_messages"] == {(): 3}
    assert found["relay_queue_bytes"] == {(): 6_000}
    assert found["relay_queue_free_bytes"] == {(): 5_000_000}
    assert found["relay_queue_limit"] == {(("limit", "max_messages"),): 1_000, (("limit", "min_free"),): 64_000}


@pytest.mark.parametrize(
    ("load", "slowed"),
    [
        (IntakeLoad(sessions=400, storing=10), 0),
        (IntakeLoad(storing=10, waiting=1), 1),
        (IntakeLoad(behind_s=0.01), 1),
    ],
)
def test_intake_is_slowed_when_clients_wait_for_more_than_the_disk(load: IntakeLoad, slowed: int) -> None:
    assert samples(fed(), replace(SNAPSHOT, intake=load))["relay_intake_slowed"] == {(): slowed}


def test_without_an_answer_of_the_store_the_queue_is_left_out() -> None:
    found = samples(fed(), Snapshot(now=1.0, queue=None, lanes=("otp",), states=("queued",)))
    assert "relay_queue_recipients" not in found
    assert "relay_messages_accepted_total" in found


def test_a_clock_that_went_back_gives_no_negative_age() -> None:
    found = samples(fed(), Snapshot(now=1.0, queue=[Count("otp", "queued", 1, 5.0)]))
    assert found["relay_queue_oldest_seconds"] == {(("lane", "otp"),): 0}


def test_label_values_stay_bounded_whatever_comes() -> None:
    metrics = Metrics()
    for n in range(10_000):
        metrics.observe_inbox("otp", f"d{n}.example", 1.0)
        metrics.count_rejected(f"reason-{n}")
        metrics.count_reply("postmark", n)
    metrics.count_rejected("user@example.com said no")
    found = samples(metrics, Snapshot(now=1.0))
    assert set(found["relay_inbox_seconds_count"]) == {(("lane", "otp"), ("provider", "other"))}
    assert len(found["relay_messages_rejected_total"]) <= MAX_REASONS + 1
    assert (("reason", "other"),) in found["relay_messages_rejected_total"]
    assert len(found["relay_upstream_replies_total"]) == 401
    assert not re.search(rb"@", metrics.render(Snapshot(now=1.0))[0])


def test_the_format_is_the_one_asked_for() -> None:
    metrics = fed()
    plain, plain_type = metrics.render(SNAPSHOT, "text/plain")
    opened, opened_type = metrics.render(SNAPSHOT, "application/openmetrics-text; version=1.0.0")
    assert plain_type.startswith("text/plain; version=0.0.4")
    assert opened_type.startswith("application/openmetrics-text")
    assert opened.endswith(b"# EOF\n")
    assert b"# EOF" not in plain
    assert {family.name for family in parse_openmetrics(opened.decode())} >= {"relay_messages_accepted"}  # type: ignore[no-untyped-call]


def test_two_relays_in_one_process_have_metrics_of_their_own() -> None:
    one, two = Metrics(), Metrics()
    one.count_rejected("size")
    assert "relay_messages_rejected_total" not in samples(two, Snapshot(now=1.0))


@pytest.mark.parametrize("accept", ["text/plain", "application/openmetrics-text"])
def test_the_numbers_of_other_processes_are_added(accept: str) -> None:
    own, other = fed(), fed()
    other.accepted["bulk", "default"].inc(5)
    other.delivery["otp", "postmark"].observe(11.0)
    body, _ = own.render(SNAPSHOT, accept, other.numbers())
    parse: Any = parse_openmetrics if "openmetrics" in accept else text_string_to_metric_families
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in parse(body.decode())
        for sample in family.samples
    }
    labels = (("lane", "otp"), ("upstream", "postmark"))
    assert found["relay_messages_accepted_total", ("lane", "otp"), ("rule", "auth-sender")] == 2
    assert found["relay_messages_accepted_total", ("lane", "bulk"), ("rule", "default")] == 5
    assert found["relay_delivery_seconds_count", *labels] == 3
    assert found["relay_delivery_seconds_bucket", ("lane", "otp"), ("le", "10.0"), labels[1]] == 2
    assert found["relay_delivery_seconds_bucket", ("lane", "otp"), ("le", "30.0"), labels[1]] == 3
    assert found["relay_config_reload_success",] == 1


def test_exported_numbers_are_a_copy_without_gauges() -> None:
    metrics = fed()
    numbers = metrics.numbers()
    names = {family.name for family in numbers}
    metrics.count_rejected("size")
    assert "relay_config_reload" not in " ".join(names)
    rejected = next(family for family in numbers if family.name == "relay_messages_rejected")
    assert [value for _, _, value in rejected.samples] == [1.0]
