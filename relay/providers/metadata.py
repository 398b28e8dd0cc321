"""The relay's id in the metadata that ESPs carry from a message to its events."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence

from relay.providers.reading import dig, first, identifier, read_json
from relay.providers.webhook import Correlate, Field

KEY = "relay_id"
OTHER_KEY = "x-otp-relay-id"
"""where the app has a value of its own under the first"""
_KEYS = (OTHER_KEY, "relay-id", "x-relay-id")
"""spellings of the key, with dashes for underscores; the first of them counts"""
_MAX_PIECE = 900
"""characters between two spaces: a line has at most 998 (RFC 5322 2.1.1), with the field's name"""
_UNSAFE = re.compile(r"[^\x20-\x7e\t]")
Metadata = dict[str, object]


def _spelling(name: object) -> str | None:
    """Which spelling of the relay's key this is; None: it is another key."""
    dashed = name.lower().replace("_", "-") if isinstance(name, str) and len(name) < 20 else ""
    return dashed if dashed in _KEYS else None


def free_key(names: Iterable[str]) -> str | None:
    """The key for the relay's id beside the app's keys. None: the app uses both."""
    taken = {_spelling(name.strip()) for name in names} - {None}
    if not taken:
        return KEY
    return None if OTHER_KEY in taken else OTHER_KEY


def relay_id_in(metadata: object) -> str | None:
    """The relay's id out of an ESP's metadata: an object, a JSON text, or a list of names and values."""
    if isinstance(metadata, str) and metadata.lstrip()[:1] in ("{", "["):
        metadata = read_json(metadata)
    if isinstance(metadata, list):
        metadata = {str(dig(one, "name")): dig(one, "value") for one in metadata}
    if not isinstance(metadata, dict):
        return None
    found = {spelling: value for name, value in metadata.items() if (spelling := _spelling(name)) is not None}
    value = first(found.get(spelling) for spelling in _KEYS)
    return identifier(value[0] if isinstance(value, list) and value else value)


def of_name(present: Sequence[Field], name: str) -> list[str]:
    """The values of the fields of that name; case is ignored."""
    return [field.value for field in present if field.name.lower() == name.lower()]


def is_plain(value: str) -> bool:
    """Whether a field's value is ASCII without control characters."""
    return _UNSAFE.search(value) is None


def json_field(name: str, put: Callable[[Metadata, str], bool], limit: int) -> Correlate:
    """`correlate` for a field whose value is a JSON object.

    `put` adds the relay's id to the object; False: it has no room. `limit`: characters that the value may have. It
    is written with a space behind each comma and colon, where the line may be folded.
    """

    def correlate(relay_id: str, present: Sequence[Field]) -> Field | None:
        values = of_name(present, name)
        if len(values) > 1:
            return None
        try:
            # Numbers are kept as they are, unlike in an event: one that JSON can't have makes the field unreadable.
            known = json.loads(values[0]) if values else {}
            if not isinstance(known, dict) or not put(known, relay_id):
                return None
            value = json.dumps(known, allow_nan=False)
        except (ValueError, RecursionError):
            return None
        return Field(name, value) if len(value) <= limit and can_fold(value) else None

    return correlate


def put_into(known: Metadata, relay_id: str, *path: str) -> bool:
    """Add the id to the object at `path`, which is made where it is missing."""
    for step in path:
        inner = known.setdefault(step, {})
        if not isinstance(inner, dict):
            return False
        known = inner
    key = free_key(known)
    if key is not None:
        known[key] = relay_id
    return key is not None


def can_fold(value: str) -> bool:
    """Whether the field can be written in lines of at most 998 characters, folded at spaces."""
    return all(len(piece) <= _MAX_PIECE for piece in value.split(" "))
