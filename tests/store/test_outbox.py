"""The outbox of the events file: order, what is due, what is given up, and what the command for it shows."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from importlib import resources
from pathlib import Path

import pytest

from relay.__main__ import main
from relay.store.events import Delivered, GivenUp, Post, PostOutcome, PutOff
from relay.store.sqlite.events_file import EventsFile, open_events
from relay.store.sqlite.events_outbox import Backlog
from relay.store.sqlite.events_schema import APPLICATION_ID, events_path

APP, OTHER = "aaaa", "bbbb"
DAY = 86_400.0
CONFIG = """
store: relay.db
upstreams: {mx: {host: 127.0.0.1, port: 1025, tls: none}}
lanes: {otp: {upstreams: mx}, bulk: {upstreams: mx}}
"""


class Time:
    def __init__(self) -> None:
        self.at = 1_800_000_000.0

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def now() -> Time:
    return Time()


@pytest.fixture
async def events(tmp_path: Path, now: Time) -> AsyncIterator[EventsFile]:
    events = await open_events(events_path(tmp_path / "relay.db"), now)
    yield events
    await events.close()


async def put(events: EventsFile, *named: tuple[str, str], receiver: str = APP) -> None:
    """Events (id, message)."""
    body = json.dumps({"type": "delivered"}).encode()
    await events.follow("relay.db", 1, [(one, message, 0, Post(receiver, body)) for one, message in named])


async def due(events: EventsFile, *outcomes: PostOutcome, held: frozenset[int] = frozenset(), want: int = 100) -> str:
    """The ids of what is due, after these outcomes."""
    batch = await events.outbox.exchange(APP, outcomes, held, want, want)
    return " ".join(post.event_id for post in batch.posts)


async def test_the_first_of_each_message_is_due_and_the_next_once_it_has_ended(events: EventsFile, now: Time) -> None:
    await put(events, ("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"))
    await put(events, ("x", "a"), receiver=OTHER)
    batch = await events.outbox.exchange(APP, (), (), 100, 100)
    a1, b1 = batch.posts
    assert (a1.event_id, b1.event_id, batch.next_at) == ("a1", "b1", None)
    assert await due(events, PutOff(a1, now.at + 5, "500")) == "b1"
    assert (await events.outbox.exchange(APP, (), (), 100, 100)).next_at == now.at + 5
    now.at += 5
    assert await due(events, Delivered(b1)) == "a1"
    again = (await events.outbox.exchange(APP, (), (), 1, 1)).posts[0]
    assert (again.attempts, again.created_at) == (1, now.at - 5)
    assert await due(events, GivenUp(again, "500")) == "a2"
    await put(events, ("a4", "a"))
    assert await due(events) == "a2"


async def test_what_is_held_is_left_out_and_no_more_come_than_asked_for(events: EventsFile) -> None:
    await put(events, *[(f"e{n}", f"m{n}") for n in range(6)])
    posts = (await events.outbox.exchange(APP, (), (), 2, 2)).posts
    held = frozenset(post.seq for post in posts)
    assert await due(events, held=held, want=3) == "e2 e3 e4"
    assert await due(events, held=held, want=0) == ""


async def test_an_event_that_is_there_already_stays_as_it_is(events: EventsFile) -> None:
    await put(events, ("e1", "m1"), ("e1", "m1"))
    await put(events, ("e1", "m1"))
    assert await events.outbox.backlogs() == {APP: Backlog(1, 0)}


async def test_whatever_happens_each_message_keeps_its_order_and_loses_nothing(events: EventsFile, now: Time) -> None:
    chance = random.Random(11)
    made = {f"m{n}": [f"m{n}.{k}" for k in range(6)] for n in range(8)}
    left = [(one, message) for message, ids in made.items() for one in ids]
    left.sort(key=lambda pair: (pair[0].split(".")[1], chance.random()))
    ended: dict[str, list[str]] = {message: [] for message in made}
    outcomes: list[PostOutcome] = []
    while any(ended[message] != ids for message, ids in made.items()):
        some, left = left[:5], left[5:]
        await put(events, *some)
        batch = await events.outbox.exchange(APP, outcomes, (), chance.randint(1, 9), chance.randint(1, 9))
        outcomes = []
        for post in batch.posts:
            outcome = chance.choice((Delivered(post), GivenUp(post, "500"), PutOff(post, now.at + 3, "500")))
            outcomes.append(outcome)
            if not isinstance(outcome, PutOff):
                ended[post.message_id].append(post.event_id)
        now.at += 1
    backlog = await events.outbox.exchange(APP, outcomes, (), 1, 1)
    assert backlog == ((), None)


async def test_old_posts_are_given_up_together_and_newer_ones_of_the_message_follow(
    events: EventsFile, now: Time
) -> None:
    await put(events, ("a1", "a"), ("a2", "a"), ("b1", "b"))
    await put(events, ("x", "a"), receiver=OTHER)
    now.at += DAY
    await put(events, ("a3", "a"))
    assert await events.outbox.give_up_older(APP, now.at - DAY, "503", 2) == 2
    assert await events.outbox.give_up_older(APP, now.at - DAY, "503", 2) == 1
    assert await due(events) == "a3"
    assert await events.outbox.give_up_removed([APP], now.at - DAY, 10) == 1
    assert await events.outbox.backlogs() == {APP: Backlog(1, 3), OTHER: Backlog(0, 1)}


async def test_the_result_of_a_post_that_was_given_up_meanwhile_changes_nothing(events: EventsFile, now: Time) -> None:
    await put(events, ("a1", "a"))
    (post,) = (await events.outbox.exchange(APP, (), (), 1, 1)).posts
    await events.outbox.give_up_older(APP, now.at, "503", 10)
    assert await due(events, PutOff(post, now.at, "503")) == ""
    assert await events.outbox.backlogs() == {APP: Backlog(0, 1)}


async def test_what_was_put_off_is_made_due_in_portions(events: EventsFile, now: Time) -> None:
    await put(events, *[(f"e{n}", f"m{n}") for n in range(5)])
    posts = (await events.outbox.exchange(APP, (), (), 5, 5)).posts
    assert await due(events, *[PutOff(post, now.at + DAY, "503") for post in posts]) == ""
    assert [await events.outbox.retry_now(APP, 3) for _ in range(3)] == [3, 2, 0]
    assert len((await due(events)).split()) == 5


async def test_given_up_posts_are_deleted_with_the_events_of_their_age(events: EventsFile, now: Time) -> None:
    await put(events, ("a1", "a"), ("b1", "b"))
    (a1, _) = (await events.outbox.exchange(APP, (), (), 2, 2)).posts
    await due(events, GivenUp(a1, "500"))
    await events.prune(now.at + 1, 100)
    assert await events.outbox.backlogs() == {APP: Backlog(1, 0)}


@pytest.mark.parametrize(
    ("recipient", "reason", "erased"),
    [
        ("Ann@example.net", None, True),
        ("bob@example.net", "550 <ann@EXAMPLE.net>: unknown", True),
        ("joann@example.net", None, False),
        ("ann@example.network", None, False),
        ("ann@example.net.example.org", "ann+1@example.net", False),
    ],
)
async def test_an_address_is_erased_with_the_posts_that_name_it(
    recipient: str, reason: str | None, erased: bool, events: EventsFile, tmp_path: Path
) -> None:
    body = json.dumps({"data": {"recipient": recipient, "reason": reason}}).encode()
    posts = [("e1", "m1", 0, Post(APP, body)), ("e2", "m1", 1, Post(APP, b"{}")), ("e3", "m2", 0, Post(APP, b"{}"))]
    await events.follow("relay.db", 1, posts)
    (e1, _) = (await events.outbox.exchange(APP, (), (), 2, 2)).posts
    assert await events.erase("ann@example.net") == erased
    assert await due(events) == ("e2 e3" if erased else "e1 e3")
    assert await due(events, Delivered(e1)) == "e2 e3"


async def test_the_command_lists_what_waits_and_lets_dead_ones_begin_anew(
    events: EventsFile, now: Time, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(CONFIG)

    def run(*words: str) -> tuple[int, str]:
        code = main(["receivers", "-c", str(config), *words])
        return code, capsys.readouterr().out

    assert run("--dead") == (0, "nothing was given up\n")
    assert run("--retry-dead")[0] == 1
    await events.outbox.name({APP: "app.example.com"})
    await put(events, ("e1", "m1"), ("e2", "m1"), ("e3", "m2"))
    await put(events, ("x1", "m1"), receiver=OTHER)
    e1, e3 = (await events.outbox.exchange(APP, (), (), 10, 10)).posts
    await events.outbox.exchange(APP, [GivenUp(e1, "http 500"), PutOff(e3, now.at + 5, "timeout")], (), 0, 0)

    shown = [json.loads(line) for line in run("--json")[1].splitlines()]
    at = "2027-01-15T08:00:00.000Z"
    assert shown == [
        {
            "receiver": "events[0]",
            "host": "app.example.com",
            "removed": False,
            "waiting": 2,
            "failing": 1,
            "oldest_at": at,
            "dead": 1,
        },
        {"receiver": None, "host": None, "removed": True, "waiting": 1, "failing": 0, "oldest_at": at, "dead": 0},
    ]
    (dead,) = (json.loads(line) for line in run("--dead", "--json")[1].splitlines())
    assert dead == {
        "id": "e1",
        "kind": "delivered",
        "message": "m1",
        "receiver": "events[0]",
        "host": "app.example.com",
        "attempts": 1,
        "result": "http 500",
        "created_at": at,
        "dead_at": at,
    }
    assert "app.example.com" in run("--dead")[1]
    assert "(removed)" in run()[1]
    assert run()[1].split()[:6] == ["RECEIVER", "HOST", "WAITING", "FAILING", "OLDEST", "DEAD"]
    assert run("--retry-dead", "--json") == (0, '{"changed": 1}\n')
    assert await events.outbox.backlogs() == {APP: Backlog(3, 0), OTHER: Backlog(1, 0)}
    now.at += 10 * DAY * 365
    (restarted, _, _) = (await events.outbox.exchange(APP, (), (), 10, 10)).posts
    assert restarted.attempts == 0


async def test_receivers_of_one_host_are_told_apart_by_their_places_and_removed_ones_are_marked(
    events: EventsFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(CONFIG)
    await events.outbox.name({"a": "app.example.com", "b": "app.example.com", "c": "app.example.com"})
    await events.outbox.name({"c": "app.example.com", "a": "app.example.com"})
    await put(events, ("e1", "m1"), receiver="a")
    assert main(["receivers", "-c", str(config), "--json"]) == 0
    shown = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(one["receiver"], one["waiting"], one["removed"]) for one in shown] == [
        ("events[0]", 0, False),
        ("events[1]", 1, False),
        (None, 0, True),
    ]


async def test_the_file_of_an_older_relay_is_read_and_brought_up_to_date(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config, path = tmp_path / "relay.yaml", tmp_path / "relay-events.db"
    config.write_text(CONFIG)
    script = (resources.files("relay.store.sqlite") / "sql" / "events" / "1.sql").read_text()
    with closing(sqlite3.connect(path)) as old:
        old.executescript(f"PRAGMA journal_mode = WAL; PRAGMA application_id = {APPLICATION_ID}; {script}")
        old.executescript("PRAGMA user_version = 1; INSERT INTO receiver_host VALUES ('a', 'app.example.com')")

    def shown(*words: str) -> list[tuple[str | None, str]]:
        assert main(["receivers", "-c", str(config), "--json", *words]) == 0
        return [(one["receiver"], one["host"]) for one in map(json.loads, capsys.readouterr().out.splitlines())]

    assert shown() == [(None, "app.example.com")]
    assert shown("--dead") == []
    newer = await open_events(path)
    await newer.outbox.name({"a": "app.example.com"})
    await newer.close()
    assert shown() == [("events[0]", "app.example.com")]


@pytest.mark.parametrize("words", [(), ("--dead",), ("--json",)])
def test_the_command_reads_a_store_without_events(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(CONFIG)
    assert main(["receivers", "-c", str(config), *words]) == 0
    assert list(tmp_path.iterdir()) == [config]
