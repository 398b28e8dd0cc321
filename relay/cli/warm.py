"""The sessions that `explain` shows as kept open."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from relay.cli.common import printable

if TYPE_CHECKING:
    from relay.config.model import Config
    from relay.doctor.sessions import Running


def warm(config: Config, lane: str, upstreams: Sequence[str], of_relay: Running) -> dict[str, Any]:
    """By upstream: the sessions that an express lane keeps open, by configuration and in a running relay."""
    from relay.doctor.sessions import configured

    found = {}
    for name in upstreams:
        seen = of_relay.get((lane, name))
        now = seen.warm if seen is not None else None
        found[name] = {
            **configured(config.upstreams[name].sessions)._asdict(),
            "running": None if now is None else now._asdict(),
        }
    return found


def as_text(document: Mapping[str, Any]) -> str:
    """One upstream's, in one line."""
    from relay.doctor.sessions import Configured

    now = document["running"]
    text = str(Configured(document["least"], document["most"], document["reason"]))
    return text if now is None else f"{text}; the running relay keeps {now['sessions']} ({printable(now['reason'])})"
