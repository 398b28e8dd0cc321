"""What waits together is written together, and ends as if each had been alone: the same rows, answers and totals."""

from __future__ import annotations

import asyncio
import random
import re
import sqlite3
import tempfile
import threading
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from relay.store.model import NewMessage, RecipientUpdate, Selection, Settlement, State
from relay.store.sqlite.commit import Tx
from relay.store.sqlite.group import GROUP_OPERATIONS, Operation
from relay.store.sqlite.rows import PART_BYTES
from relay.store.sqlite.store import SqliteStore, open_store
from tests.store.build import CONTENT, NOW, attempt, claim, message, on_writer, settled, states

Call = Callable[[SqliteStore], Awaitable[Any]]
SECRET = b"secret-493871-code"
BY_ITSELF = ["BEGIN IMMEDIATE", "COMMIT"]
"""what the others wait for"""
ARRIVING = [f"INSERT OR ABORT INTO {table}" for table in ("body", "message", "recipient", "event")]
DEPARTING = ["INSERT OR REPLACE INTO attempt", "UPDATE recipient", "DELETE FROM body", "UPDATE message"]


async def opened(directory: Path, name: str = "relay.db") -> SqliteStore:
    return await open_store(directory / name, now=lambda: NOW)


async def at_once(store: SqliteStore, calls: Sequence[Call]) -> list[Any]:
    """Their outcomes; all of them wait while a transaction runs."""
    begun, gate = threading.Event(), threading.Event()

    def wait(tx: Tx) -> None:
        begun.set()
        gate.wait(5)

    first = store.state.writer.submit(Operation(wait))
    async with asyncio.timeout(10):
        while not begun.is_set():
            await asyncio.sleep(0.001)
        waiting = [asyncio.ensure_future(call(store)) for call in calls]
        await asyncio.sleep(0)
        gate.set()
        await first.result()
        return await asyncio.gather(*waiting, return_exceptions=True)


async def one_by_one(store: SqliteStore, calls: Sequence[Call]) -> list[Any]:
    outcomes: list[Any] = []
    async with asyncio.timeout(10):
        for call in calls:
            outcomes += await asyncio.gather(call(store), return_exceptions=True)
    return outcomes


def _rows(table: str) -> str:
    """Events of one transaction have no order among different messages."""
    columns = "message_id, position, at, kind, upstream, reason" if table == "event" else "*"
    return f"SELECT {columns} FROM {table}"


async def content_of(store: SqliteStore) -> dict[str, list[Any]]:
    """Every row of every table, once nothing is loose any more."""

    def read(connection: sqlite3.Connection) -> dict[str, list[Any]]:
        tables = [name for (name,) in connection.execute("SELECT name FROM main.sqlite_master WHERE type = 'table'")]
        return {name: sorted(connection.execute(_rows(name)), key=repr) for name in tables}

    async with asyncio.timeout(5):
        while True:
            found = await on_writer(store, read)
            if not found["loose_body"]:
                return found
            await asyncio.sleep(0.001)


async def statements(store: SqliteStore, calls: Sequence[Call]) -> list[str]:
    """What SQLite was asked while these were written, in few words each."""
    seen: list[str] = []
    await on_writer(store, lambda connection: connection.set_trace_callback(seen.append))
    assert await at_once(store, calls) == [None] * len(calls)
    await on_writer(store, lambda connection: connection.set_trace_callback(None))
    # SQLite reports a statement again for each run of a trigger's.
    return [sql for sql, _ in groupby(re.split(r" SET | WHERE | \(", each)[0] for each in seen)]


def put(new: NewMessage, *, claimed: bool = True, express: bool = False) -> Call:
    """As a lane has it: claimed, and no code."""

    async def call(store: SqliteStore) -> None:
        await (store.start_put(new, express=express) if claimed else store.put(new, claimed=False))

    return call


def settle(settlement: Settlement) -> Call:
    return lambda store: store.settle(settlement)


def departs(new: NewMessage, state: State = "sent", n: int = 1, **changed: Any) -> Settlement:
    """Its only recipient is done with."""
    update = RecipientUpdate(0, state, upstream="postmark", reply="250 2.0.0 OK", sent_at=NOW + 2, step=n - 1)
    values = {"timings_ms": {"wait": 1.5, "total": 20.25}, "only_bytes": len(new.content), **changed}
    return Settlement(new.id, (update,), (attempt(n=n),), **values)


