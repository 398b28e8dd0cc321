"""Worlds by chance: two upstreams that misbehave as they like, a lane with any settings, several messages with several
recipients. Whatever happens, every message has its end, the log is true, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.delivery.trials import Ground, play, trial
from tests.support.script import Action, Script
from tests.support.upstream import (
    Close,
    Delay,
    Drip,
    Endless,
    Garbage,
    Hang,
    ReplyThenClose,
    ReplyThenReset,
    Reset,
    Split,
    Upstream,
)

pytestmark = pytest.mark.timeout(240)

WORLDS_AT_ONCE = 30
ROUNDS = int(os.environ.get("RANDOM_WORLDS", "3"))
"""of so many worlds each"""
WAYS = [("PIPELINING",), ("PIPELINING", "CHUNKING"), ("CHUNKING",), ("8BITMIME",), ("PIPELINING", "SIZE 10")]

ACTIONS: st.SearchStrategy[Action] = st.sampled_from(
    [
        None,
        None,
        Hang(),
        Close(),
        Reset(),
        Garbage(b"\xff\x00\r\n"),
        Garbage(b"25"),
        Endless(),
        Drip(None, 1.0),
        Delay(0.15),
        Delay(0.5),
        Split((b"250-a\r\n2", b"50 b\r\n")),
        "421 4.3.2 closing",
        "450 4.2.1 greylisted",
        "454 4.7.0 throttled: too many connections",
        "550 5.1.1 no",
        "535 5.7.8 who are you",
        "554 5.7.1 sender is not verified",
        "354 go on",
        "250-a\n451 b",
        ReplyThenClose("250 2.0.0 ok"),
        ReplyThenReset("250 2.0.0 ok"),
        ReplyThenClose("421 4.4.2 enough"),
    ]
)
DOTS: st.SearchStrategy[Action] = st.one_of(
    ACTIONS, st.sampled_from([Hang(taken=True), Close(taken=True), Reset(taken=True)])
)


def _answers(actions: st.SearchStrategy[Action]) -> st.SearchStrategy[list[Action]]:
    """For so many occurrences of the step; then the server behaves."""
    return st.lists(actions, max_size=5)


SCRIPTS: st.SearchStrategy[Script] = st.fixed_dictionaries(
    {},
    optional={
        "greeting": _answers(ACTIONS),
        "ehlo": _answers(ACTIONS),
        "mail": _answers(ACTIONS),
        "rcpt": st.one_of(_answers(ACTIONS), st.fixed_dictionaries({"*r0@*": _answers(ACTIONS)})),
        "data": _answers(ACTIONS),
        "dot": _answers(DOTS),
        "rset": _answers(ACTIONS),
        "idle": _answers(ACTIONS),
    },
)


@dataclass(frozen=True)
class Server:
    extensions: tuple[str, ...]
    script: Script
    latency_s: float
    idle_s: float | None


@dataclass(frozen=True)
class Message:
    recipients: int
    life_s: float
    key: str | None
    after_s: float


@dataclass(frozen=True)
class World:
    servers: tuple[Server, ...]
    hedge: float | None
    on_ambiguous: Literal["resend", "hold"]
    retry: tuple[float, ...]
    concurrency: int | None
    express: bool
    messages: list[Message]


SERVERS = st.builds(
    Server,
    st.sampled_from(WAYS),
    SCRIPTS,
    st.sampled_from([0.0, 0.0, 0.05]),
    st.sampled_from([None, None, 0.1]),
)
MESSAGES = st.builds(
    Message,
    st.integers(1, 3),
    st.sampled_from([0.1, 1.0, 2.5]),
    st.sampled_from([None, "k"]),
    st.sampled_from([0.0, 0.0, 0.02, 0.3]),
)
WORLDS = st.builds(
    World,
    st.lists(SERVERS, min_size=1, max_size=2).map(tuple),
    st.sampled_from([None, 0.1]),
    st.sampled_from(["resend", "hold"]),
    st.sampled_from([(0.05,), (0.2, 0.4)]),
    st.sampled_from([None, 1]),
    st.sampled_from([True, True, False]),
    st.lists(MESSAGES, min_size=1, max_size=5),
)


async def live(name: str, world: World, ground: Ground) -> None:
    upstreams = {
        f"up{at}": Upstream(one.extensions, script=one.script, latency_s=one.latency_s, idle_s=one.idle_s)
        for at, one in enumerate(world.servers)
    }
    lane: dict[str, Any] = {
        "hedge": world.hedge,
        "on_ambiguous": world.on_ambiguous,
        "retry": world.retry,
        "concurrency": world.concurrency,
        "express": world.express,
        "supersede": True,
    }
    async with trial(name, upstreams, ground, lane) as running:
        ids = []
        for at, message in enumerate(world.messages):
            await asyncio.sleep(message.after_s)
            to = [f"m{at}r{one}@example.net" for one in range(message.recipients)]
            key = f"{name} {message.key}" if message.key is not None else None
            ids.append(await running.send(*to, life_s=message.life_s, supersede_key=key))
        for id_, message in zip(ids, world.messages, strict=True):
            view = await running.ended(id_, message.life_s + 3.0)
            running.truthful(view)
            states = {one["state"] for one in view["recipients"]}
            if "superseded" in states and (message.key is None or message is world.messages[-1]):
                running.wrong("superseded by nobody")
            if "ambiguous" in states and world.on_ambiguous != "hold":
                running.wrong("left ambiguous in a lane that sends again")
        await running.settled()


@given(st.lists(WORLDS, min_size=WORLDS_AT_ONCE, max_size=WORLDS_AT_ONCE))
@settings(
    max_examples=ROUNDS,
    deadline=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_whatever_upstreams_do_every_message_has_a_true_end(worlds: list[World]) -> None:
    scenes = {f"world{at}": world for at, world in enumerate(worlds)}
    found = play(
        {name: lambda ground, name=name: live(name, scenes[name], ground) for name in scenes},  # type: ignore[misc]
        at_once=WORLDS_AT_ONCE,
    )
    wrong = {name: (faults, scenes.get(name)) for name, faults in found.items() if faults}
    assert wrong == {}, "\n".join(f"{faults}\n    {world}" for faults, world in wrong.values())
