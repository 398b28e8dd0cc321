"""A store file that the last version made opens, and nothing of it is lost.

`files/version-3.db.gz` was made at commit 0c5eedd (schema version 3) by this script:

    import asyncio, gzip, tempfile
    from pathlib import Path

    from relay.mail.envelope import Envelope, Recipient
    from relay.store.base import Attempt, NewMessage, RecipientUpdate, Selection, Settlement
    from relay.store.codec import Sealed
    from relay.store.sqlite import open_store

    NOW = 1_800_000_000.0
    LARGE = b"Subject: large\r\n\r\n" + b"a line of a large message\r\n" * 50_000


    def message(name, content, *to, sender="app@example.com"):
        to = to or (f"{name}@example.net",)
        recipients = tuple(map(Recipient, to))
        return NewMessage(
            f"01MIGRATION{name.upper():_>15}", "otp", "rule", Envelope(sender, recipients), content, "127.0.0.1",
            f"<{name}@example.com>", name, tuple("example.net" for _ in to), NOW, NOW + 600,
        )


    def outcome(new, state, reply, **changed):
        ended = "sent" if state == "sent" else "deferred"
        attempt = Attempt(0, 1, "ses", NOW + 1, "warm", ended, reply, {"data": 20.5})
        return Settlement(new.id, (RecipientUpdate(0, state, "ses", reply, **changed),), (attempt,), note=state)


    async def main(folder):
        plain = await open_store(folder / "relay.db", now=lambda: NOW)
        await plain.put(message("plain", b"in clear"), claimed=False)
        await plain.put(message("large", LARGE), claimed=False)
        await plain.close()
        store = await open_store(folder / "relay.db", now=lambda: NOW, codec=Sealed([b"k" * 32], "the test"))
        await store.recover(NOW)
        await store.put(message("sealed", b"sealed", "a@example.net", "B@Example.NET"), claimed=False)
        deferred, held, sending, sent, bounced = (
            message(name, name.encode()) for name in ("deferred", "held", "sending", "sent", "bounced")
        )
        await store.put(held, claimed=False)
        await store.act("hold", Selection(ids=(held.id,)), NOW)
        for new in (deferred, sending, sent, bounced):
            await store.put(new, claimed=True)
        await store.settle(outcome(deferred, "deferred", "451 later", next_at=NOW + 60, step=1))
        await store.settle(outcome(sent, "sent", "250 ok", sent_at=NOW + 2))
        dsn = message("dsn", b"it bounced", "app@example.com", sender="")
        await store.settle(outcome(bounced, "bounced", "550 no")._replace(bounces=(dsn,)))
        await store.close()


    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(main(Path(folder)))
        Path("version-3.db.gz").write_bytes(gzip.compress((Path(folder) / "relay.db").read_bytes(), mtime=0))
"""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from relay.store.codec import Sealed
from relay.store.merge import open_offline
from relay.store.model import Selection
from relay.store.sqlite import maintenance
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import EVERYTHING, NOW, claim

FILE = Path(__file__).parent / "files" / "version-3.db.gz"
LARGE = b"Subject: large\r\n\r\n" + b"a line of a large message\r\n" * 50_000
WAITING = {"plain": b"in clear", "large": LARGE, "sealed": b"sealed", "dsn": b"it bounced"}
STATES = {
    "plain": ["queued"],
    "large": ["queued"],
    "sealed": ["queued", "queued"],
    "dsn": ["queued"],
    "deferred": ["deferred"],
    "held": ["held"],
    "sending": ["sending"],
    "sent": ["sent"],
    "bounced": ["bounced"],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "relay.db"
    made.write_bytes(gzip.decompress(FILE.read_bytes()))
    return made


@pytest.fixture
async def store(path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(path, now=lambda: NOW, codec=Sealed([b"k" * 32], "the test"))
    yield opened
    await opened.close()


def named(found: Any) -> dict[str, Any]:
    return {str(one["subject"]): one for one in found}


def states(found: Any) -> dict[str, list[str]]:
    return {name: [one["state"] for one in shown["recipients"]] for name, shown in named(found).items()}


def test_a_command_shows_it_before_the_relay_has_opened_it(path: Path) -> None:
    assert maintenance.check(path) == []
    with open_offline(path) as reader:
        assert states(reader.search(EVERYTHING)) == STATES
        assert sum(row.recipients for row in reader.counts()) == 8
        assert sorted((row.state, row.recipients) for row in reader.deliveries(0)) == [("bounced", 1), ("sent", 1)]


async def test_everything_is_listed_with_its_time_line(store: SqliteStore) -> None:
    found: Any = await store.search(EVERYTHING)
    assert states(found) == STATES
    assert store.size() == (7, sum(map(len, WAITING.values())) + len(b"deferred") + len(b"held") + len(b"sending"))
    shown: Any = await store.get(named(found)["deferred"]["id"])
    assert [each["reply"] for each in shown["recipients"][0]["attempts"]] == ["451 later"]
    assert [note["text"] for note in shown["notes"]] == ["deferred"]
    assert len(await store.search(Selection(to="b@example.net"))) == 1


async def test_everything_that_waits_is_claimed_with_its_content(store: SqliteStore) -> None:
    assert [one.state for one in await store.recover(NOW + 1)] == ["queued"]
    first = {one.id.strip("_").lower()[11:].strip("_"): one.content for one in await claim(store, NOW + 0.5)}
    assert first == WAITING
    await store.act("release", Selection(state="held"), NOW + 60)
    later = {one.content for one in await claim(store, NOW + 60)}
    assert later == {b"deferred", b"held", b"sending"}
    assert await claim(store, NOW + 61) == []


async def test_it_takes_mail_as_a_new_one_does(store: SqliteStore, path: Path) -> None:
    for one in await claim(store, NOW + 1):
        await store.unclaim(one.id)
    assert await store.act("drop", Selection(), NOW + 1)
    assert {row.state for row in await store.counts()} == {"sending"}
    assert await store.prune(NOW + 2, limit=100) == 8
    await store.close()
    assert maintenance.check(path) == []
