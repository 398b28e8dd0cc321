"""The posts to one receiver: what is due leaves, up to 8 at once, and what became of it is written in groups."""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from relay.clock import Clock
from relay.feedback import delivery_log
from relay.feedback.http_client import HttpClient
from relay.feedback.receiver import Receiver
from relay.feedback.receiver_health import Health
from relay.feedback.retry import KEEP_TRYING_S, Answer, next_attempt
from relay.store.events import Delivered, GivenUp, PostOutcome, PutOff, Waiting
from relay.store.sqlite.events_outbox import Outbox

AT_ONCE = 8
"""posts under way"""
RETRIES_AT_ONCE = 4
"""of them: events that their receiver never takes leave room for the others"""
FRESH, RETRIES = 24, 8
"""posts in memory: first attempts and others"""
PROBE_EVERY_S = 1.0
"""between retries while a receiver is down"""
RETRY_ALL_EVERY_S = 600.0
"""After an outage what was put off leaves at once, but no more often than this: it may be what never arrives."""
OF_A_STATEMENT = 500
"""posts that are given up or made due in one transaction"""
LOOK_AGAIN_S = 10.0
"""how soon posts are seen that no `wake` announced: those that a command let begin anew"""
FINISH_WITHIN_S = 2.0
"""for posts under way at a stop"""

Count = Callable[[str], None]


class Status(NamedTuple):
    """How a receiver does. Times are seconds since the epoch."""

    host: str
    waiting: int
    dead: int
    last_result: str | None
    failing_since: float | None
    place: str
    """in the configuration: `events[0]`"""


