"""Every way in which an upstream can misbehave before it carries mail, between two messages, and about how many
sessions it allows: nobody's mail or credentials go where they must not, and what is good is used again.

All trials run beside each other once; each case is then a test of its own that looks at what was found.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal

import pytest

from tests.delivery.trials import Ground, Trial, play, trial
from tests.support.script import Action, Script, Step
from tests.support.tls import Certificates
from tests.support.upstream import (
    Close,
    Drip,
    Endless,
    Garbage,
    Hang,
    ReplyThenClose,
    ReplyThenReset,
    Reset,
    Upstream,
)

pytestmark = pytest.mark.timeout(240)  # the first test waits for all trials

Tls = Literal["starttls", "implicit"]
Scene = Callable[[Ground], Awaitable[None]]
ACCOUNT = {"u": "s3cret"}
TO = "a@example.net"
ABANDONED = {"abandoned"}
SILENT: Mapping[str, Action] = {
    "hangs": Hang(),
    "closes": Close(),
    "resets": Reset(),
    "talks garbage": Garbage(b"\x00\xff not smtp\r\n"),
    "never ends its reply": Endless(),
    "a byte a second": Drip(None, 1.0),
    "a 1yz": "150 almost",
}


def secured(name: str, tls: Tls, certificate: str, script: Script, outcomes: set[str]) -> Scene:
    """The first upstream isn't safe, or doesn't let us in; the second takes the mail, over TLS."""

    async def scene(ground: Ground) -> None:
        known = ground.certificates
        assert known is not None
        bad = Upstream(tls=tls, certificate=getattr(known, certificate), auth=ACCOUNT, script=script)
        good = Upstream(tls=tls, certificate=known.good, auth=ACCOUNT)
        lane = {"attempt": 2.0, "retry": (20.0,)}
        async with trial(name, {"bad": bad, "good": good}, ground, lane) as running:
            await _second_takes_it(running, outcomes)
            running.nothing_in_clear(but=("bad",) if certificate != "good" else ())

    return scene


def stripped(name: str, script: Script, outcomes: set[str]) -> Scene:
    """Somebody on the wire took STARTTLS out of the first upstream's EHLO."""

    async def scene(ground: Ground) -> None:
        known = ground.certificates
        assert known is not None
        bad = Upstream(auth=ACCOUNT, script=script)
        good = Upstream(tls="starttls", certificate=known.good, auth=ACCOUNT)
        lane = {"attempt": 2.0, "retry": (20.0,)}
        changes = {"tls": "starttls", "host": "localhost", "ca_file": known.ca_file}
        async with trial(name, {"bad": bad, "good": good}, ground, lane, **changes) as running:
            await _second_takes_it(running, outcomes)
            running.nothing_in_clear()

    return scene


async def _second_takes_it(running: Trial, outcomes: set[str]) -> None:
    view = await running.ended(await running.send(TO, life_s=20.0), 5.0)
    running.truthful(view)
    one = view["recipients"][0]
    if (one["state"], one["upstream"]) != ("sent", "good"):
        running.wrong(f"{one['state']} by {one['upstream']}: {one['reply']}")
    found = {each["outcome"] for each in one["attempts"] if each["upstream"] == "bad"}
    if not found <= outcomes:
        running.wrong(f"the attempt ended {found}")
    await running.settled()


def after(name: str, upstream: Callable[[], Upstream], first: str, *, pause_s: float = 0.0) -> Scene:
    """A message, then `pause_s` later another: whatever the session went through, both have their end at once."""

    async def scene(ground: Ground) -> None:
        only = upstream()
        async with trial(name, {"only": only}, ground, {"attempt": 2.0, "retry": (0.1,)}) as running:
            view = await running.ended(await running.send(TO, life_s=20.0), 5.0)
            if view["recipients"][0]["state"] != first:
                running.wrong(f"the first is {view['recipients'][0]['state']}")
            await asyncio.sleep(pause_s)
            for address in ("b@example.net", "c@example.net"):
                another = await running.ended(await running.send(address, life_s=20.0), 5.0)
                running.truthful(another)
                if another["recipients"][0]["state"] != "sent":
                    running.wrong(f"a later one is {another['recipients'][0]['state']}")
            await running.settled()

    return scene


def crowded(name: str, refusal: Action) -> Scene:
    """One session is all that the upstream allows: twelve messages at once go over it."""

    async def scene(ground: Ground) -> None:
        only = Upstream(script={"greeting": lambda _: refusal if only.open > 1 else None})
        async with trial(name, {"only": only}, ground, {"attempt": 5.0, "retry": (0.1,)}) as running:
            ids = [await running.send(f"{at}@example.net", life_s=20.0) for at in range(12)]
            for id_ in ids:
                view = await running.ended(id_, 5.0)
                running.truthful(view)
                if view["recipients"][0]["state"] != "sent":
                    running.wrong(f"{view['recipients'][0]['state']}: {view['recipients'][0]['reply']}")
            if len(only.messages) != 12:
                running.wrong(f"{len(only.messages)} messages")
            await running.settled()

    return scene


def ehlo_then(answer: Action) -> Script:
    """`answer` to the EHLO behind STARTTLS; the first is as it should be."""
    return {"ehlo": lambda moment: answer if moment.n_in_session else None}


