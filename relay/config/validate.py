"""Type the configuration's data with pydantic, and turn pydantic's errors into sentences for an operator."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from relay.config.errors import Diagnostic, Loc, plain
from relay.config.feedback import EventReceiver, Webhooks
from relay.config.fields import Section
from relay.config.masking import SECRETS, shown
from relay.config.model import Config, DkimDomain, Http, Lane, Limits, Listener, Rule, Upstream

_ENTRIES: Mapping[str, type[Section]] = MappingProxyType(
    {
        "listen": Listener,
        "upstreams": Upstream,
        "lanes": Lane,
        "rules": Rule,
        "dkim": DkimDomain,
        "events": EventReceiver,
    }
)
_SECTIONS: Mapping[str, type[Section]] = MappingProxyType({"http": Http, "webhooks": Webhooks, "limits": Limits})


class Validated(NamedTuple):
    """`config` is None where anything is wrong. `sections` holds the well-formed ones all the same, by their place, so
    that one mistake doesn't hide another."""

    config: Config | None
    sections: Mapping[Loc, Section]
    diagnostics: tuple[Diagnostic, ...]


def validate(data: Mapping[str, Any], folder: Path) -> Validated:
    """Type the data. Relative paths in it are relative to `folder`."""
    try:
        config = Config.model_validate(data, context=folder, by_alias=True, by_name=False)
    except ValidationError as error:
        details = error.errors(include_url=False)
        diagnostics = tuple(_diagnostic(detail) for detail in details if not _is_consequence(detail))
        return Validated(None, dict(_well_formed(data, folder)), diagnostics)
    return Validated(config, dict(_sections(config)), ())


def _sections(config: Config) -> Iterator[tuple[Loc, Section]]:
    for name in _SECTIONS:
        yield (name,), getattr(config, name)
    for name in _ENTRIES:
        for key, value in _items(getattr(config, name)):
            yield (name, key), value


def _well_formed(data: Mapping[str, Any], folder: Path) -> Iterator[tuple[Loc, Section]]:
    wanted: list[tuple[Loc, type[Section], Any]] = [
        ((name,), model, data.get(name, {})) for name, model in _SECTIONS.items()
    ]
    for name, model in _ENTRIES.items():
        wanted += [((name, key), model, value) for key, value in _items(data.get(name))]
    for loc, model, value in wanted:
        with suppress(ValidationError):  # reported already
            yield loc, model.model_validate(value, context=folder, by_alias=True, by_name=False)


def _items(section: Any) -> Iterator[tuple[str | int, Any]]:
    if isinstance(section, Mapping):
        yield from section.items()
    elif isinstance(section, list | tuple):
        yield from enumerate(section)


def known_keys(loc: Loc) -> list[str]:
    """The keys that the mapping at `loc` may have, as the file writes them."""
    kind: Any = Config
    for part in loc:
        kind = _unwrapped(kind)
        if _is_section(kind):
            kind = next((f.annotation for name, f in kind.model_fields.items() if part == (f.alias or name)), None)
        else:  # an item of a list, or an entry of a mapping
            kind = next(iter(get_args(kind)[-1:]), None) if get_origin(kind) is dict else _item(kind)
    kind = _unwrapped(kind)
    return [f.alias or name for name, f in kind.model_fields.items()] if _is_section(kind) else []


def _unwrapped(kind: Any) -> Any:
    """The section of `Section | None`."""
    return _item(kind) if get_origin(kind) in (Union, UnionType) and _item(kind) is not None else kind


def _is_section(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _item(kind: Any) -> Any:
    return next((arg for arg in get_args(kind) if _is_section(arg)), None)


def _diagnostic(detail: ErrorDetails) -> Diagnostic:
    loc: Loc = detail["loc"]
    kind = detail["type"]
    if kind == "missing":
        return Diagnostic(loc, "missing: this key is required", at="key")
    if kind == "extra_forbidden":
        return Diagnostic(loc, _unknown(loc), at="key")
    got = _got(loc, detail["input"])
    context = detail.get("ctx", {})
    match kind:
        case "value_error":
            message = str(context["error"])
        case "literal_error":
            choices = context["expected"].replace("'", "")
            message = f"expected {choices}, got {got}{_meant(detail['input'], choices)}"
        case "string_type":
            quotes = "; quotes make it a text" if isinstance(detail["input"], int) else ""
            message = f"expected a text, got {got}{quotes}"
        case "tuple_type" | "list_type":
            message = f"expected a list, got {got}"
        case "dict_type" | "model_type" | "model_attributes_type":
            message = f"expected a mapping, got {got}"
        case "too_short":
            message = "expected at least one, got none"
        case _:
            message = f"{detail['msg']}, got {got}"
    return Diagnostic(loc, message)


def _is_consequence(detail: ErrorDetails) -> bool:
    """Whether a list is too short only because its items are wrong."""
    return detail["type"] == "too_short" and bool(detail["input"])


def _got(loc: Loc, value: object) -> str:
    secret = bool(SECRETS.intersection(str(part) for part in loc)) and not isinstance(value, dict | list | None)
    return "a value that isn't shown" if secret else shown(value)


def _unknown(loc: Loc) -> str:
    *parent, key = loc
    known = known_keys(tuple(parent))
    close = get_close_matches(str(key), known, n=1, cutoff=0.6)
    if _SYNONYMS.get(str(key)) in known:
        close = [_SYNONYMS[str(key)]]
    return f"unknown key{suggestion(close)}"


_SYNONYMS: Mapping[str, str] = MappingProxyType(
    {"from": "sender", "to": "recipient", "ip": "client", "user": "username", "ttl": "expires", "timeout": "attempt"}
)
"""other programs' names of our keys"""


def _meant(value: object, choices: str) -> str:
    """The nearest choice as a suggestion. `tls: no` and `tls: false` mean none."""
    words = choices.replace(" or ", ", ").split(", ")
    if (value is False or value in ("no", "off")) and "none" in words:
        return suggestion(["none"])
    return suggestion(get_close_matches(str(value).lower(), words, n=1, cutoff=0.6))


def suggestion(close: list[str]) -> str:
    return f"; did you mean {close[0]}?" if close else ""


def absent(what: str, name: str, known: Collection[str]) -> str:
    """`there is no lane 'opt'; did you mean otp?`"""
    close = suggestion(get_close_matches(name, sorted(known), n=1, cutoff=0.6))
    listed = "" if close else f"; there is {', '.join(plain(k) for k in sorted(known)[:8])}" if known else ""
    return f"there is no {what} {shown(name)}{close or listed}"
