"""Admission: the queue's limits, the disk and the store's last write decide whether mail can be taken."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Queue
from relay.intake.admission import DISK_EVERY_S, STORE_FAILED_FOR_S, Admission
from relay.policy.check import FULL, UNWRITABLE, PolicyFacts


def queue(**limits: int) -> Queue:
    return Queue().model_copy(update={"min_free_bytes": 0, **limits})


class World:
    """What admission looks at, for a test to change."""

    def __init__(self, store: Path) -> None:
        self.queue = queue()
        self.waiting = (0, 0)
        self.now = 1_000.0
        self.admission = Admission(store, lambda: self.queue, lambda: self.waiting, lambda: self.now)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "relay.db")


def test_an_empty_queue_takes_mail(world: World) -> None:
    assert world.admission.refusal() is None
    assert world.admission.reasons() == []
    free_bytes = world.admission.fill().free_bytes
    assert world.admission.facts(7) == PolicyFacts(free_bytes=free_bytes, size_bytes=7)
    assert world.admission.capacity() == PolicyFacts([], free_bytes=free_bytes)


@pytest.mark.parametrize(
    ("limits", "waiting", "reasons"),
    [
        ({"max_messages": 2}, (1, 10_000), []),
        ({"max_messages": 2}, (2, 0), ["queue full: max_messages"]),
        ({"max_bytes": 1_000}, (5, 999), []),
        ({"max_bytes": 1_000}, (1, 1_000), ["queue full: max_bytes"]),
        ({"min_free_bytes": 1 << 60}, (0, 0), ["queue full: min_free"]),
        (
            {"max_messages": 1, "max_bytes": 1, "min_free_bytes": 1 << 60},
            (1, 1),
            ["queue full: max_messages", "queue full: max_bytes", "queue full: min_free"],
        ),
    ],
)
def test_each_limit_of_the_queue_that_is_reached_refuses_mail_with_452(
    world: World, limits: dict[str, int], waiting: tuple[int, int], reasons: list[str]
) -> None:
    world.queue, world.waiting = queue(**limits), waiting
    assert world.admission.reasons() == reasons
    assert world.admission.refusal() == (FULL if reasons else None)
    fill = world.admission.fill()
    assert (fill.messages, fill.size_bytes) == waiting


def test_limits_that_a_reload_brings_hold_at_once(world: World) -> None:
    world.waiting = (5, 0)
    assert world.admission.refusal() is None
    world.queue = queue(max_messages=5)
    assert world.admission.refusal() == FULL


@pytest.mark.parametrize(("full", "reply"), [(False, UNWRITABLE), (True, FULL)])
def test_a_failed_write_refuses_mail_for_some_seconds(world: World, full: bool, reply: Any) -> None:
    world.admission.store_failed(full=full)
    world.now += STORE_FAILED_FOR_S - 0.1
    assert world.admission.refusal() == reply
    assert world.admission.reasons() == ["store unwritable"]
    world.now += 0.1
    assert world.admission.refusal() is None


def test_a_write_that_succeeds_ends_the_refusal(world: World) -> None:
    world.admission.store_failed(full=False)
    assert world.admission.refusal() == UNWRITABLE
    world.admission.store_works()
    assert world.admission.refusal() is None


def test_a_full_queue_is_named_behind_a_store_that_fails(world: World) -> None:
    world.queue, world.waiting = queue(max_messages=1), (1, 0)
    world.admission.store_failed(full=False)
    assert world.admission.reasons() == ["store unwritable", "queue full: max_messages"]
    assert world.admission.refusal() == FULL


def test_the_disk_is_looked_at_once_a_second(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    free = [(10, 1), (20, 1)]

    class Disk:
        def __init__(self, blocks: int, size: int) -> None:
            self.f_bavail, self.f_frsize = blocks, size

    monkeypatch.setattr(os, "statvfs", lambda _: Disk(*free.pop(0)))
    assert [world.admission.fill().free_bytes for _ in range(3)] == [10] * 3
    world.now += DISK_EVERY_S
    assert world.admission.fill().free_bytes == 20
    assert free == []
