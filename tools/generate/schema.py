"""relay/config/schema.json: the configuration's JSON Schema (2020-12), made from the model and its document."""

from __future__ import annotations

import json
import re
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, BeforeValidator, SecretStr

from relay.config import checks, fields, model
from relay.providers.registry import presets
from tools.generate.descriptions import Key, keys_of
from tools.generate.forms import Schema, definitions, form_of, or_reference, reference_to

ONE_OR_MANY = frozenset({"listen", "rules", "dkim", "events"})
"""lists of the whole file that may be one mapping: `defaults.complete`"""
MAY_BE_EMPTY = ONE_OR_MANY - {"listen"}
NAMED = frozenset({"upstreams", "lanes"})
"""mappings of names that the operator chooses"""
NULL: Schema = {"type": "null"}
FILLED = frozenset(
    {
        *(("Config", key) for key in ("hostname", "default_lane", *MAY_BE_EMPTY)),
        *(("Upstream", key) for _, _, preset in presets() for key in preset.keys),
    }
)
"""sections and keys whose null means that they aren't given: `defaults.complete`, `Preset.fill`"""
ELSEWHERE = ("–", "required", "below", "see below")
"""defaults that are no value"""
NEEDS_HOST: Schema = {
    "if": {
        "not": {
            "anyOf": [
                {"required": ["preset"]},
                {"required": ["via"], "properties": {"via": {"not": {"enum": ["smtp", "auto"]}}}},
            ]
        }
    },
    "then": {"required": ["host"]},
}
"""of an upstream; with `via: api` none is needed"""


def any_of(*forms: Schema) -> Schema:
    """One of these forms; alternatives within them stand beside the others."""
    flat: list[Schema] = []
    for form in forms:
        flat += [one for one in (form["anyOf"] if set(form) == {"anyOf"} else [form]) if one not in flat]
    return {"anyOf": flat} if len(flat) > 1 else flat[0]


def schema() -> Schema:
    """The whole schema."""
    found: dict[str, Schema] = {}
    whole = _section(model.Config, found)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "The configuration of otp-relay",
        **whole,
        "$defs": {**definitions(), **dict(sorted(found.items()))},
    }


def text() -> str:
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"


def _section(section: type[fields.Section], found: dict[str, Schema]) -> Schema:
    """A mapping of the file. Sections in it are put into `found`."""
    described = keys_of(section)
    properties = {}
    for name, field in section.model_fields.items():
        key = described[field.alias or name]
        form = _form(field.rebuild_annotation(), key, found)
        if section is model.Config:
            form = _of_whole_file(key.name, form)
        if (section.__name__, key.name) in FILLED:
            form = any_of(form, NULL)
        properties[key.name] = _described(form, key)
    needs = NEEDS_HOST if section is model.Upstream else {}
    required = [key.name for key in described.values() if key.default == "required"]
    return {
        "description": " ".join((section.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **({"required": required} if required else {}),
        **needs,
    }


def _of_whole_file(name: str, form: Schema) -> Schema:
    if name in NAMED:
        return {**form, "propertyNames": {"pattern": f"^(?:{checks._NAME.pattern})$"}}
    if name in ONE_OR_MANY and form.get("type") == "array":
        return any_of(form, form["items"])
    return form


def _described(form: Schema, key: Key) -> Schema:
    plain = re.fullmatch(r"`([^`]+)`", key.default)
    text = key.text.replace("`", "")
    if plain is None and key.default not in ELSEWHERE and not key.default.startswith("required"):
        text += f" Default: {key.default.replace('`', '')}."
    default = {"default": yaml.safe_load(plain[1])} if plain is not None else {}
    return {"description": text, **default, **form}


def _form(kind: Any, key: Key, found: dict[str, Schema]) -> Schema:
    """The schema of an annotation."""
    origin, inner = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _annotated(inner[0], inner[1:], key, found)
    if origin in (Union, UnionType):
        return any_of(*(NULL if one is NoneType else _form(one, key, found) for one in inner))
    if origin is Literal:
        return or_reference({"enum": list(inner)})
    if origin is tuple:
        return {"type": "array", "items": _form(inner[0], key, found)}
    if origin is dict:
        names = {"propertyNames": reference_to("header_name")} if key.name in ("header", "headers") else {}
        return {"type": "object", "additionalProperties": _form(inner[1], key, found), **names}
    if kind is SecretStr:
        return {"type": "string"}
    if kind is str:
        return reference_to("pattern") if "pattern" in key.kind else {"type": "string"}
    if isinstance(kind, type) and issubclass(kind, fields.Section):
        if kind.__name__ not in found:
            found[kind.__name__] = {}  # its place, while what is in it is looked at
            found[kind.__name__] = _section(kind, found)
        return reference_to(kind.__name__)
    raise ValueError(f"{key.name}: no form for {kind!r}")


def _annotated(base: Any, metadata: tuple[Any, ...], key: Key, found: dict[str, Schema]) -> Schema:
    parsers = [one.func for one in metadata if isinstance(one, BeforeValidator)]
    if fields._as_tuple in parsers or fields._as_tuple_of_mappings in parsers:
        one = _form(get_args(base)[0], key, found)
        least = {"minItems": 1} if any(getattr(more, "min_length", 0) for more in metadata) else {}
        many = {"type": "array", "items": one, **least}
        return any_of(one, many, *([NULL] if fields._as_tuple in parsers else []))
    if parsers:
        return form_of(parsers[0])
    if any(isinstance(one, AfterValidator) for one in metadata):
        return _form(base, key, found)
    form = _form(base, key, found)
    if any(getattr(one, "min_length", 0) for one in metadata):
        form |= {"minItems": 1} if form.get("type") == "array" else {"minProperties": 1}
    return form
