"""Any sequence of calls leaves the store as a dictionary would be: no recipient is lost, no body kept or missed."""

from __future__ import annotations

import asyncio
import sqlite3
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from relay.store.base import StoreError
from relay.store.model import (
    BOOKED,
    MOST_DEATHS,
    OPEN_STATES,
    SUSPECT_DEATHS,
    Action,
    RecipientUpdate,
    Selection,
    Settlement,
    State,
)
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import NOW, attempt, message, on_writer

T = TypeVar("T")
(STEP_S,) = BOOKED.ladder_s
SETTLED: tuple[State, ...] = (
    "sent", "deferred", "bounced", "expired", "superseded", "suppressed", "ambiguous", "held", "queued",
)  # fmt: skip
Outcome = tuple[int, State]
"""a recipient's position and what becomes of it"""
OUTCOMES = st.one_of(
    st.tuples(st.just(0), st.sampled_from(SETTLED)).map(lambda one: [one]),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from(SETTLED)), max_size=3),
)


@dataclass
class Expected:
    state: State
    due: float | None
    final: bool = False
    booked: float | None = None
    """with `sending`: due again then after a crash; with `queued` and no `due`: a suspect's time"""
    deaths: int = 0

    def become(self, state: State, due: float | None, *, booked: float | None = None, deaths: int = 0) -> None:
        self.state, self.due, self.final, self.booked, self.deaths = state, due, False, booked, deaths

    @property
    def suspect_at(self) -> float | None:
        return self.booked if self.state == "queued" and self.due is None else None

    def is_due(self, now: float) -> bool:
        return any(at is not None and at <= now for at in (self.due, self.suspect_at))

    def die(self) -> None:
        """Its relay ended while it was `sending`."""
        deaths = self.deaths + 1
        if self.final:
            self.become("ambiguous", None, deaths=self.deaths)
        elif deaths >= MOST_DEATHS:
            self.become("held", None, deaths=deaths)
        elif deaths >= SUSPECT_DEATHS:
            self.become("queued", None, booked=self.booked, deaths=deaths)
        else:
            self.become("queued", self.booked, deaths=deaths)


@dataclass
class Model:
    """What the store should hold."""

    key: str
    accepted_at: float
    content: bytes
    recipients: list[Expected] = field(default_factory=list)

    @property
    def open(self) -> bool:
        return any(recipient.state in OPEN_STATES for recipient in self.recipients)


