"""What the log says of rules and objectives: real stores, in part where they are large."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from relay.config.load import load
from relay.config.model import Config
from relay.doctor import log
from relay.doctor.finding import Finding
from relay.store.merge import shard
from relay.store.sqlite import files, newest, schema
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, message, settled
from tests.store.test_reported import record, recording
from tests.support.relay import write_config

NOWHERE = {"host": "127.0.0.1", "port": 1, "tls": "none"}
RULES = ("explicit", "auth-sender", "by-subject")
HOUR_S = 3600.0


def config_with(folder: Path, objective: dict[str, object] | None = None, rules: tuple[str, ...] = RULES) -> Config:
    otp: dict[str, Any] = {"upstreams": ["esp"], "expires": "10m"}
    lanes = {"otp": {**otp, **({"objective": objective} if objective else {})}, "bulk": {"upstreams": ["esp"]}}
    named = [{"name": name, "match": {"sender": f"{name}@example.com"}, "lane": "otp"} for name in rules]
    return load(write_config(folder, {"esp": NOWHERE}, lanes=lanes, rules=named), {}).config


async def fill(path: Path, *messages: Any, sent_after_s: float | None = None) -> list[str]:
    """Put messages into the store, and settle them as sent where that is given; their ids."""
    store: SqliteStore = await open_store(path, now=lambda: NOW)
    for new in messages:
        await store.put(new, claimed=sent_after_s is not None)
        if sent_after_s is not None:
            sent_at = new.accepted_at + sent_after_s
            await store.settle(settled(new.id, "sent", upstream="esp", sent_at=sent_at))
    await store.close()
    return [new.id for new in messages]


def by(rule: str | None, number: int, at: float = NOW - HOUR_S, **changed: Any) -> Iterator[Any]:
    """So many messages that this rule routed, a second apart."""
    lane = "bulk" if rule is None else "otp"
    return (message(at=at + n, **{"rule": rule, "lane": lane, **changed}) for n in range(number))


def about(found: list[Finding], check: str) -> list[tuple[str, str]]:
    return [(one.status, one.text) for one in found if one.id == check]


def unmatched(config: Config, clock: Iterator[float] | None = None) -> list[tuple[str, str]]:
    times = clock or iter(lambda: 0.0, None)
    return about(log.check(config, NOW, lambda: next(times)), "rule-unmatched")


@pytest.fixture
def few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "ENOUGH_MESSAGES", 5)


@pytest.mark.usefixtures("few_are_enough")
async def test_rules_that_matched_nothing_are_named_with_the_time_since_when(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    await fill(config.store, *by("auth-sender", 2), *by(None, 3, NOW - 2 * HOUR_S), *by("listener", 4))
    assert unmatched(config) == [
        ("warn", "rules explicit and by-subject matched none of 5 messages since 2027-01-15 06:00 UTC")
    ]


async def test_a_few_messages_are_too_few_to_judge_a_rule_by(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    await fill(config.store, *by("auth-sender", 2), *by("by-subject", 1))
    ((status, text),) = unmatched(config)
    assert (status, text.startswith("rule explicit matched none of 3 messages since ")) == ("ok", True)
    assert text.endswith(": too few to judge by")


async def test_where_each_rule_matched_all_is_well(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    await fill(config.store, *(new for name in RULES for new in by(name, 1)))
    assert unmatched(config) == [("ok", "each rule matched a message of the log")]


@pytest.mark.parametrize("messages", [0, 3])
async def test_nothing_is_said_where_no_message_was_routed_by_rules(tmp_path: Path, messages: int) -> None:
    config = config_with(tmp_path)
    await fill(config.store, *by("api", messages))
    assert log.check(config, NOW) == []


@pytest.mark.usefixtures("few_are_enough")
async def test_a_match_that_only_a_workers_file_has_counts(tmp_path: Path) -> None:
    config = config_with(tmp_path)
    await fill(config.store, *by("auth-sender", 6))
    await fill(shard(config.store, 1), *by("explicit", 1, lane="bulk"), *by("by-subject", 1, lane="bulk"))
    assert unmatched(config) == [("ok", "each rule matched a message of the log")]


@pytest.mark.usefixtures("few_are_enough")
async def test_slices_end_where_the_time_is_up_and_the_finding_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newest, "SLICE_MESSAGES", 5)
    config = config_with(tmp_path)
    await fill(config.store, *by("explicit", 2, NOW - 9 * HOUR_S), *by(None, 4, NOW - 5 * HOUR_S))
    await fill(config.store, *by(None, 3), *by("rule-of-before", 3, NOW - HOUR_S + 60))
    in_time = unmatched(config)
    assert in_time == [
        ("warn", "rules auth-sender and by-subject matched none of 12 messages since 2027-01-14 23:00 UTC")
    ]
    late = unmatched(config, count(0.0, 0.5 * log.RULES_WITHIN_S + 0.001))  # two slices
    assert late == [
        (
            "warn",
            "rules explicit, auth-sender and by-subject matched none of the newest 10 messages since "
            "2027-01-15 03:00 UTC; older ones were not read",
        )
    ]


@pytest.mark.usefixtures("few_are_enough")
async def test_a_rule_that_can_never_match_is_no_second_finding(tmp_path: Path) -> None:
    matched = [{"name": name, "match": {"sender": "a@example.com"}, "lane": "otp"} for name in ("one", "two")]
    path = write_config(tmp_path, {"esp": NOWHERE}, rules=matched)
    config = load(path, {}).config
    await fill(config.store, *by("one", 9))
    assert unmatched(config) == [("ok", "each rule matched a message of the log")]


WITHIN_10S: dict[str, object] = {"within": "10s", "share": "90%"}


def objective(config: Config) -> list[tuple[str, str]]:
    return about(log.check(config, NOW), "lane-objective")


@pytest.mark.parametrize(
    ("late", "status", "said"),
    [
        (1, "ok", "objective (90 % within 10 s) met: 9 of 10 recipients in time (90 %), p95 20.0 s, in 24 h"),
        (2, "warn", "objective (90 % within 10 s) missed: 8 of 10 recipients in time (80 %), p95 20.0 s, in 24 h"),
    ],
)
async def test_an_objective_is_met_or_missed_with_figures(tmp_path: Path, late: int, status: str, said: str) -> None:
    config = config_with(tmp_path, WITHIN_10S, ())
    await fill(config.store, *by("auth-sender", 10 - late), sent_after_s=0.2)
    await fill(config.store, *by("auth-sender", late), sent_after_s=20.0)
    # Neither yesterday's mail nor another lane's counts.
    await fill(config.store, *by("auth-sender", 3, NOW - 25 * HOUR_S), *by(None, 3), sent_after_s=20.0)
    assert objective(config) == [(status, said)]


async def test_an_upstream_that_reports_is_judged_by_the_delivered_event(tmp_path: Path) -> None:
    config = config_with(tmp_path, WITHIN_10S, ())
    ids = await fill(config.store, *by("auth-sender", 2, NOW), sent_after_s=0.2)
    await record(config.store, *(recording(one, "delivered", 30.0) for one in ids))
    ((status, text),) = objective(config)
    assert (status, "missed: 0 of 2 recipients" in text) == ("warn", True)


@pytest.mark.parametrize("messages", [0, 2])
async def test_without_finished_mail_there_is_nothing_to_judge(tmp_path: Path, messages: int) -> None:
    config = config_with(tmp_path, WITHIN_10S, ())
    await fill(config.store, *by("auth-sender", messages))
    assert objective(config) == [("ok", "objective (90 % within 10 s): no mail in 24 h")]


async def test_of_many_messages_the_newest_are_judged_and_the_finding_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "OBJECTIVE_MESSAGES", 5)
    config = config_with(tmp_path, WITHIN_10S, ())
    await fill(config.store, *by("auth-sender", 20, NOW - 3 * HOUR_S), sent_after_s=20.0)
    await fill(config.store, *by("auth-sender", 6), sent_after_s=0.2)
    # What a worker's file has of other lanes takes nothing from that.
    await fill(shard(config.store, 1), *by(None, 50), sent_after_s=0.2)
    ((status, text),) = objective(config)
    assert (status, text.rpartition(", ")[2]) == ("ok", "since 2027-01-15 07:00 UTC; older messages were not read")
    assert " met: 6 of 6 recipients " in text


async def test_without_a_store_nothing_is_said_and_a_damaged_one_is_unknown(tmp_path: Path) -> None:
    config = config_with(tmp_path, WITHIN_10S)
    assert log.check(config, NOW) == []
    config.store.write_bytes(b"no database")
    (found,) = log.check(config, NOW)
    assert (found.id, found.status) == ("log", "unknown")
    assert "hunter2" not in str(found)


async def test_the_log_is_read_beside_its_writer_and_not_changed(tmp_path: Path) -> None:
    config = config_with(tmp_path, WITHIN_10S)
    store = await open_store(config.store, now=lambda: NOW)
    for new in by("auth-sender", 3):
        await store.put(new, claimed=False)
    before = config.store.read_bytes()
    assert {one.status for one in log.check(config, NOW)} == {"ok"}
    assert config.store.read_bytes() == before
    await store.close()


def test_no_query_walks_a_whole_table(tmp_path: Path) -> None:
    schema.prepare(tmp_path / "relay.db")
    given = {"before": newest.NEWEST, "since": 1.0, "messages": 10, "lane": "otp"}
    with closing(files.connect_reader(tmp_path / "relay.db")) as connection:
        rules, since, has_mail = (_plan(connection, sql, given) for sql in (
            newest.RULES, newest.NEWEST_SINCE, newest.HAS_MAIL
        ))  # fmt: skip
    assert any("SEARCH message USING PRIMARY KEY (id<?)" in step for step in rules), rules
    assert not any(step.startswith("SCAN message") for step in rules)
    assert since == ["SEARCH message USING COVERING INDEX message_accepted (accepted_at>?)"]
    assert has_mail == ["SEARCH message USING COVERING INDEX message_lane (lane=? AND accepted_at>?)"]


def _plan(connection: sqlite3.Connection, sql: str, given: dict[str, object]) -> list[str]:
    return [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
