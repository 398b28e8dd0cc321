"""kill -9 at any moment: what was acknowledged is there."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from relay.store.model import Selection
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, claim

WRITER = """
import asyncio, os, pathlib, sys
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, message, settled

async def stream(store, number):
    for turn in range(10**6):
        size = 700_000 if (turn + number) % 40 == 0 else 1000
        new = message(content=os.urandom(size))
        await store.put(new, claimed=turn % 2 == 0)
        os.write(1, f"put {new.id}\\n".encode())
        if turn % 4 == 0:
            await store.settle(settled(new.id))
            os.write(1, f"sent {new.id}\\n".encode())

async def main():
    store = await open_store(pathlib.Path(sys.argv[1]), now=lambda: NOW)
    await asyncio.gather(*(stream(store, number) for number in range(8)))

asyncio.run(main())
"""


async def test_everything_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    moments = random.Random(os.environ.get("PYTEST_XDIST_WORKER", "one"))
    put: set[str] = set()
    sent: set[str] = set()
    for _ in range(4):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path / "relay.db")], stdout=subprocess.PIPE, text=True
        )
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(moments.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        # The last line may be cut off: then it was not acknowledged in full.
        for line in [first, *process.stdout.readlines()]:
            if line.endswith("\n"):
                word, message_id = line.split()
                (put if word == "put" else sent).add(message_id)
        process.stdout.close()
        process.wait(10)
        store = await open_store(tmp_path / "relay.db", now=lambda: NOW)
        await store.recover(NOW)
        found = await store.search(Selection(limit=10**6))
        states = {each["id"]: each["recipients"][0]["state"] for each in found}  # type: ignore[index]
        assert put <= set(states)
        assert {states[message_id] for message_id in sent} <= {"sent"}
        assert {states[message_id] for message_id in put - sent} <= {"queued", "sent"}
        open_messages, size_bytes = store.size()
        queued = await claim(store, NOW + 10, messages=10**6)
        assert (len(queued), sum(len(each.content) for each in queued)) == (open_messages, size_bytes)
        for each in queued:
            await store.unclaim(each.id)
        await store.close()
    assert len(put) > 30  # enough for kills to have met commits, on a busy machine too