class Machine(RuleBasedStateMachine):
    messages: Bundle[str] = Bundle("messages")

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.folder = tempfile.TemporaryDirectory()
        self.now = NOW
        self.models: dict[str, Model] = {}
        self.store = self.open()

    def open(self) -> SqliteStore:
        return self.run(open_store(Path(self.folder.name) / "relay.db", now=lambda: self.now))

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(call)

    def teardown(self) -> None:
        self.run(self.store.close())
        self.runner.close()
        self.folder.cleanup()

    @rule(
        target=messages,
        count=st.integers(1, 3),
        claimed=st.booleans(),
        key=st.sampled_from("xy"),
        size=st.sampled_from([1, 500, 700_000]),
    )
    def put(self, count: int, claimed: bool, key: str, size: int) -> str:
        self.now += 1
        to = [f"user{n}@example.net" for n in range(count)]
        new = message(*to, at=self.now, supersede_key=key, content=key.encode() * size)
        self.run(self.store.put(new, claimed=claimed))
        begin = Expected("sending", None, booked=self.now + STEP_S) if claimed else Expected("queued", self.now)
        self.models[new.id] = Model(key, self.now, new.content, [replace(begin) for _ in to])
        return new.id

    @rule(limit=st.integers(1, 4), later=st.sampled_from([0, 30]))
    def claim(self, limit: int, later: float) -> None:
        self.now += later
        taken = self.run(self.store.claim("otp", self.now, messages=limit, size_bytes=10**9))
        due = {
            message_id: [n for n, each in enumerate(model.recipients) if each.is_due(self.now)]
            for message_id, model in self.models.items()
            if any(each.due is not None and each.due <= self.now for each in model.recipients)
        }
        if not due and not self._suspect_in_hand():
            limit = 1
            due = {
                message_id: positions
                for message_id, model in self.models.items()
                if (positions := [n for n, each in enumerate(model.recipients) if each.is_due(self.now)])
            }
        assert len(taken) == min(limit, len(due))
        for queued in taken:
            model = self.models[queued.id]
            assert [each.position for each in queued.due] == due[queued.id]
            assert queued.content == model.content
            for position in due[queued.id]:
                each = model.recipients[position]
                each.become("sending", None, booked=self.now + STEP_S, deaths=each.deaths)

    def _suspect_in_hand(self) -> bool:
        everybody = [each for model in self.models.values() for each in model.recipients]
        return any(each.state == "sending" and each.deaths >= SUSPECT_DEATHS for each in everybody)

    @rule(message_id=messages, position=st.integers(0, 2))
    def mark_final(self, message_id: str, position: int) -> None:
        self.run(self.store.mark_final(message_id, [position]))
        recipients = self.models[message_id].recipients if message_id in self.models else []
        if position < len(recipients) and recipients[position].state == "sending":
            recipients[position].final = True

    @rule(message_id=messages, outcomes=OUTCOMES, tried=st.booleans())
    def settle(self, message_id: str, outcomes: list[Outcome], tried: bool) -> None:
        settlement = self._settlement(message_id, outcomes, tried)
        if message_id not in self.models:
            with pytest.raises(StoreError):
                self.run(self.store.settle(settlement))
            return
        self.run(self.store.settle(settlement))
        self._settled(message_id, outcomes)

    @rule(
        fresh=st.integers(0, 3),
        some=st.lists(st.tuples(messages, OUTCOMES, st.sampled_from([True, True, True, False])), max_size=9),
    )
    def come_and_go_at_once(self, fresh: int, some: list[tuple[str, list[Outcome], bool]]) -> None:
        """Messages with one recipient arrive, and others depart, in one transaction as far as that goes."""
        self.now += 1
        new = [message(f"one{n}@example.net", at=self.now, supersede_key="x") for n in range(fresh)]
        leaving = [self._settlement(*each) for each in some]

        async def submit() -> list[Any]:
            puts = (self.store.put(each, claimed=False) for each in new)
            return await asyncio.gather(*puts, *map(self.store.settle, leaving), return_exceptions=True)

        outcomes = self.run(submit())
        unknown = [each.message_id not in self.models for each in leaving]
        assert [isinstance(each, StoreError) for each in outcomes] == [False] * fresh + unknown
        assert [each for each in outcomes if each is not None and not isinstance(each, StoreError)] == []
        for each in new:
            self.models[each.id] = Model("x", self.now, each.content, [Expected("queued", self.now)])
        for message_id, ended, _ in some:
            if message_id in self.models:
                self._settled(message_id, ended)

    def _settlement(self, message_id: str, outcomes: list[Outcome], tried: bool) -> Settlement:
        """`tried`: as a lane makes it, an attempt for each outcome and the size where there is one recipient only."""
        updates = tuple(RecipientUpdate(position, state, next_at=self.now + 20) for position, state in outcomes)
        timings_ms = {"wait": 1.0}
        model = self.models.get(message_id)
        if not tried or model is None:
            return Settlement(message_id, updates, timings_ms=timings_ms)
        only_bytes = len(model.content) if len(model.recipients) == 1 else None
        attempts = tuple(attempt(position) for position, _ in outcomes)
        return Settlement(message_id, updates, attempts, timings_ms, only_bytes=only_bytes)

    def _settled(self, message_id: str, outcomes: list[Outcome]) -> None:
        model = self.models[message_id]
        for position, state in outcomes:
            if position < len(model.recipients) and model.recipients[position].state in OPEN_STATES:
                model.recipients[position].become(state, self.now + 20 if state in ("queued", "deferred") else None)

    @rule(message_id=messages)
    def unclaim(self, message_id: str) -> None:
        self.run(self.store.unclaim(message_id))
        if message_id in self.models:
            model = self.models[message_id]
            for each in model.recipients:
                if each.state == "sending" and each.deaths >= SUSPECT_DEATHS:
                    each.become("queued", None, booked=model.accepted_at, deaths=each.deaths)
                elif each.state == "sending":
                    each.become("queued", model.accepted_at, deaths=each.deaths)

    @rule(action=st.sampled_from(["retry", "hold", "release", "drop"]), only=st.none() | messages)
    def act(self, action: Action, only: str | None) -> None:
        changed = self.run(self.store.act(action, Selection(ids=(only,) if only else ()), self.now))
        expected = set()
        for message_id, model in self.models.items():
            for each in model.recipients:
                if only in (None, message_id) and self._act(action, each, named=only is not None):
                    expected.add(message_id)
        assert set(changed) == expected

    def _act(self, action: Action, each: Expected, *, named: bool) -> bool:
        match action, each.state:
            case "retry", "ambiguous" if not named:
                return False
            case "retry", ("queued" | "deferred" | "ambiguous"):
                each.become("queued", self.now)
            case "hold", ("queued" | "deferred"):
                each.become("held", None, deaths=each.deaths)
            case "release", "held":
                each.become("queued", self.now)
            case "drop", ("queued" | "deferred" | "held" | "ambiguous"):
                each.become("bounced", None)
            case _:
                return False
        return True

    @rule(message_id=messages, key=st.sampled_from("xy"))
    def supersede(self, message_id: str, key: str) -> None:
        ended = self.run(self.store.supersede(key, message_id, self.now))
        expected = set()
        for older, model in self.models.items():
            for each in model.recipients:
                if older < message_id and model.key == key and each.state in ("queued", "deferred"):
                    each.become("superseded", None)
                    expected.add(older)
        assert set(ended) == expected

    @rule()
    def restart(self) -> None:
        self.run(self.store.close())
        self.store = self.open()
        left = [each for model in self.models.values() for each in model.recipients if each.state == "sending"]
        assert sum(one.recipients for one in self.run(self.store.recover(self.now))) == len(left)
        for each in left:
            each.die()

    @rule(ago=st.integers(0, 5))
    def prune(self, ago: int) -> None:
        before = self.now - ago
        old = [each for each, model in self.models.items() if model.accepted_at < before and not model.open]
        assert self.run(self.store.prune(before, limit=1000)) == len(old)
        for each in old:
            del self.models[each]

    @invariant()
    def every_recipient_is_where_it_should_be(self) -> None:
        found: Any = self.run(self.store.search(Selection(limit=10_000)))
        shown = {each["id"]: [recipient["state"] for recipient in each["recipients"]] for each in found}
        assert shown == {key: [each.state for each in model.recipients] for key, model in self.models.items()}
        everybody = [each for model in self.models.values() for each in model.recipients]
        times = [each.due for each in everybody if each.due is not None]
        if not self._suspect_in_hand():
            times += [each.suspect_at for each in everybody if each.suspect_at is not None]
        assert self.run(self.store.next_due("otp")) == min(times, default=None)

    @invariant()
    def a_body_is_there_exactly_while_its_message_is_open(self) -> None:
        open_ones = {key for key, model in self.models.items() if model.open}
        found = self.run(on_writer(self.store, _bodies))
        assert found == open_ones
        assert self.store.size() == (len(open_ones), sum(len(self.models[key].content) for key in open_ones))
        open_recipients = [
            each for model in self.models.values() for each in model.recipients if each.state in OPEN_STATES
        ]
        assert sum(row.recipients for row in self.run(self.store.counts())) == len(open_recipients)


def _bodies(connection: sqlite3.Connection) -> set[str]:
    """The messages whose content is there; no body is without an owner."""
    owned = connection.execute("SELECT id, body, parts FROM message WHERE body IS NOT NULL").fetchall()
    loose = connection.execute("SELECT first, parts FROM loose_body").fetchall()
    present = {row[0] for row in connection.execute("SELECT id FROM body")}
    claimed = [range(first, first + parts) for _, first, parts in owned]
    ranges = [number for each in claimed for number in each]
    assert set(ranges) <= present
    assert present <= set(ranges) | {number for first, parts in loose for number in range(first, first + parts)}
    assert len(ranges) == len(set(ranges))
    # The index of keys to supersede by holds open messages only.
    assert connection.execute("SELECT 1 FROM message WHERE body IS NULL AND supersede_key NOTNULL").fetchall() == []
    return {row[0] for row in owned}


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=25, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
)
