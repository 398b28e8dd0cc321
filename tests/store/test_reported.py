"""What ESPs reported, as the report counts it: of the events file, and beside the message files."""

from __future__ import annotations

from pathlib import Path

import pytest

from relay.store.events import MailEvent, Recording
from relay.store.merge import open_offline
from relay.store.model import ReportedRow
from relay.store.sqlite import files, report_rows
from relay.store.sqlite.events_file import open_events
from relay.store.sqlite.events_schema import connect_events_writer
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, message, settled


def recording(
    message_id: str, kind: str, after_s: float, *, position: int = 0, permanent: bool | None = None, lane: str = "otp"
) -> Recording:
    event = MailEvent(
        f"{message_id} {position} {kind} {after_s}", message_id, position, NOW + after_s, kind, "esp", "ses", permanent
    )
    return Recording(event, lane, "gmail", NOW)


async def record(store: Path, *found: Recording) -> None:
    events = await open_events(store.with_name("relay-events.db"), lambda: NOW)
    for one in found:  # each in the order in which it came
        await events.record([one])
    await events.close()


async def store_with(path: Path, *sent_after_s: float) -> list[str]:
    """Messages of the lane `otp`, each sent that long after it was accepted; their ids."""
    store, made = await open_store(path, now=lambda: NOW), []
    for number, after_s in enumerate(sent_after_s):
        new = message(f"user{number}@gmail.com")
        await store.put(new, claimed=True)
        await store.settle(settled(new.id, "sent", upstream="ses", sent_at=NOW + after_s))
        made.append(new.id)
    await store.close()
    return made


async def test_of_each_recipient_the_first_event_of_a_kind_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_rows, "SLICE_EVENTS", 2)
    path = tmp_path / "relay.db"
    await store_with(path)
    await record(
        path,
        recording("01A", "delivered", 2.0),
        recording("01A", "delivered", 1.0),  # the same again, with another time: it came later
        recording("01A", "delivered", 2.0, position=1),
        recording("01B", "delivered", -3.0),  # the ESP's clock is behind
        recording("01B", "bounced", 4.0, permanent=False),
        recording("01B", "bounced", 5.0, permanent=False),
        recording("01B", "bounced", 6.0, permanent=True),
        recording("01B", "complained", 7.0, lane="bulk"),
        recording("01B", "opened", 7.0),
        recording("01B", "opened", 8.0),
        recording("01B", "other", 9.0),
    )
    with open_offline(path) as reader:
        assert sorted(reader.reported(NOW), key=str) == sorted(
            [
                ReportedRow("otp", "ses", "gmail", "delivered", None, 2000.0, 2),
                ReportedRow("otp", "ses", "gmail", "delivered", None, 0.0),
                ReportedRow("otp", "ses", "gmail", "bounced", permanent=False, after_ms=None),
                ReportedRow("otp", "ses", "gmail", "bounced", permanent=True, after_ms=None),
                ReportedRow("bulk", "ses", "gmail", "complained", None, None),
                ReportedRow("otp", "ses", "gmail", "opened", None, None),
            ],
            key=str,
        )
        assert reader.reported(NOW + 1) == []


async def test_a_delivered_event_decides_about_the_objective_and_else_the_time_of_acceptance(tmp_path: Path) -> None:
    path = tmp_path / "relay.db"
    arrived, arrived_late, untold, _ = await store_with(path, 1.0, 1.0, 2.0, 20.0)
    with open_offline(path) as reader:
        assert sum(row.recipients for row in reader.deliveries(0, {"otp": 10.0}) if row.in_time) == 3
        await record(
            path,
            recording(arrived, "delivered", 9.0),
            recording(arrived, "delivered", 11.0),
            recording(arrived_late, "delivered", 11.0),
            recording(untold, "processed", 11.0),
        )
        rows = reader.deliveries(0, {"otp": 10.0})
    assert {(row.total_ms, row.in_time): row.recipients for row in rows} == {
        (1000.0, True): 1,
        (1000.0, False): 1,
        (2000.0, True): 1,
        (20_000.0, False): 1,
    }


def test_a_report_walks_the_events_by_their_time(tmp_path: Path) -> None:
    path = tmp_path / "relay-events.db"
    connect_events_writer(path).close()
    connection = files.connect_reader(path)
    given = {"begin": 1.0, "before": 2.0, "since": 1.0, "events": 10}
    plans = [
        [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", given)]
        for sql in (report_rows.REPORTED, report_rows.EVENT_SLICE_ENDS)
    ]
    connection.close()
    assert all("event_at (at>?" in plan[0] for plan in plans)
    assert not any("SCAN" in step for plan in plans for step in plan)
