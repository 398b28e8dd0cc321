"""Whether the number of sessions that express lanes keep open (`sessions.warm`) suits the upstream."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from relay.config.model import Config
from relay.delivery.dispatch import upstreams_of
from relay.doctor.connections import OPEN_WITHIN_S, close
from relay.doctor.finding import About, Finding
from relay.doctor.sessions import Running
from relay.doctor.wording import counted, listed
from relay.providers.registry import find_preset
from relay.upstream.redaction import without_credentials
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.connect import open_session
from relay.upstream.smtp.session import Session
from relay.upstream.target import Target

MOST_OPENED = 20
"""sessions that the doctor opens at once"""


def _about(name: str) -> About:
    return About("upstream", name, "upstream-warm")


def check(name: str, config: Config, lanes: list[str], of_relay: Running) -> Iterator[Finding]:
    """What configuration and the running relay say. `lanes`: the express lanes that use the upstream."""
    if not lanes:
        return
    about, sessions = _about(name), config.upstreams[name].sessions
    if sessions.warm == 0:
        text = f"warm: 0: no session is kept open, so codes of lane {', '.join(lanes)} often wait for a new one"
        yield about.warn(text, "set sessions.warm: auto, or leave it out")
    elif isinstance(sessions.warm, int):
        # With `auto` the API and the SMTP server each have connections of their own.
        kept = sessions.warm * len(lanes) * (2 if config.upstreams[name].via == "auto" else 1)
        bulk = [lane for lane in config.lanes if lane not in lanes and name in upstreams_of(config, lane)]
        if bulk and kept >= sessions.max:
            text = f"warm: {kept} of {sessions.max} sessions (sessions.max) are kept for codes"
            hint = "lower sessions.warm, raise sessions.max, or set warm: auto"
            yield about.warn(f"{text}: lane {', '.join(bulk)} has one at most, and only while no code needs it", hint)
    yield from _documented(about, name, config, lanes)
    yield from _at_relay(about, name, config, of_relay)


def _documented(about: About, name: str, config: Config, lanes: list[str]) -> Iterator[Finding]:
    """More sessions than the provider allows by its documentation."""
    upstream = config.upstreams[name]
    allowed = documented_sessions(upstream.preset) if upstream.via != "api" else None
    sessions = upstream.sessions
    most = sessions.max if sessions.warm == "auto" else sessions.warm * len(lanes)
    if allowed is not None and most > allowed:
        how = f"warm: auto keeps up to {most}" if sessions.warm == "auto" else f"warm: {sessions.warm} keeps {most}"
        text = f"{how} sessions open, and {upstream.preset} documents {allowed} at most"
        key = "sessions.max" if sessions.warm == "auto" else "sessions.warm"
        yield about.warn(text, f"set {key}: {allowed if sessions.warm == 'auto' else max(1, allowed // len(lanes))}")


def documented_sessions(preset: str | None) -> int | None:
    """The sessions that a provider allows at once; None: it documents no number, or isn't known."""
    known = find_preset(preset) if preset is not None else None
    number: Any = known.keys.get("sessions", {}).get("max") if known is not None else None
    return number if isinstance(number, int) else None


def _at_relay(about: About, name: str, config: Config, of_relay: Running) -> Iterator[Finding]:
    """A fixed number that the running relay can't keep. That it keeps none is another finding's."""
    warm = config.upstreams[name].sessions.warm
    for (lane, other), seen in of_relay.items():
        if other == name and isinstance(warm, int) and seen.warm is not None and 0 < seen.warm.sessions < warm:
            text = f"warm: {warm}, but the running relay keeps {seen.warm.sessions} for lane {lane}"
            hint = f"set sessions.warm: {seen.warm.sessions}, or ask the upstream for more"
            yield about.warn(f"{text} ({seen.warm.reason})", hint)


async def tried(target: Target, config: Config, lanes: list[str]) -> list[Finding]:
    """Open as many sessions as a fixed number asks for, all at once; one is open already. No relay runs, which would
    need them. No mail is sent."""
    warm = target.config.sessions.warm
    wanted = min(warm * len(lanes), MOST_OPENED) if isinstance(warm, int) else 0
    if wanted < 2:
        return []
    results = await asyncio.gather(*(_open(target) for _ in range(wanted - 1)))
    sessions = [one for one in results if isinstance(one, Session)]
    await asyncio.gather(*(close(one) for one in sessions))
    about, count = _about(target.name), len(sessions) + 1
    refusals = [one for one in results if isinstance(one, OpenFailed)]
    if not refusals:
        return [about.ok(f"warm: {counted(count, 'session')} can be open at once, as lane {listed(lanes)} asks for")]
    why = without_credentials(f"{refusals[0].phase}: {refusals[0].reply.explanation}", config.upstreams[target.name])
    text = f"warm: {warm} for lane {listed(lanes)}, but only {counted(count, 'session')} could be opened at once: {why}"
    return [about.warn(text, f"set sessions.warm: {max(1, count // len(lanes))}, or ask the upstream for more")]


async def _open(target: Target) -> Session | OpenFailed:
    try:
        return await open_session(target, timeout_s=OPEN_WITHIN_S)
    except OpenFailed as error:
        return error
