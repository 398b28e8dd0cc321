"""How long `otp-relay log` and `report` take over a long log.

`python -m bench.log [--messages N] [--runs N] [--directory DIR] [--json FILE]`: makes a store of a million finished
messages (one recipient, one attempt each) through the relay's own schema, then takes each question N times, in turn:
the query alone on a reader that is open, and the command as an operator types it. The command's floor is a Python that
does nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import yaml

from bench import fill
from bench.process import ROOT
from relay.mail.envelope import Envelope, Recipient
from relay.observe.report import build
from relay.store.merge import open_offline
from relay.store.model import Attempt, NewMessage, RecipientUpdate, Selection, Settlement
from relay.store.sqlite.store import open_store
from relay.store.ulid import IdMaker

MESSAGES = 1_000_000
RUNS = 9
HOT = "everybody@example.net"
"""one message in a hundred goes there, as a monitoring address has it"""
RARE = "user4242@example.net"
"""one of 200,000 that share the others"""
_ADDRESS = f"CASE WHEN numbers.copy % 100 = 0 THEN '{HOT}' ELSE 'user' || (numbers.copy % 200000) || '@example.net' END"
_STATE = "CASE WHEN numbers.copy % 500 = 7 THEN 'bounced' ELSE 'sent' END"
_LANE = "CASE WHEN numbers.copy % 10 = 0 THEN 'otp' ELSE 'bulk' END"
_UPSTREAM = "CASE WHEN numbers.copy % 3 = 0 THEN 'ses' ELSE 'postmark' END"


@dataclass(frozen=True, slots=True)
class Row:
    question: str
    rows: int
    query_ms: float
    query_worst_ms: float
    command_ms: float


def questions(now: float) -> list[tuple[Sequence[str], Selection | float]]:
    """The command's words, and the same for a reader: what to search, or since when to report."""
    return [
        (("log",), Selection(limit=100)),
        (("log", "--to", RARE), Selection(to=RARE, limit=100)),
        (("log", "--to", HOT), Selection(to=HOT, limit=100)),
        (("log", "--to", HOT, "--state", "bounced"), Selection(to=HOT, state="bounced", limit=100)),
        (("log", "--to", "nobody@example.org"), Selection(to="nobody@example.org", limit=100)),
        (("log", "--state", "bounced"), Selection(state="bounced", limit=100)),
        (("log", "--state", "deferred"), Selection(state="deferred", limit=100)),
        (("log", "--state", "sent"), Selection(state="sent", limit=100)),
        (("log", "--lane", "otp", "--since", "24h"), Selection(lane="otp", since=now - 86_400, limit=100)),
        (("log", "--lane", "otp", "--state", "sent"), Selection(lane="otp", state="sent", limit=100)),
        (("report", "--since", "1h"), now - 3_600),
        (("report", "--since", "24h"), now - 86_400),
        (("report", "--since", "30d"), now - 30 * 86_400),
    ]


async def make(store: Path, messages: int, now: float) -> None:
    """One message as the relay writes it, the others cloned from that."""
    opened = await open_store(store, now=lambda: now)
    new = NewMessage(
        id=IdMaker().new_id(now, os.urandom(10)),
        lane="otp",
        rule="auth-sender",
        envelope=Envelope("no-reply@auth.example.com", (Recipient("first@example.net"),)),
        content=b"Subject: hi\r\n\r\nhello\r\n",
        client="127.0.0.1",
        message_id="<1@auth.example.com>",
        subject="Your verification code: ••••••",
        providers=("example.net",),
        accepted_at=now,
        expires_at=now + 600,
        signed=("s1",),
        timings_ms={"receive": 1.2, "classify": 0.1, "store": 0.4, "wait": 0.1, "send": 41.0, "total": 43.3},
    )
    attempt = Attempt(0, 1, "postmark", now, "warm", "sent", "250 2.0.0 OK 1234", {"envelope": 20.1, "data": 20.9})
    update = RecipientUpdate(0, "sent", "postmark", "250 2.0.0 OK 1234", sent_at=now + 0.0433)
    await opened.put(new, claimed=True)
    await opened.settle(Settlement(new.id, (update,), (attempt,), {"total": 43.3}))
    await opened.close()
    with closing(sqlite3.connect(store, isolation_level=None)) as connection:
        fill.without_indexes(connection, partial(_clone, message_id=new.id, messages=messages))


