"""How large the store's limit tables grow: a simulated month with ten million recipients.

    python -m bench.limit_tables [--recipients 10000000] [--period 24h] [--days 30]

Each recipient gets one message, and each message counts for its recipient, its client and its sender. The table is
written and pruned by the relay's own statements, once a simulated minute. The figure is the file's largest size, beside
the size that it would have without pruning (its growth in the first hour, carried on).
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import tempfile
import time
from array import array
from contextlib import closing
from pathlib import Path

from relay.config.parse import parse_duration
from relay.policy.admissions import MOST_ENTRIES, Admissions
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.limits import prune_admissions
from relay.store.sqlite.put import insert_rows
from relay.store.sqlite.rows import ADMISSION
from relay.store.sqlite.schema import connect_writer, prepare

_KEYS = 3
_STEP_S = 60.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipients", type=int, default=10_000_000)
    parser.add_argument("--period", default="24h", help="of the longest limit")
    parser.add_argument("--days", type=int, default=30)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "relay.db"
        prepare(path)
        with closing(connect_writer(path)) as connection:
            print(json.dumps(run(connection, path, asked.recipients, asked.days, parse_duration(asked.period, None))))


def run(connection: sqlite3.Connection, path: Path, recipients: int, days: int, period_s: float) -> dict[str, float]:
    """The figures, in bytes and seconds."""
    connection.execute("PRAGMA synchronous = OFF")  # the disk isn't measured
    books, steps = Admissions(), int(days * 86400 / _STEP_S)
    empty = path.stat().st_size
    most_bytes = first_hour_bytes = most_rows = 0
    began = time.monotonic()
    for step in range(steps):
        now = step * _STEP_S
        count = recipients * (step + 1) // steps - recipients * step // steps
        keys = array("q", os.urandom(8 * count))
        rows = [books.add(now, (key, step % 5000 + 1, 1)) for key in keys]
        connection.execute("BEGIN IMMEDIATE")
        tx = Tx(connection)
        insert_rows(tx, "admission", ADMISSION, [(one.seq, one.at, array("q", one.keys).tobytes()) for one in rows])
        while prune_admissions(tx, now - period_s, MOST_ENTRIES, 200):
            pass
        connection.execute("COMMIT")
        while len(books) and prune_books(books, now - period_s):
            pass
        if step * _STEP_S == 3600 or step % 720 == 719:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            size = path.stat().st_size - empty
            first_hour_bytes = first_hour_bytes or size
            most_bytes = max(most_bytes, size)
            most_rows = max(most_rows, connection.execute("SELECT count(*) FROM admission").fetchone()[0])
    return {
        "recipients": recipients,
        "most_bytes": most_bytes,
        "most_rows": most_rows,
        "unpruned_bytes": first_hour_bytes * days * 24,
        "forgotten_entries": books.forgotten,
        "took_s": round(time.monotonic() - began, 1),
    }


def prune_books(books: Admissions, before: float) -> bool:
    """Whether something left the books."""
    entries = len(books)
    books.expire(before)
    return len(books) < entries


if __name__ == "__main__":
    main()
