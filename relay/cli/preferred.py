"""Which upstream `explain` expects first, in a lane that prefers the fastest, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from relay.cli.common import printable

if TYPE_CHECKING:
    from relay.doctor.sessions import Running


def preferred(lane: str, upstreams: Sequence[str], recipients: Sequence[str], running: Running) -> dict[str, Any]:
    """The order for the first recipient's mailbox provider. `running`: as the relay that runs sees the upstreams; empty
    where none runs."""
    from relay.delivery.fastest import EXPLORED, rank
    from relay.mail.mailbox_provider import provider, provider_label

    label = provider_label(provider(recipients[0])) if recipients else "other"
    seen = {name: running[lane, name] for name in upstreams if (lane, name) in running}
    up = [name for name in upstreams if name not in seen or seen[name].state != "down"] or list(upstreams)
    delivered, sent = (
        {name: one.paces[label, end] for name, one in seen.items() if (label, end) in one.paces}
        for end in ("delivered", "sent")
    )
    ranking = rank(up, delivered, sent)
    known = delivered if ranking.end == "delivered" else sent
    return {
        "provider": label,
        "order": list(ranking.names),
        "why": ranking.why,
        "to": ranking.end,
        "p95": {
            name: {"p95_ms": known[name].p95_s * 1000, "samples": known[name].samples}
            for name in ranking.names
            if name in known
        },
        "explored": EXPLORED,
    }


def as_text(document: dict[str, Any]) -> str:
    """One line."""
    from relay.observe.durations import duration

    first, provider = document["order"][0], document["provider"]
    if provider == "other":
        provider = "the mailbox providers without a name of their own"
    if document["why"] == "learning":
        return f"{first} first: the relay learns which upstream is the fastest to {provider}"
    end = "the delivered event" if document["to"] == "delivered" else "the upstream's 250"
    figures = ", ".join(
        f"{name} {duration(one['p95_ms'])} of {one['samples']}" for name, one in document["p95"].items()
    )
    return printable(f"{first} first: the fastest to {provider} (p95 to {end}: {figures})")
