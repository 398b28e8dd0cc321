"""What `explain` says of a message whose recipients take different routes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from relay.cli.common import configured_duration, printable

if TYPE_CHECKING:
    from relay.config.model import Config
    from relay.routing.facts import Facts

_OF_A_PART = (
    "lane", "rule", "earlier", "recipients", "upstreams", "ways", "warm", "prefer", "suppressed", "expires_ms",
    "limits", "limited", "refused",
)  # fmt: skip


def split(config: Config, facts: Facts) -> Sequence[Facts]:
    """The facts of each part; of most messages there is one, with all recipients."""
    from relay.routing.router import Router

    return [
        facts._replace(recipients=tuple(facts.recipients[position] for position in part.positions))
        for part in Router(config).parts(facts)
    ]


def joined(config: Config, documents: Sequence[dict[str, Any]], facts: Facts) -> dict[str, Any]:
    """One document of those of all parts: the entry's, with all recipients, and `parts`, which is None where the
    message isn't split. `facts`: of the whole message."""
    if len(documents) == 1:
        return {**documents[0], "parts": None}
    # As intake has it: the first part in an express lane, else the one with the first recipient.
    parts = sorted(documents, key=lambda one: not config.lanes[one["lane"]].express)
    found = [one["suppressed"] for one in parts if one["suppressed"] is not None]
    return {
        **parts[0],
        "recipients": list(facts.recipients),
        "suppressed": {address: why for some in found for address, why in some.items()} if found else None,
        "limited": [reason for part in parts for reason in part["limited"]],
        "refused": list(dict.fromkeys(refusal for part in parts for refusal in part["refused"])),
        "parts": [{name: part[name] for name in _OF_A_PART if name in part} for part in parts],
    }


def as_lines(document: dict[str, Any]) -> Iterator[str]:
    """One for each part; none where the message isn't split."""
    for part in document["parts"] or ():
        reason = "no rule matched" if part["rule"] is None else f"rule {part['rule']}"
        expires = configured_duration(part["expires_ms"])
        yield printable(
            f"{part['lane']} ({reason}): {', '.join(part['recipients'])}; by {', '.join(part['upstreams'])}; "
            f"expires {expires} after the final dot"
        )
