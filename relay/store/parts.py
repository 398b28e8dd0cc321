"""Split messages in the log: their parts, each a message of its own in the store, shown as one. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from relay.store.view import SPLIT, Json, entry_of


def joined(parts: Sequence[Json]) -> Json:
    """One message of all its parts, with the entry's id and values, and the recipients in the order of the envelope.
    Each recipient says of its part: `part` (the id), `lane`, `rule`, `expires_at`. Parts that are deleted already are
    left out; without the entry the first part gives the values."""
    ordered = sorted(parts, key=lambda one: min(one[SPLIT]["places"]))
    entry_id = entry_of(ordered[0])
    entry = next((one for one in ordered if one["id"] == entry_id), ordered[0])
    recipients: dict[int, Json] = {}
    for part in ordered:
        of_part = {"part": part["id"], **{name: part[name] for name in ("lane", "rule", "expires_at")}}
        for place, recipient in zip(part[SPLIT]["places"], part["recipients"], strict=False):
            recipients[place] = {**recipient, **of_part}
    shown = {name: value for name, value in entry.items() if name != SPLIT}
    return {
        **shown,
        "id": entry_id,
        "recipients": [recipients[place] for place in sorted(recipients)],
        "notes": _notes(ordered),
    }


def _notes(parts: Iterable[Json]) -> list[Json]:
    """Of all parts, by time; what is noted of several at the same time stands once."""
    found = {(note["at"], note["text"]): note for part in parts for note in part["notes"]}
    return [found[key] for key in sorted(found, key=lambda key: key[0])]


def by_entry(messages: Iterable[Json]) -> dict[str, list[Json]]:
    """Messages by the id of their entry, those that aren't split by their own, in the order in which each comes."""
    found: dict[str, list[Json]] = {}
    for message in messages:
        found.setdefault(entry_of(message), []).append(message)
    return found
