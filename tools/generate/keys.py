"""docs/keys.md: every key of the configuration by its path, from the schema."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from typing import Any

from relay.config import fields
from tools.generate.descriptions import SECTIONS, keys_of
from tools.generate.forms import TEXTS, Schema
from tools.generate.schema import schema

COLUMNS = 100
_HEAD = """\
# Keys

Every key of the configuration by its path, with what it accepts and its default. `NAME` is a name
of yours, `[]` an entry of a list. [configuration.md](configuration.md) goes through the same keys
with the rules behind them.

`otp-relay schema` prints all of this as a JSON Schema, which an editor can check a file with.
This page is made from it by `python -m tools.generate`.

Each value may come from the environment: `${NAME}`, or `${NAME:-default}`. Where a list is
accepted, one value is enough.
"""


def text() -> str:
    whole = schema()
    parts = [_HEAD, "## Forms\n", *_forms(), ""]
    for path, name in _places(whole):
        parts += list(_section(path, name, whole))
    return "\n".join(parts).rstrip() + "\n"


def _forms() -> Iterator[str]:
    for name, form in TEXTS.items():
        yield _item(f"**{_words(name)}**: {form['description']}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def _item(text: str) -> str:
    # A word of code must not be broken over two lines, nor begin one as a list would.
    return textwrap.fill(
        text,
        COLUMNS,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _places(whole: Schema) -> Iterator[tuple[str, str]]:
    """Each section's path in a file, and its name in `$defs` ('' for the whole file)."""
    yield "", ""
    waiting = [("", whole)]
    while waiting:
        above, section = waiting.pop(0)
        inner = []
        for key, form in section["properties"].items():
            for suffix, name in _sections_in(form, whole):
                path = f"{above}.{key}{suffix}".lstrip(".")
                yield path, name
                inner.append((path, whole["$defs"][name]))
        waiting = inner + waiting


def _sections_in(form: Any, whole: Schema, suffix: str = "") -> list[tuple[str, str]]:
    """The section that a form holds, with what leads to it: `.NAME` or `[]`. A list goes before one entry alone."""
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        return [(suffix, name)] if "properties" in whole["$defs"][name] else []
    if form.get("type") == "array":
        return _sections_in(form["items"], whole, f"{suffix}[]")
    if isinstance(form.get("additionalProperties"), dict):
        return _sections_in(form["additionalProperties"], whole, f"{suffix}.NAME")
    found = [one for each in form.get("anyOf", ()) for one in _sections_in(each, whole, suffix)]
    return sorted(found, key=lambda one: -len(one[0]))[:1]


def _section(path: str, name: str, whole: Schema) -> Iterator[str]:
    section = whole["$defs"][name] if name else whole
    yield f"## {path}\n" if path else "## The whole file\n"
    if path:
        yield f"{textwrap.fill(section['description'], COLUMNS)}\n"
    described = keys_of(_model_named(name))
    for key, form in section["properties"].items():
        about = [_accepted(form, whole), *_default(described[key].default)]
        yield _item(f"`{f'{path}.{key}'.lstrip('.')}` ({'; '.join(about)}): {described[key].text}")
    yield ""


def _model_named(name: str) -> type[fields.Section]:
    return next(one for one in SECTIONS.values() if one.__name__ == (name or "Config"))


def _default(told: str) -> list[str]:
    if told.startswith("required"):
        return [told]
    return [] if told in ("–", "below", "see below") else [f"default: {told}"]


def _accepted(form: Any, whole: Schema) -> str:
    """What a form accepts, in words."""
    words = list(dict.fromkeys(_alternatives(form, whole)))
    return " or ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _alternatives(form: Any, whole: Schema) -> Iterator[str]:
    if "$ref" in form:
        name = form["$ref"].rpartition("/")[2]
        if name != "reference":
            yield "mapping" if "properties" in whole["$defs"][name] else _words(name)
    elif "anyOf" in form:
        # One value stands for a list of one, which the page says once.
        lists = [one for one in form["anyOf"] if one.get("type") == "array"]
        for one in lists or form["anyOf"]:
            yield from _alternatives(one, whole)
    elif "enum" in form or "const" in form:
        yield from (f"`{one}`" for one in form.get("enum", [form.get("const")]))
    elif form["type"] == "array":
        yield f"list of {_accepted(form['items'], whole)}"
    elif form["type"] == "object":
        yield f"mapping of names to {_accepted(form['additionalProperties'], whole)}"
    elif form["type"] == "integer":
        most = form["maximum"]
        yield f"number of at least {form['minimum']}" if most >= 10**9 - 1 else f"number {form['minimum']} to {most}"
    elif form["type"] != "null":
        yield {"boolean": "`true`, `false`", "string": "text"}[form["type"]]
