"""What docs/configuration.md says of each key: the one place where the keys are described."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from relay.config import access, feedback, fields, model

SOURCE = Path(__file__).parents[2] / "docs/configuration.md"
SECTIONS: Mapping[str, type[fields.Section]] = {
    "The whole file": model.Config,
    "listen": model.Listener,
    "http": model.Http,
    "webhooks": feedback.Webhooks,
    "webhook of an upstream": feedback.Webhook,
    "objective of a lane": feedback.Objective,
    "events": feedback.EventReceiver,
    "upstreams": model.Upstream,
    "api of an upstream": access.ApiAccess,
    "oauth2 of an upstream": access.OAuth2,
    "sessions of an upstream": model.Sessions,
    "lanes": model.Lane,
    "limits of a lane": model.LaneLimits,
    "rules": model.Rule,
    "match of a rule": model.Match,
    "dkim": model.DkimDomain,
    "keys of a domain": model.DkimKey,
    "limits": model.Limits,
    "queue": model.Queue,
    "log": model.Log,
}
"""Its headings, each with the section of the configuration that stands there as a table."""


class Key(NamedTuple):
    """A row of a table, without Markdown's links."""

    name: str
    kind: str
    default: str
    """as the table has it, in Markdown; `–`: none; `required`"""
    effect: str
    notes: tuple[str, ...]
    """what the list below the table says of the key"""

    @property
    def text(self) -> str:
        """One paragraph, in Markdown."""
        return " ".join(f"{one[0].upper()}{one[1:].rstrip('.')}." for one in (self.effect, *self.notes))


def keys_of(section: type[fields.Section]) -> Mapping[str, Key]:
    """The described keys of a section of the configuration, in the order of the document."""
    title = next(title for title, one in SECTIONS.items() if one is section)
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", SOURCE.read_text(), re.MULTILINE | re.DOTALL)
    if found is None:
        raise ValueError(f"{SOURCE.name} has no section {title!r}")
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", found[1])
    notes = _notes(text)
    keys = [_key(line, notes) for line in text.splitlines() if line.startswith("| `")]
    return {one.name: one for one in keys}


def _key(row: str, notes: Mapping[str, tuple[str, ...]]) -> Key:
    name, kind, default, effect = (cell.strip().replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", row.strip("|")))
    name = name.strip("`")
    return Key(name, kind, default, effect, notes.get(name, ()))


def _notes(text: str) -> Mapping[str, tuple[str, ...]]:
    """The list's entries that begin with a key, as `- `store`: its folder ...`, by key."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in re.findall(r"^- (.*?)(?=^- |^\n|^\S|\Z)", text, re.MULTILINE | re.DOTALL):
        # Lists within an entry aren't about the key alone.
        one = " ".join(re.split(r"^ +- ", entry, flags=re.MULTILINE)[0].split())
        if (begins := re.match(r"`(\w+)`: (.+)", one)) is not None:
            found[begins[1]] = (*found.get(begins[1], ()), begins[2])
    return found
