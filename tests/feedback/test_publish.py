"""Events out: real receivers on sockets, a real events file, and a clock that the test moves."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from relay.clock import Clock
from relay.feedback.publish import Publisher
from relay.feedback.receiver import Receiver
from relay.feedback.receiver_task import AT_ONCE, RETRIES_AT_ONCE
from relay.feedback.retry import KEEP_TRYING_S
from relay.store.events import Post
from relay.store.sqlite.events_file import EventsFile, open_events
from relay.supervise import Supervisor
from tests.feedback.receiving import SECRET, body, receiving
from tests.support.tls import Certificates


class MovedClock(Clock):
    """The relay's time is what the test says. The machine's time of day is the real one."""

    time = 1_800_000_000.0

    def now(self) -> float:
        return self.time


class World:
    """An events file, a publisher over it, and a clock."""

    def __init__(self, events: EventsFile, clock: MovedClock) -> None:
        self.events, self.clock = events, clock
        self.counted: Counter[str] = Counter()
        self.ended: list[str] = []
        self.publisher = self.another()
        self._seq = 0

    def another(self) -> Publisher:
        supervisor = Supervisor(lambda name, error: self.ended.append(f"{name}: {error}"))
        return Publisher(self.events, self.clock, lambda result: self.counted.update([result]), supervisor)

    async def put(self, receiver: Receiver, *named: tuple[str, str]) -> None:
        """Events (id, message) for a receiver."""
        self._seq += 1
        posts = [(one, message, 0, Post(receiver.key, body(one, message))) for one, message in named]
        await self.events.follow("relay.db", self._seq, posts)
        self.publisher.wake()

    def later(self, seconds: float) -> None:
        self.clock.time += seconds
        self.publisher.wake()

    async def until_waiting(self, *waiting: int) -> None:
        """Until so many posts wait, of each receiver."""
        async with asyncio.timeout(20):
            while tuple(one.waiting for one in await self.publisher.status()) != waiting:
                await asyncio.sleep(0.005)

    async def until_counted(self, result: str, times: int) -> None:
        async with asyncio.timeout(20):
            while self.counted[result] < times:
                await asyncio.sleep(0.005)


@asynccontextmanager
async def started(path: Path, *receivers: Receiver, fails: bool = False) -> AsyncIterator[World]:
    """`fails`: tasks may end by errors."""
    clock = MovedClock()
    events = await open_events(path / "relay-events.db", clock.now)
    world = World(events, clock)
    try:
        await world.publisher.apply(receivers)
        yield world
    finally:
        await world.publisher.stop()
        await events.close()
    assert fails or world.ended == []


def numbered(count: int, message: str = "m{n}") -> Sequence[tuple[str, str]]:
    return [(f"e{n}", message.format(n=n)) for n in range(count)]


def failing_first(times: int, answer: int | str = 500) -> Callable[[str, int], int | str]:
    return lambda _id, n: answer if n <= times else 204


async def test_an_event_arrives_signed_and_leaves_the_outbox(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        await world.put(app.receiver, ("e1", "m1"))
        await world.until_waiting(0)
        assert app.arrived("m1") == ["e1"]
        assert world.counted == {"delivered": 1}


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (500, "500"),
        (404, "404"),
        (429, "429"),
        (410, "410"),
        ("redirect", "307"),
        ("close", "connection_lost"),
        ("hang", "timeout"),
        ("garbage", "unreadable"),
    ],
)
async def test_what_isnt_2xx_is_posted_again_with_the_same_id(
    tmp_path: Path, answer: int | str, result: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.feedback.http_client.WITHIN_S", 0.3)
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = failing_first(1, answer)
        await world.put(app.receiver, ("e1", "m1"))
        await world.until_counted("failed", 1)
        assert [one.last_result for one in await world.publisher.status()] == [result]
        world.later(3600)
        await world.until_waiting(0)
        assert app.ids == ["e1", "e1"]
        assert app.followed == []
        assert world.counted == {"failed": 1, "delivered": 1}


async def test_a_receiver_that_answers_without_end_has_its_event(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda event_id, _n: "endless" if event_id == "e1" else 200
        await world.put(app.receiver, ("e1", "m1"), ("e2", "m1"))
        await world.until_waiting(0)
        assert app.ids == ["e1", "e2"]


async def test_events_of_a_message_arrive_in_order_whatever_fails(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda event_id, n: 500 if n <= int(event_id[1:]) % 3 else 200
        await world.put(app.receiver, *[(f"e{n}", f"m{n % 5}") for n in range(40)])
        while len(app.arrived()) < 40:
            world.later(10)
            await asyncio.sleep(0.005)
        for message in range(5):
            assert app.arrived(f"m{message}") == [f"e{n}" for n in range(40) if n % 5 == message]
        await world.until_waiting(0)


async def test_an_event_that_always_fails_holds_up_its_message_only(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda event_id, _n: 500 if event_id == "e0" else 200
        await world.put(app.receiver, ("e0", "poison"), ("e1", "poison"), *[(f"f{n}", f"m{n}") for n in range(20)])
        await world.until_waiting(2)
        assert len(app.arrived()) == 20
        assert app.arrived("poison") == []


async def test_events_that_never_arrive_leave_room_for_the_others(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda event_id, n: 200 if event_id.startswith("f") else 500 if n == 1 else "hang"
        await world.put(app.receiver, *numbered(30))
        await world.until_counted("failed", 30)
        await world.put(app.receiver, ("f", "well"))
        await app.until(lambda: app.arrived() == ["f"])  # it is no longer down, and 30 are tried again
        await app.until(lambda: app.at_once == RETRIES_AT_ONCE)
        await world.put(app.receiver, *[(f"f{n}", f"well{n}") for n in range(30)])
        await world.until_waiting(30)
        assert len(app.arrived()) == 31
        assert app.most_at_once <= AT_ONCE
        app.script = lambda _id, _n: 200
        app.release.set()


async def test_no_more_than_eight_posts_are_under_way_and_none_twice(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda _id, _n: "hang"
        await world.put(app.receiver, *numbered(60))
        await app.until(lambda: app.at_once == AT_ONCE)
        for _ in range(5):
            world.publisher.wake()
        app.release.set()
        await world.until_waiting(0)
        assert app.most_at_once == AT_ONCE
        assert sorted(app.ids) == sorted(one for one, _ in numbered(60))


async def test_a_dead_receiver_delays_no_other(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        dead = await stack.enter_async_context(receiving())
        live = await stack.enter_async_context(receiving())
        world = await stack.enter_async_context(started(tmp_path, dead.receiver, live.receiver))
        dead.script = lambda _id, _n: "hang"
        await world.put(dead.receiver, *numbered(30))
        await world.put(live.receiver, *numbered(30))
        await world.until_waiting(30, 0)
        assert len(live.arrived()) == 30
        dead.release.set()


async def test_after_an_outage_all_that_was_put_off_leaves_at_once(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda _id, _n: 503
        await world.put(app.receiver, *numbered(30))
        await world.until_counted("failed", 30)
        world.later(1.5)  # all are due, and one is tried
        await world.until_counted("failed", 31)
        world.later(0.5)
        app.script = lambda _id, _n: 200
        world.later(0.5)
        await world.until_waiting(0)  # with no further step of the clock
        assert sorted(app.arrived()) == sorted(one for one, _ in numbered(30))
        assert len(app.got) == 61


async def test_a_post_is_given_up_after_three_days_and_the_next_of_its_message_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "relay.mail")
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda event_id, _n: 500 if event_id == "e1" else 200
        await world.put(app.receiver, ("e1", "m1"), ("e2", "m1"))
        await world.until_counted("failed", 1)
        world.later(KEEP_TRYING_S)
        await world.until_waiting(0)
        assert world.counted == {"failed": 2, "dead": 1, "delivered": 1}
        (status,) = await world.publisher.status()
        assert (status.host, status.waiting, status.dead) == ("127.0.0.1", 0, 1)
        assert (
            "event=event_given_up id=m1 event_id=e1 host=127.0.0.1 result=500 attempts=2 receiver=events[0]"
            in caplog.text
        )

        app.script = lambda _id, _n: 200
        assert await world.publisher.retry_dead() == 1
        await app.until(lambda: app.arrived() == ["e2", "e1"])
        await world.until_waiting(0)
        assert [one.dead for one in await world.publisher.status()] == [0]


async def test_an_outage_of_three_days_ends_what_waited_and_not_what_is_newer(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = lambda _id, _n: 503
        await world.put(app.receiver, *numbered(60), ("e60", "m0"))
        await world.until_counted("failed", 60)
        world.later(KEEP_TRYING_S)
        await world.put(app.receiver, ("new", "m0"))
        await world.until_counted("dead", 61)
        # One that is too old, and the newer one: its answer must come before the clock moves, or it waits further.
        await world.until_counted("failed", 62)
        app.script = lambda _id, _n: 200
        world.later(2)
        await world.until_waiting(0)
        assert app.arrived() == ["new"]


async def test_what_the_last_process_left_is_posted_again_with_its_id(tmp_path: Path) -> None:
    async with receiving() as app:
        async with started(tmp_path, app.receiver) as world:
            app.script = lambda event_id, _n: 200 if event_id == "e0" else "close"
            await world.put(app.receiver, ("e0", "m0"), ("e1", "m1"), ("e2", "m1"))
            await world.until_counted("failed", 1)
        app.script = lambda _id, _n: 200
        async with started(tmp_path, app.receiver) as world:
            world.later(2)
            await world.until_waiting(0)
        assert Counter(app.ids) == {"e0": 1, "e1": 2, "e2": 1}
        assert app.arrived("m1") == ["e1", "e2"]


async def test_what_was_under_way_when_the_process_died_is_posted_again(tmp_path: Path) -> None:
    async with receiving() as app, started(tmp_path, app.receiver) as dying:
        app.script = lambda _id, n: "hang" if n == 1 else 200
        await dying.put(app.receiver, ("e1", "m1"), ("e2", "m1"))
        await app.until(lambda: app.ids == ["e1"])
        # All that the file knows then is what a process that starts after a kill finds.
        async with started(tmp_path, app.receiver) as next_one:
            await app.until(lambda: app.arrived() == ["e1"])
            app.release.set()
            await next_one.until_waiting(0)
        assert app.ids[:3] == ["e1", "e1", "e2"]


async def test_nothing_more_is_posted_while_the_file_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relay.feedback.publish.FINISH_WITHIN_S", 0.1)
    async with receiving() as app:
        async with started(tmp_path, app.receiver, fails=True) as world:
            app.script = lambda _id, n: "hang" if n == 1 else 200
            await world.put(app.receiver, ("e1", "m1"), ("e2", "m1"))
            await app.until(lambda: app.ids == ["e1"])
            await world.events.close()
            app.release.set()
            async with asyncio.timeout(20):
                while len(world.ended) < 3:  # it is begun again, and again
                    await asyncio.sleep(0.01)
            assert set(world.ended) == {"receiver 127.0.0.1: the store is closed"}
        async with started(tmp_path, app.receiver) as world:
            await world.until_waiting(0)
        assert app.ids == ["e1", "e1", "e2"]


async def test_no_proxy_of_the_environment_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        await world.put(app.receiver, ("e1", "m1"))
        await app.until(lambda: app.arrived() == ["e1"])


async def test_a_receiver_that_does_not_listen_is_tried_again(tmp_path: Path) -> None:
    async with receiving() as app:
        gone = app.receiver
    async with started(tmp_path, gone) as world:
        await world.put(gone, ("e1", "m1"))
        await world.until_counted("failed", 1)
        assert [(one.last_result, one.waiting) for one in await world.publisher.status()] == [("connect", 1)]


async def test_a_reload_ends_removed_receivers_and_keeps_their_posts(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        first = await stack.enter_async_context(receiving())
        second = await stack.enter_async_context(receiving())
        world = await stack.enter_async_context(started(tmp_path, first.receiver))
        await world.publisher.apply([second.receiver])
        await world.put(first.receiver, ("e1", "m1"))
        await world.put(second.receiver, ("e2", "m1"))
        await second.until(lambda: second.arrived() == ["e2"])
        assert first.got == []
        await world.publisher.apply([first.receiver, second.receiver])
        await first.until(lambda: first.arrived() == ["e1"])


async def test_the_backlog_is_of_configured_receivers_and_as_old_as_its_oldest_post(tmp_path: Path) -> None:
    down, gone = Receiver("http://127.0.0.1:9/down", SECRET), Receiver("http://127.0.0.1:9/gone", SECRET)
    async with receiving() as app, started(tmp_path, down, app.receiver) as world:
        assert await world.publisher.backlog() == (0, 0.0)
        await world.put(gone, ("e0", "m0"))
        world.later(100)
        await world.put(down, ("e1", "m1"), ("e2", "m1"))
        world.later(50)
        await world.put(app.receiver, ("e3", "m2"))
        await app.until(lambda: app.arrived() == ["e3"])
        await world.until_waiting(2, 0)
        assert await world.publisher.backlog() == (2, 50.0)


async def test_posts_to_a_removed_receiver_are_given_up_after_three_days(tmp_path: Path) -> None:
    gone = Receiver("http://127.0.0.1:9/", SECRET)
    async with started(tmp_path) as world:
        await world.put(gone, ("e1", "m1"), ("e2", "m1"))
        await world.publisher.stop()
        world.later(KEEP_TRYING_S + 1)
        await world.publisher.apply([])
        await world.until_counted("dead", 2)


async def test_an_outage_is_two_log_lines_without_path_or_query(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "relay")
    async with receiving() as app, started(tmp_path, app.receiver) as world:
        app.script = failing_first(2)
        await world.put(app.receiver, *numbered(3))
        await world.until_counted("failed", 3)
        world.later(5)
        await world.until_counted("failed", 6)
        assert [one.failing_since is not None for one in await world.publisher.status()] == [True]
        world.later(60)
        await world.until_waiting(0)
        assert [line for line in caplog.messages if "receiver" in line] == [
            "event=receiver_failing receiver=events[0] host=127.0.0.1 result=500",
            "event=receiver_working receiver=events[0] host=127.0.0.1 after=65s",
        ]
        assert "secret" not in caplog.text


async def test_tls_is_verified_against_the_ca_file(tmp_path: Path, certificates: Certificates) -> None:
    context = certificates.good.server_context()
    async with receiving(context, certificates.ca_file) as app, started(tmp_path, app.receiver) as world:
        system = Receiver(app.receiver.url, SECRET)
        await world.publisher.apply([system])
        await world.put(system, ("e1", "m1"))
        await world.until_counted("failed", 1)
        assert [one.last_result for one in await world.publisher.status()] == [
            "tls: unable to get local issuer certificate"
        ]
        assert app.got == []
        await world.publisher.apply([app.receiver])
        world.later(2)
        await app.until(lambda: app.arrived() == ["e1"])