class ReceiverTask:
    """Posts what the outbox has for a receiver. `run` it as one task.

    An event of a message leaves once the one before has arrived or is given up: the outbox sees to that.
    """

    def __init__(self, receiver: Receiver, place: str, outbox: Outbox, clock: Clock, count: Count) -> None:
        """`place`: the receiver's in the configuration (`events[0]`)."""
        self.receiver = receiver
        self.place = place
        self.health = Health()
        self._outbox = outbox
        self._clock = clock
        self._count = count
        self._changed = asyncio.Event()
        self._fresh: deque[Waiting] = deque()
        self._retries: deque[Waiting] = deque()
        self._under_way: dict[int, asyncio.Task[None]] = {}
        """by `seq`"""
        self._retrying: set[int] = set()
        """those of them that are no first attempts"""
        self._retry_at = 0.0
        """while it is down"""
        self._outcomes: list[PostOutcome] = []
        """not written yet"""
        self._stopping = False
        self._recovered = False
        self._retry_all_from = 0.0
        self._overdue: str | None = None
        """the result of a post that was given up while the receiver was down"""

    def wake(self) -> None:
        """The outbox has more."""
        self._changed.set()

    def stop(self) -> None:
        """No further post begins; `run` returns once those under way are over."""
        self._stopping = True
        self._changed.set()

    async def run(self) -> None:
        """Post until `stop`. Raises StoreError: run it again."""
        async with HttpClient(self.receiver, AT_ONCE) as client:
            try:
                while not self._is_over():
                    await self._step(client)
            finally:
                self._fresh.clear()
                self._retries.clear()
                for task in self._under_way.values():
                    task.cancel()
                await asyncio.gather(*self._under_way.values(), return_exceptions=True)

    def _is_over(self) -> bool:
        return self._stopping and not self._outcomes and not self._under_way

    async def _step(self, client: HttpClient) -> None:
        """Write what is over, fetch what is due, let it leave, and wait for the next change."""
        self._changed.clear()
        next_at = await self._exchange()
        await self._tidy()
        self._begin(client)
        if self._outcomes or self._is_over():
            return
        if self.health.is_down and self._retries and not self._retrying and len(self._under_way) < AT_ONCE:
            next_at = self._retry_at
        await self._wait(next_at)

    async def _wait(self, until: float | None) -> None:
        wait_s = LOOK_AGAIN_S if until is None else min(LOOK_AGAIN_S, max(0.0, until - self._clock.now()))
        try:
            async with asyncio.timeout(wait_s):
                await self._changed.wait()
        except TimeoutError:
            return

    async def _exchange(self) -> float | None:
        """Write the outcomes and fetch what is due; when the next retry is due, if there is room for it."""
        outcomes = self._outcomes[:]
        held = {post.seq for post in (*self._fresh, *self._retries)} | self._under_way.keys()
        fresh, retries = (0, 0) if self._stopping else (FRESH - len(self._fresh), RETRIES - len(self._retries))
        batch = await self._outbox.exchange(self.receiver.key, outcomes, held, fresh, retries)
        del self._outcomes[: len(outcomes)]
        for post in batch.posts:
            (self._retries if post.attempts else self._fresh).append(post)
        return batch.next_at if retries else None

    async def _tidy(self) -> None:
        """After an outage what was put off leaves at once. What is too old by then is given up together."""
        if self._recovered:
            moved = await self._outbox.retry_now(self.receiver.key, OF_A_STATEMENT)
            self._recovered = moved == OF_A_STATEMENT
            self._retry_all_from = self._clock.now() + RETRY_ALL_EVERY_S
            self._changed.set()
        if self._overdue is not None:
            before = self._clock.now() - KEEP_TRYING_S
            given_up = await self._outbox.give_up_older(self.receiver.key, before, self._overdue, OF_A_STATEMENT)
            if given_up:
                self._fresh.clear()  # some of these may be among them
                self._retries.clear()
                delivery_log.given_up_unsent(self.place, self.receiver.host, given_up)
                for _ in range(given_up):
                    self._count("dead")
            if given_up < OF_A_STATEMENT:
                self._overdue = None
            self._changed.set()

    def _begin(self, client: HttpClient) -> None:
        """Let posts leave while there is room. First attempts don't wait for retries."""
        while len(self._under_way) < AT_ONCE and not self._stopping:
            if self._may_retry():
                post = self._retries.popleft()
                self._retrying.add(post.seq)
                self._retry_at = self._clock.now() + PROBE_EVERY_S
            elif self._fresh:
                post = self._fresh.popleft()
            else:
                return
            name = f"post {post.event_id}"
            self._under_way[post.seq] = asyncio.create_task(self._attempt(client, post), name=name)

    def _may_retry(self) -> bool:
        if not self._retries:
            return False
        if self.health.is_down:
            return not self._retrying and self._clock.now() >= self._retry_at
        return len(self._retrying) < RETRIES_AT_ONCE

    async def _attempt(self, client: HttpClient, post: Waiting) -> None:
        try:
            try:
                answer = await client.post(post, self._clock.today())
            except Exception as error:  # noqa: BLE001 - it is tried again, as after any failure
                answer = Answer(type(error).__name__)
            self._outcomes.append(self._outcome(post, answer))
        finally:
            del self._under_way[post.seq]
            self._retrying.discard(post.seq)
            self._changed.set()
        self._begin(client)

    def _outcome(self, post: Waiting, answer: Answer) -> PostOutcome:
        now, health = self._clock.now(), self.health
        if answer.is_delivered:
            self._count("delivered")
            self._recovered = self._recovered or (health.is_down and now >= self._retry_all_from)
            since = health.failing_since
            if health.worked(answer.result) and since is not None:
                delivery_log.working(self.place, self.receiver.host, now - since)
            return Delivered(post)
        self._count("failed")
        if health.failed(answer.result, now):
            delivery_log.failing(self.place, self.receiver.host, answer.result)
        chance = random.random()  # noqa: S311 - spreads load
        due_at = next_attempt(answer, post.attempts, post.created_at, now, chance)
        if due_at is not None:
            return PutOff(post, due_at, answer.result)
        self._count("dead")
        delivery_log.given_up(post, self.place, self.receiver.host, answer.result)
        if health.is_down:
            self._overdue = answer.result
        return GivenUp(post, answer.result)
