"""Every way in which an upstream can misbehave, at every step of a transaction, and what becomes of the mail.

All trials run beside each other once; each case is then a test of its own that looks at what was found.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import pytest

from tests.delivery.trials import Ground, Trial, play, trial
from tests.support.script import Action, Script, Step
from tests.support.upstream import (
    Close,
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

pytestmark = pytest.mark.timeout(240)  # the first test waits for all trials

TO = ("a@example.net", "b@example.net")
WAYS = {
    "pipelined": ("PIPELINING", "8BITMIME"),
    "chunked": ("PIPELINING", "CHUNKING"),
    "chunked one by one": ("CHUNKING",),
    "one by one": ("8BITMIME",),
}
LOCKED = ("pipelined", "one by one")
"""where 354 proves that replies and commands are paired"""
LIFE_S = 1.6
"""of a message that nobody will ever take"""


@dataclass(frozen=True)
class Fault:
    """What the upstream does, always, at `step`; what the first attempt there is to be told, and what it is told where
    the content flies with its envelope."""

    label: str
    step: Step
    action: Action
    outcome: str
    chunked: str | None = None
    only: Collection[str] = ()

    @property
    def script(self) -> Script:
        return {self.step: self.action}

    @property
    def ways(self) -> Collection[str]:
        """On which it can make a difference."""
        if self.only:
            return self.only
        match self.step:
            case "greeting" | "ehlo":
                return ("pipelined",)
            case "data":
                return LOCKED
            case "mail":
                return ("pipelined", "chunked", "one by one")
            case _:
                return WAYS

    def told(self, way: str) -> str:
        return self.chunked if self.chunked and way == "chunked" else self.outcome


SILENT: Mapping[str, Action] = {
    "hangs": Hang(),
    "closes": Close(),
    "resets": Reset(),
    "talks garbage": Garbage(b"\x00\xff not smtp\r\n"),
    "never ends its reply": Endless(),
    "never ends its line": Endless(b"250 and on and on"),
    "a byte a second": Drip(None, 1.0),
    "changes the code within a reply": "250-one\n550 two",
    "a line of 3,000": "250 " + "x" * 3_000,
    "a 1yz": "150 almost",
    "two digits": "25 ok",
}
OPENING: list[tuple[Step, str]] = [("greeting", "220"), ("ehlo", "250")]


def _faults() -> list[Fault]:
    rows = []
    for step, positive in OPENING:
        rows += [
            # What opens a session reads the code off the last line.
            Fault(f"{step} {label}", step, action, "refused" if "changes" in label else "abandoned")
            for label, action in SILENT.items()
        ]
        rows += [
            Fault(f"{step} 421", step, "421 4.3.2 not now", "deferred"),
            Fault(f"{step} 421 then closes", step, ReplyThenClose("421 4.3.2 not now"), "deferred"),
            Fault(f"{step} 451", step, "451 4.3.0 later", "deferred"),
            Fault(f"{step} 554", step, "554 5.7.1 go away", "refused"),
            Fault(f"{step} 354", step, "354 go on", "abandoned"),
            Fault(f"{step} then closes", step, ReplyThenClose(f"{positive} fine"), "abandoned"),
        ]
    middle: list[Step] = ["mail", "rcpt"]
    for step in middle:
        rows += [Fault(f"{step} {label}", step, action, "abandoned", "ambiguous") for label, action in SILENT.items()]
        rows += [
            Fault(f"{step} 421", step, "421 4.3.2 not now", "deferred"),
            Fault(f"{step} 421 then resets", step, ReplyThenReset("421 4.3.2 not now"), "deferred"),
            Fault(f"{step} 451", step, "451 4.3.0 later", "deferred"),
            Fault(f"{step} 250 then closes", step, ReplyThenClose("250 2.0.0 ok"), "abandoned", "ambiguous"),
        ]
    rows += [
        Fault("mail 553", "mail", "553 5.1.8 no such sender", "refused"),
        Fault("mail 530", "mail", "530 5.7.0 authentication required", "refused"),
        Fault("mail 354", "mail", "354 go on", "deferred"),
        Fault("rcpt 354", "rcpt", "354 go on", "deferred"),
        Fault("rcpt 550", "rcpt", "550 5.1.1 no such user", "refused"),
    ]
    rows += [Fault(f"dot {label}", "dot", action, "ambiguous") for label, action in SILENT.items()]
    rows += [
        Fault("dot hangs, and took it", "dot", Hang(taken=True), "ambiguous"),
        Fault("dot closes, and took it", "dot", Close(taken=True), "ambiguous"),
        Fault("dot resets, and took it", "dot", Reset(taken=True), "ambiguous"),
        Fault("dot 354", "dot", "354 go on", "ambiguous"),
        Fault("dot 421", "dot", "421 4.3.2 not now", "deferred"),
        Fault("dot 452", "dot", "452 4.3.1 full", "deferred"),
        Fault("dot 552", "dot", "552 5.2.2 mailbox full", "refused"),
        Fault("dot 554 of the sender", "dot", "554 5.7.1 Email address is not verified", "refused"),
    ]
    # An EHLO line of that length is read: nothing says how long an extension's parameters may be.
    return [fault for fault in rows if fault.label != "ehlo a line of 3,000"]


def _data_faults() -> list[Fault]:
    rows = [Fault(f"data {label}", "data", action, "abandoned") for label, action in SILENT.items()]
    return [
        *rows,
        Fault("data 421", "data", "421 4.3.2 not now", "deferred"),
        Fault("data 451", "data", "451 4.3.0 later", "deferred"),
        Fault("data 554", "data", "554 5.7.1 no", "refused"),
        Fault("data 250", "data", "250 2.0.0 ok", "abandoned"),
        Fault("data 354 and 250 at once", "data", "354 go on\n250 2.0.0 ok", "abandoned"),
        Fault("data 354 and half a 250", "data", Split((b"354 go on\r\n25", b"0 ok\r\n")), "abandoned"),
        # Nothing tells with BDAT: see tests/upstream/test_faults.py.
        Fault("mail answers twice", "mail", "250 2.1.0 ok\n250 2.1.0 ok", "abandoned", only=LOCKED),
        Fault("rcpt answers twice", "rcpt", "250 2.1.5 ok\n250 2.1.5 ok", "abandoned", only=LOCKED),
        Fault("data 354 then closes", "data", ReplyThenClose("354 go on"), "ambiguous"),
    ]


HARMLESS = [
    Fault("mail in pieces", "mail", Split((b"25", b"0 2", b".1.0 ok\r\n")), "sent"),
    Fault("rcpt in pieces", "rcpt", Split((b"250-2.1.5 o", b"k\r", b"\n250 2.1.5 ok\r\n")), "sent"),
    Fault("dot in pieces", "dot", Split((b"250-2.0.0\r\n2", b"50", b" 2.0.0 ok\r\n")), "sent"),
    Fault("dot 250 then closes", "dot", ReplyThenClose("250 2.0.0 ok"), "sent"),
    Fault("dot 250 then 421", "dot", ReplyThenClose("250 2.0.0 ok\n421 4.3.2 enough"), "sent"),
    Fault("dot 299", "dot", "299 strange but fine", "sent"),
]
FATAL = {"rcpt 550", "dot 552", "data 554"}
"""the recipients' end"""
Scene = Callable[[Ground], Awaitable[None]]


