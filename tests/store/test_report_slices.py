"""What a report reads of a long log."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from relay.store.model import DeliveryRow
from relay.store.sqlite import files, report_rows, schema
from relay.store.sqlite.events_schema import connect_events_writer
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, message, settled


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path / "relay.db", now=lambda: NOW)
    yield opened
    await opened.close()


async def finished(store: SqliteStore, at: float, took_s: float = 0.04, to: str = "user@example.net") -> None:
    new = message(to, at=at)
    await store.put(new, claimed=True)
    await store.settle(settled(new.id, "sent", upstream="ses", sent_at=at + took_s))


async def test_every_message_is_counted_once_however_the_log_is_sliced(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report_rows, "SLICE_MESSAGES", 4)
    # Many at the very same moment, as at an end of a slice.
    for number, at in enumerate((*range(7), *[7] * 9, *range(8, 20))):
        await finished(store, NOW + at, to=f"user{number}@example.net")
    assert await store.deliveries(NOW) == [DeliveryRow("otp", "ses", "example.net", "sent", 40.0, 28)]
    assert await store.deliveries(NOW + 7) == [DeliveryRow("otp", "ses", "example.net", "sent", 40.0, 21)]
    assert await store.deliveries(NOW + 99) == []


@pytest.mark.parametrize(
    ("took_s", "total_ms"),
    [
        (0.0, 0.0), (0.00271, 2.7), (0.041, 41.0), (0.0999, 99.9), (0.1009, 100.0), (0.9999, 999.0), (2.0, 2_000.0),
        (9.9999, 9_990.0), (10.0, 10_000.0), (29.9999, 29_900.0), (119.9999, 119_900.0), (120.0, 120_000.0),
    ],
)  # fmt: skip
async def test_a_time_is_cut_off_to_three_digits_and_stays_in_its_band(
    store: SqliteStore, took_s: float, total_ms: float
) -> None:
    await finished(store, NOW, took_s)
    (row,) = await store.deliveries(NOW)
    assert row.total_ms == pytest.approx(total_ms)


async def test_a_report_walks_the_messages_by_their_time(tmp_path: Path) -> None:
    schema.prepare(tmp_path / "relay.db")
    connection = files.connect_reader(tmp_path / "relay.db")
    connect_events_writer(tmp_path / "relay-events.db").close()
    connection.execute(f"ATTACH ? AS {report_rows.EVENTS}", (str(tmp_path / "relay-events.db"),))
    given = {"since": 1.0, "before": 2.0, "messages": 10, "objectives": "{}"}
    queries = (
        report_rows.deliveries_query(with_events=False),
        report_rows.deliveries_query(with_events=True),
        report_rows.SLICE_ENDS,
    )
    plans = [[row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {sql}", given)] for sql in queries]
    connection.close()
    assert all("message_accepted (accepted_at>?" in plan[0] for plan in plans)
    assert not any("SCAN" in step for plan in plans for step in plan)