def _scenes() -> dict[str, Scene]:
    scenes: dict[str, Scene] = {}

    def secure(label: str, tls: Tls, script: Script, outcomes: set[str], certificate: str = "good") -> None:
        name = f"{tls}, {label}"
        scenes[name] = secured(name, tls, certificate, script, outcomes)

    def step(name: Step, label: str, tls: Tls, action: Action, outcomes: set[str]) -> None:
        secure(f"{name} {label}", tls, {name: action}, outcomes)

    modes: tuple[Tls, ...] = ("starttls", "implicit")
    for tls in modes:
        for certificate in ("expired", "wrong_host", "self_signed"):
            secure(f"a certificate that is {certificate}", tls, {}, ABANDONED, certificate)
        for label in ("hangs", "closes", "resets", "never ends its reply"):
            step("handshake", label, tls, SILENT[label], ABANDONED)
        for label, action in SILENT.items():
            step("auth", label, tls, action, ABANDONED)
        step("auth", "535", tls, "535 5.7.8 credentials refused", {"refused"})
        step("auth", "454", tls, "454 4.7.0 temporary failure", {"deferred"})
        step("auth", "421 and closes", tls, ReplyThenClose("421 4.7.0 too many failures"), {"deferred"})
        step("auth", "538", tls, "538 5.7.11 encryption required", {"refused"})
        step("auth", "250", tls, "250 2.0.0 well", ABANDONED)
        step("auth", "334 and no more", tls, "334 VXNlcm5hbWU6", ABANDONED)
        # What follows says the same to MAIL: 530.
        step("auth", "235 twice, and was 535", tls, "535 5.7.8 no\n235 2.7.0 yes", {"refused"})
        step("auth", "235 then closes", tls, ReplyThenClose("235 2.7.0 welcome"), ABANDONED)
        step("auth", "235 then resets", tls, ReplyThenReset("235 2.7.0 welcome"), ABANDONED)
    for label, action in SILENT.items():
        step("starttls", label, "starttls", action, ABANDONED)
        secure(f"the second EHLO {label}", "starttls", ehlo_then(action), ABANDONED)
    step("handshake", "talks garbage", "implicit", SILENT["talks garbage"], ABANDONED)
    step("starttls", "454", "starttls", "454 4.7.0 no TLS now", {"deferred"})
    step("starttls", "502", "starttls", "502 5.5.1 what?", {"refused"})
    step("starttls", "250", "starttls", "250 2.0.0 well", ABANDONED)
    secure("the second EHLO 550", "starttls", ehlo_then("550 5.7.1 not you"), {"refused"})
    secure("the second EHLO without AUTH", "starttls", ehlo_then("250-here\n250 PIPELINING"), ABANDONED)
    scenes["stripped"] = stripped("stripped", {}, ABANDONED)
    offers = stripped("stripped, and AUTH offered", {"ehlo": "250-here\n250 AUTH PLAIN LOGIN"}, ABANDONED)
    scenes["stripped, and AUTH offered"] = offers
    for label, action in SILENT.items():
        name = f"rset {label}"
        scenes[name] = after(name, _refusing_first(action), "bounced")
    for label, reply in {"421": "421 4.3.2 closing", "502": "502 5.5.1 what?", "two": "250 ok\n250 ok"}.items():
        name = f"rset {label}"
        scenes[name] = after(name, _refusing_first(reply), "bounced")
    idling: Mapping[str, Action] = {
        **{label: SILENT[label] for label in ("closes", "resets", "talks garbage", "never ends its reply")},
        "421": ReplyThenClose("421 4.4.2 idle too long"),
        "421 and hangs": "421 4.4.2 idle too long",
        "250": ReplyThenClose("250 2.0.0 nobody asked"),
        "half a 421": Garbage(b"42"),
    }
    for label, action in idling.items():
        name = f"idle {label}"
        scenes[name] = after(name, _idling(action), "sent", pause_s=0.3)
    refusals: Mapping[str, Action] = {
        "421": ReplyThenClose("421 4.7.0 too many connections"),
        "554": ReplyThenClose("554 5.7.0 too many connections"),
        "closing": Close(),
        "resetting": Reset(),
    }
    for label, action in refusals.items():
        name = f"one session only, by {label}"
        scenes[name] = crowded(name, action)
    return scenes


def _refusing_first(action: Action) -> Callable[[], Upstream]:
    return lambda: Upstream(("PIPELINING",), script={"rcpt": ["550 5.1.1 no such user"], "rset": action})


def _idling(action: Action) -> Callable[[], Upstream]:
    return lambda: Upstream(script={"idle": action}, idle_s=0.1)


SCENES = _scenes()


@pytest.fixture(scope="module")
def found(certificates: Certificates) -> dict[str, list[str]]:
    return play(SCENES, certificates, at_once=40)


@pytest.mark.parametrize("name", SCENES, ids=str)
def test_mail_and_credentials_are_safe_from_an_upstream_with(name: str, found: dict[str, list[str]]) -> None:
    assert "\n".join(found[name]) == ""


def test_nothing_is_left_behind_and_nothing_was_raised(found: dict[str, list[str]]) -> None:
    assert "\n".join(found[""]) == ""