def _clone(connection: sqlite3.Connection, message_id: str, messages: int) -> None:
    ids = fill.OLD_ID.format(offset=0)
    at = f"accepted_at - {fill.PAST_S}.0 * ({messages} - numbers.copy) / {messages}"
    clone = partial(fill.clone, connection, sample=message_id, times=messages)
    clone("message", "id", changed={"id": ids, "accepted_at": at, "lane": _LANE})
    of_recipient = {"address": _ADDRESS, "state": _STATE, "lane": _LANE, "upstream": _UPSTREAM}
    # 40 ms to 2 s, so that a report has something to sort.
    sent_at = f"{at} + 0.04 + (numbers.copy % 1973) / 1000.0"
    of_recipient |= {"message_id": ids, "accepted_at": at, "sent_at": sent_at}
    clone("recipient", "message_id", changed=of_recipient)
    clone("attempt", "message_id", changed={"message_id": ids, "upstream": _UPSTREAM})


def ask(store: Path, asked: Selection | float) -> tuple[int, float]:
    """How many rows came, and the milliseconds that took, on a reader that is open."""
    with open_offline(store) as reader:
        began = time.perf_counter()
        if isinstance(asked, Selection):
            rows = len(reader.search(asked))
        else:
            deliveries = reader.deliveries(asked)
            rows = sum(row.recipients for row in deliveries)
            build(deliveries)
        return rows, (time.perf_counter() - began) * 1000


def command_ms(argv: Sequence[str]) -> float:
    """From its start to its end; what it says is thrown away."""
    began = time.perf_counter()
    subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False)
    return (time.perf_counter() - began) * 1000


def configure(directory: Path, **keys: object) -> Path:
    """A configuration for the store in that folder. `keys` replace whole top-level keys of it."""
    config = {
        "store": "relay.db",
        "hostname": "relay.example.com",
        "upstreams": {name: {"host": "127.0.0.1", "port": 2626, "tls": "none"} for name in ("postmark", "ses")},
        "lanes": {"otp": {"upstreams": ["postmark"]}, "bulk": {"upstreams": ["ses"]}},
        "default_lane": "bulk",
        **keys,
    }
    path = directory / "relay.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def measure(directory: Path, messages: int, runs: int) -> list[Row]:
    store, now = directory / "relay.db", time.time()
    if not store.exists():
        began = time.monotonic()
        asyncio.run(make(store, messages, now))
        size_mb = store.stat().st_size / 1e6
        print(f"{messages} messages, {size_mb:.0f} MB, made in {time.monotonic() - began:.0f} s", file=sys.stderr)
    config = str(configure(directory))
    asked = questions(now)
    queries: list[list[float]] = [[] for _ in asked]
    commands: list[list[float]] = [[] for _ in asked]
    rows = [0] * len(asked)
    floor = []
    for _ in range(runs):
        floor.append(command_ms((sys.executable, "-c", "pass")))
        for n, (words, selection) in enumerate(asked):
            rows[n], took_ms = ask(store, selection)
            queries[n].append(took_ms)
            commands[n].append(command_ms((sys.executable, "-m", "relay", *words, "-c", config)))
    found = [Row("python -c pass", 0, 0.0, 0.0, statistics.median(floor))]
    for n, (words, _) in enumerate(asked):
        median = statistics.median
        found.append(Row(" ".join(words), rows[n], median(queries[n]), max(queries[n]), median(commands[n])))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.log", description=__doc__)
    parser.add_argument("--messages", type=int, default=MESSAGES)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--directory", type=Path, help="keep the store there, and use it again")
    parser.add_argument("--json", type=Path, metavar="FILE")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        # Every process from here on finds its modules compiled, as pip leaves them.
        os.environ["PYTHONPYCACHEPREFIX"] = f"{folder}/compiled"
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        directory = args.directory or Path(folder)
        directory.mkdir(parents=True, exist_ok=True)
        found = measure(directory, args.messages, args.runs)
    print(f"{'question':<48} {'rows':>8} {'query ms':>9} {'worst':>8} {'command ms':>11}")
    for row in found:
        print(
            f"{row.question:<48} {row.rows:>8} {row.query_ms:>9.1f} {row.query_worst_ms:>8.1f} {row.command_ms:>11.0f}"
        )
    if args.json is not None:
        args.json.write_text(json.dumps([asdict(row) for row in found], indent=2))


if __name__ == "__main__":
    main()