def _cases() -> dict[str, tuple[Fault, str]]:
    rows = [*_faults(), *_data_faults(), *HARMLESS]
    return {f"{fault.label}, {way}": (fault, way) for way in WAYS for fault in rows if way in fault.ways}


CASES = _cases()


def alone(name: str, fault: Fault, way: str) -> Scene:
    """The only upstream does it for ever: the message waits, and expires."""

    async def scene(ground: Ground) -> None:
        async with trial(name, {"bad": Upstream(WAYS[way], script=fault.script)}, ground, {}) as running:
            view = await running.ended(await running.send(*TO, life_s=LIFE_S), LIFE_S)
            ends = "sent" if fault.outcome == "sent" else "bounced" if fault.label in FATAL else "expired"
            await _judge(running, view, fault.told(way), ends)

    return scene


def with_another(name: str, fault: Fault, way: str, **lane: Any) -> Scene:
    """The next upstream takes it at once; nothing waits for the ladder."""

    async def scene(ground: Ground) -> None:
        upstreams = {"bad": Upstream(WAYS[way], script=fault.script), "good": Upstream(WAYS[way])}
        async with trial(name, upstreams, ground, {"retry": (20.0,), **lane}) as running:
            view = await running.ended(await running.send(*TO, life_s=20.0), 3.0)
            ends = "bounced" if fault.label in FATAL else "sent"
            if lane.get("on_ambiguous") == "hold" and fault.told(way) == "ambiguous":
                ends = "ambiguous"
            await _judge(running, view, fault.told(way), ends, hedged="hedge" in lane)
            if ends == "sent":
                at = "bad" if fault.outcome == "sent" else "good"
                if {one["upstream"] for one in view["recipients"]} != {at}:
                    running.wrong(f"{at} didn't deliver it")

    return scene


async def _judge(running: Trial, view: Mapping[str, Any], outcome: str, ends: str, *, hedged: bool = False) -> None:
    running.truthful(view)
    # Where the commit took longer than the upstream to go, the content was still here.
    flies = "CHUNKING" in running.upstreams["bad"].extensions or "then closes" in running.name
    early = hedged or (outcome == "ambiguous" and flies)
    expected = {outcome, "abandoned"} if early else {outcome}
    for one in view["recipients"]:
        if one["state"] == "sent" and ends == "ambiguous" and early:
            continue
        if one["state"] != ends:
            running.wrong(f"{one['address']} is {one['state']} and not {ends}")
        first = next((each["outcome"] for each in one["attempts"] if each["upstream"] == "bad"), None)
        # A circuit that was open when the message came spares it the attempt.
        if first is not None and first not in expected:
            running.wrong(f"the attempt was told {first}, not {outcome}")
    await running.settled()


SCENES: dict[str, Scene] = {}
for _name, (_fault, _way) in CASES.items():
    SCENES[f"{_name}, alone"] = alone(f"{_name}, alone", _fault, _way)
    SCENES[f"{_name}, then another"] = with_another(f"{_name}, then another", _fault, _way)
    if isinstance(_fault.action, Hang | Drip | Close):
        SCENES[f"{_name}, hedged"] = with_another(f"{_name}, hedged", _fault, _way, hedge=0.15)
        SCENES[f"{_name}, held"] = with_another(f"{_name}, held", _fault, _way, on_ambiguous="hold")


@pytest.fixture(scope="module")
def found() -> dict[str, list[str]]:
    return play(SCENES)


@pytest.mark.parametrize("name", SCENES, ids=str)
def test_mail_survives_an_upstream_that(name: str, found: dict[str, list[str]]) -> None:
    assert "\n".join(found[name]) == ""


def test_nothing_is_left_behind_and_nothing_was_raised(found: dict[str, list[str]]) -> None:
    assert "\n".join(found[""]) == ""