async def test_arrivals_that_wait_together_are_a_statement_for_each_table_and_so_are_departures(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    try:
        await store.put(message(lane="other"), claimed=False)  # what follows an opening is over
        new = [message(f"u{n}@example.net", content=b"x" * n) for n in range(GROUP_OPERATIONS)]
        arriving = await statements(store, [put(each, claimed=n % 2 == 0) for n, each in enumerate(new)])
        assert arriving == [*BY_ITSELF, "BEGIN IMMEDIATE", *ARRIVING, "COMMIT"]
        assert {queued.content for queued in await claim(store)} == {each.content for each in new[1::2]}
        departing = await statements(store, [settle(departs(each)) for each in new])
        assert departing == [*BY_ITSELF, "BEGIN IMMEDIATE", *DEPARTING, "COMMIT"]
        assert store.size()[0] == len((await content_of(store))["body"]) == 1
    finally:
        await store.close()


@pytest.mark.parametrize("size", [400, 40_000])
async def test_no_content_of_what_departed_together_is_left_in_the_closed_store(tmp_path: Path, size: int) -> None:
    store = await opened(tmp_path)
    filler = random.Random(1)
    new = [
        message(content=b"".join(SECRET + filler.randbytes(180) for _ in range(size // 200)))
        for _ in range(GROUP_OPERATIONS)
    ]
    other = message(content=b"another")
    await at_once(store, [put(each) for each in (*new, other)])
    await at_once(store, [settle(departs(each)) for each in new])
    await store.close()
    for path in tmp_path.iterdir():
        assert SECRET not in path.read_bytes()
    assert b"another" in (tmp_path / "relay.db").read_bytes()


async def test_addresses_that_are_to_be_hashed_are_when_they_depart_at_once(tmp_path: Path) -> None:
    store = await opened(tmp_path)
    await store.hash_addresses(wanted=True)
    new = [message(f"somebody{n}@example.net") for n in range(6)]
    await at_once(store, [put(each) for each in new])
    assert await at_once(store, [settle(departs(each)) for each in new]) == [None] * 6
    assert [await states(store, each.id) for each in new] == [["sent"]] * 6
    assert store.size() == (0, 0)
    await store.close()
    for path in tmp_path.iterdir():
        assert b"somebody" not in path.read_bytes()


# One that isn't what the others are, in the midst of them


@dataclass(frozen=True)
class Odd:
    """A message, what was done with it before, its settlement, and how it ends."""

    new: NewMessage
    settlement: Settlement
    ends: tuple[State, ...]
    before: Callable[[SqliteStore, str], Awaitable[object]] | None = None


async def _held(store: SqliteStore, message_id: str) -> None:
    await store.unclaim(message_id)
    await store.act("hold", Selection(ids=(message_id,)), NOW)


async def _dropped(store: SqliteStore, message_id: str) -> None:
    await store.unclaim(message_id)
    await store.act("drop", Selection(ids=(message_id,)), NOW)


async def _deferred(store: SqliteStore, message_id: str) -> None:
    update = RecipientUpdate(0, "deferred", upstream="ses", reply="451 later", next_at=NOW + 60, step=1)
    await store.settle(Settlement(message_id, (update,), (attempt(upstream="ses"),), timings_ms={"wait": 9.0, "a": 1}))


def odd_ones() -> dict[str, Odd]:
    one, two, large = message(), message("a@example.net", "b@example.net"), message(content=b"x" * (2 * PART_BYTES + 5))
    bounce = message("sender@example.com", lane="bulk", content=b"it bounced")
    gone = RecipientUpdate(0, "expired", delay_notified=True)
    largest = message(content=b"x" * PART_BYTES)
    several = Settlement(two.id, (RecipientUpdate(1, "sent"),), (attempt(1),))
    both = Settlement(two.id, (RecipientUpdate(0, "sent"), RecipientUpdate(1, "bounced")), (attempt(0), attempt(1)))
    return {
        "held": Odd(one, departs(one), ("sent",), _held),
        "finished by the operator": Odd(one, departs(one), ("bounced",), _dropped),
        "its second attempt": Odd(one, departs(one, n=2), ("sent",), _deferred),
        "its first attempt told again": Odd(one, departs(one, n=1), ("sent",), _deferred),
        "no upstream named": Odd(one, departs(one)._replace(updates=(gone,)), ("expired",), _deferred),
        "deferred": Odd(one, departs(one, "deferred"), ("deferred",)),
        "ambiguous": Odd(one, departs(one, "ambiguous"), ("ambiguous",)),
        "of two, one": Odd(two, several, ("sending", "sent")),
        "of two, both": Odd(two, both, ("sent", "bounced")),
        "in three parts": Odd(large, departs(large), ("sent",)),
        "in three parts, its size mistaken": Odd(large, departs(large, only_bytes=9), ("sent",)),
        "in one part, just": Odd(largest, departs(largest), ("sent",)),
        "size not known": Odd(one, departs(one, only_bytes=None), ("sent",)),
        "with a bounce": Odd(one, departs(one, "bounced", bounces=(bounce,)), ("bounced",)),
        "with a note": Odd(one, departs(one, "expired", note="expired before the final dot"), ("expired",)),
        "two attempts": Odd(one, departs(one)._replace(attempts=(attempt(n=1), attempt(n=2))), ("sent",)),
        "no attempt": Odd(one, departs(one)._replace(attempts=()), ("sent",)),
        "an attempt of another": Odd(one, departs(one)._replace(attempts=(attempt(3),)), ("sent",)),
        "a recipient it has not": Odd(
            one, departs(one)._replace(updates=(RecipientUpdate(1, "sent"),), attempts=(attempt(1),)), ("sending",)
        ),
    }


async def run_both(directory: Path, before: Sequence[Call], calls: Sequence[Call]) -> tuple[SqliteStore, list[Any]]:
    """The calls at once in a store of their own, and their outcomes; in every way as when they come one by one."""
    together, alone = await opened(directory, "together.db"), await opened(directory, "alone.db")
    settle_it = alone.settle
    # Without that number no settlement is one of those that are written together, not even with itself.
    alone.settle = lambda settlement: settle_it(settlement._replace(only_bytes=None))  # type: ignore[method-assign]
    try:
        for store in (together, alone):
            assert [each for each in await one_by_one(store, before) if isinstance(each, Exception)] == []
        outcomes, expected = await at_once(together, calls), await one_by_one(alone, calls)
        assert [type(each) for each in outcomes] == [type(each) for each in expected]
        assert await content_of(together) == await content_of(alone)
        assert together.size() == alone.size()
        messages: list[Any] = list(await alone.search(Selection(limit=1000)))
        for shown in messages:
            assert await together.get(shown["id"]) == await alone.get(shown["id"])
    finally:
        await alone.close()
    return together, outcomes


@pytest.mark.parametrize("name", odd_ones())
@pytest.mark.parametrize("place", [0, 3])
async def test_one_that_is_unlike_the_others_changes_nothing_for_them(tmp_path: Path, name: str, place: int) -> None:
    odd = odd_ones()[name]
    alike = [message(f"u{n}@example.net", content=b"x" * (100 + n), supersede_key=f"k{n}") for n in range(6)]
    prepare: list[Call] = [put(each) for each in (*alike, odd.new)]
    if odd.before is not None:
        happens = odd.before
        prepare.append(lambda store: happens(store, odd.new.id))
    settlements = [departs(each) for each in alike]
    settlements.insert(place, odd.settlement)
    store, outcomes = await run_both(tmp_path, prepare, [settle(each) for each in settlements])
    try:
        assert outcomes == [None] * 7
        assert await states(store, odd.new.id) == list(odd.ends)
        for each in alike:
            assert await states(store, each.id) == ["sent"]
        open_ones = [odd.new] if {"sending", "deferred", "ambiguous"} & set(odd.ends) else []
        open_ones += odd.settlement.bounces
        assert store.size() == (len(open_ones), sum(len(each.content) for each in open_ones))
        assert len((await content_of(store))["body"]) == len(open_ones)
    finally:
        await store.close()


@pytest.mark.parametrize("place", [0, 3, 6])
async def test_one_of_an_unknown_message_fails_alone(tmp_path: Path, place: int) -> None:
    alike = [message() for _ in range(6)]
    settlements = [departs(each) for each in alike]
    settlements.insert(place, departs(message()))
    store, outcomes = await run_both(tmp_path, [put(each) for each in alike], [settle(each) for each in settlements])
    try:
        assert [n for n, each in enumerate(outcomes) if each is not None] == [place]
        assert str(outcomes[place]).startswith("no message ")
        assert store.size() == (0, 0)
        assert (await content_of(store))["body"] == []
    finally:
        await store.close()


async def test_one_given_twice_counts_once(tmp_path: Path) -> None:
    new, other = message(content=b"a" * 50), message(content=b"b" * 70)
    calls = [settle(departs(new)), settle(departs(new, "bounced", n=2)), settle(departs(new))]
    store, outcomes = await run_both(tmp_path, [put(new), put(other)], calls)
    try:
        assert outcomes == [None] * 3
        shown: Any = await store.get(new.id)
        assert [each["state"] for each in shown["recipients"]] == ["sent"]
        assert [each["n"] for each in shown["recipients"][0]["attempts"]] == [1, 2]
        assert store.size() == (1, 70)
    finally:
        await store.close()


async def test_a_message_that_comes_and_goes_in_one_transaction_is_finished(tmp_path: Path) -> None:
    old, new, twice = message(), message(), message(content=b"t" * 9)
    calls = [
        settle(departs(old)), put(new), settle(departs(new)), put(twice), put(twice), settle(settled(twice.id, "held")),
    ]  # fmt: skip
    store, outcomes = await run_both(tmp_path, [put(old)], calls)
    try:
        assert [n for n, each in enumerate(outcomes) if each is not None] == [4]
        assert await states(store, new.id) == ["sent"]
        assert await states(store, twice.id) == ["held"]
        assert store.size() == (1, 9)
    finally:
        await store.close()


async def test_codes_and_bulk_mail_in_one_transaction_are_all_written(tmp_path: Path) -> None:
    old, new, codes = [message() for _ in range(4)], message(content=b"n" * 30), [message() for _ in range(5)]
    calls = [settle(departs(each)) for each in old]
    calls += [put(each, express=True) for each in codes] + [put(new), settle(departs(codes[0]))]
    store, outcomes = await run_both(tmp_path, [put(each) for each in old], calls)
    try:
        assert outcomes == [None] * len(calls)
        assert [await states(store, each.id) for each in codes] == [["sent"], *[["sending"]] * 4]
        assert store.size() == (5, 4 * len(CONTENT) + 30)
    finally:
        await store.close()


# Anything, in any order

HOW = st.sampled_from(["departs", "departs", "departs", "fails", "defers", "with a note", "bounces", "alone", "both"])
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("put"), st.integers(0, 3), st.booleans()),
        st.tuples(HOW, st.integers(0, 9), st.integers(1, 2)),
    ),
    min_size=2,
    max_size=14,
)


def step(kind: str, new: NewMessage, how: int) -> Call:
    """`how`: whether it is claimed, or the attempt's number."""
    if kind == "put":
        return put(new, claimed=bool(how))
    bounce = message("sender@example.com", lane="bulk", content=b"it bounced")
    update = RecipientUpdate(0, "bounced")
    both = (update, RecipientUpdate(1, "sent"))
    only_bytes = len(new.content) if len(new.providers) == 1 else None
    return settle(
        {
            "departs": departs(new, n=how, only_bytes=only_bytes),
            "fails": departs(new, "bounced", n=how, only_bytes=only_bytes),
            "defers": departs(new, "deferred", n=how, only_bytes=only_bytes),
            "with a note": departs(new, n=how, only_bytes=only_bytes, note="expired"),
            "bounces": departs(new, "bounced", n=how, only_bytes=only_bytes, bounces=(bounce,)),
            "alone": settled(new.id, "sent"),
            "both": Settlement(new.id, both, (attempt(0, how), attempt(1, how))),
        }[kind]
    )


def is_too_early(steps: list[tuple[str, int, int]], n: int) -> bool:
    """Is this a settlement of a message that is put later? The relay makes none. Within one transaction, puts may come
    before what was submitted earlier."""
    kind, which, _ = steps[n]
    puts = [at for at, step in enumerate(steps) if step[:2] == ("put", which)]
    return kind != "put" and puts != [] and n < puts[0]


@settings(max_examples=15, deadline=None)
@example([("put", 0, 0), ("put", 1, 0), ("departs", 1, 1)])
@given(STEPS)
def test_whatever_waits_together_ends_as_if_each_had_been_alone(steps: list[tuple[str, int, int]]) -> None:
    """Messages 0 to 3 may be put meanwhile; 4 to 8 are there, in ways of their own; 9 never comes."""
    messages = [message(f"u{n}@example.net", content=b"%d" % n * (n + 1)) for n in range(10)]
    messages[6] = message("a@example.net", "b@example.net")
    messages[7] = message(content=b"x" * (PART_BYTES + 1))
    before = [put(each) for each in messages[4:9]]
    before += [lambda store: _held(store, messages[4].id), lambda store: _dropped(store, messages[5].id)]
    before.append(lambda store: _deferred(store, messages[8].id))
    calls = [
        step(kind, messages[which], how) for n, (kind, which, how) in enumerate(steps) if not is_too_early(steps, n)
    ]

    async def compare() -> None:
        with tempfile.TemporaryDirectory() as directory:
            store, _ = await run_both(Path(directory), before, calls)
            await store.close()

    asyncio.run(compare())
