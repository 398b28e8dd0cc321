"""The text forms of the configuration's values as JSON Schema: one for each parser of `relay.config`.

A parser that has no form here is an error, so a new type of value can't be left out.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from relay.config import mail_address, network, parse, patterns, rate_limit

Schema = dict[str, Any]

REFERENCE: Schema = {
    "description": "A value of the environment: ${NAME}, or ${NAME:-default}; also a part of a text.",
    "type": "string",
    "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}]*)?\}",
}
_NOT_ZERO = "(?=[^a-zA-Z/%]*[1-9])"
_HOST = r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?\.?"


def _text(description: str, pattern: str, **more: object) -> Schema:
    return {"description": description, "type": "string", "pattern": f"^(?:{pattern})$", **more}


TEXTS: Mapping[str, Schema] = {
    "duration": _text("A duration, such as 200ms, 2s, 10m, 1h or 2d.", _NOT_ZERO + parse.DURATION.pattern),
    "duration_or_zero": _text("A duration, such as 200ms, 2s, 10m, 1h or 2d; 0s, too.", parse.DURATION.pattern),
    "size": _text("A size, such as 512KB, 25MB or 1GiB.", _NOT_ZERO + parse._SIZE.pattern),
    "rate": _text("A rate, such as 50/s or 30/m.", _NOT_ZERO + parse.RATE.pattern),
    "share": _text("A share of more than 0% and less than 100%, such as 99%.", _NOT_ZERO + parse._SHARE.pattern),
    "limit": _text("At most so many in any time of that length, as 5/1h.", rate_limit._LIMIT.pattern),
    "budget": _text(
        "At most so many in any time of that length, as 50/s or 5/1h.",
        f"{rate_limit._BUDGET.pattern}|{rate_limit._LIMIT.pattern}",
    ),
    "network": _text(
        "An IP address or a network, such as 10.1.0.0/16 or 2001:db8::/32.", r"[0-9A-Fa-f:.]+(?:/[0-9]{1,3})?"
    ),
    "address": _text(
        "Where to listen: host:port, [::1]:port, unix:/path, or systemd:NAME (socket activation).",
        rf"unix:.+|systemd:[\x21-\x39\x3b-\x7e]{{1,255}}|\[[0-9A-Fa-f:.]+\]:[0-9]{{1,5}}|{_HOST}:[0-9]{{1,5}}",
    ),
    "header_name": _text("The name of a header field, such as Message-ID.", r"[\x21-\x39\x3b-\x7e]{1,200}"),
    "mail_address": _text(
        "A mail address, such as staging@example.com.",
        rf"{mail_address._LOCAL_PART.pattern}@{_HOST}",
        maxLength=mail_address.MAX_CHARS,
    ),
    "path": {
        "description": "A path; a relative one is relative to this file's folder.",
        "type": "string",
        "minLength": 1,
    },
    "store": _text("The path of the SQLite file, relative to this file's folder.", r"(?!.*://)[\s\S]+"),
    "pattern": _text(
        "A glob (* is any text, ? any character; the whole value, in any case), or /regex/ or /regex/i in RE2's "
        "syntax, which matches anywhere.",
        r"[^/][\s\S]*|/[\s\S]+/i?|",
        maxLength=patterns.MAX_PATTERN_CHARS,
    ),
}
_PARSERS: Mapping[Callable[..., object], str] = {
    parse.parse_duration: "duration",
    parse.parse_duration_or_zero: "duration_or_zero",
    parse.parse_size: "size",
    parse.parse_rate: "rate",
    parse.parse_share: "share",
    rate_limit.parse_rate_limit: "limit",
    rate_limit.parse_budget: "budget",
    network.parse_network: "network",
    network.parse_address: "address",
    parse.parse_header_name: "header_name",
    mail_address.parse_mail_address: "mail_address",
    parse.parse_path: "path",
    parse.parse_store: "store",
}
_NUMBERS: Mapping[Callable[..., object], list[Schema]] = {
    parse.parse_flag: [{"type": "boolean"}],
    parse.parse_workers: [{"const": "auto"}, {"type": "integer", "minimum": 0, "maximum": 64}],
    parse.parse_warm: [{"const": "auto"}, {"type": "integer", "minimum": 0, "maximum": 10**9 - 1}],
}


def reference_to(name: str) -> Schema:
    return {"$ref": f"#/$defs/{name}"}


def or_reference(*forms: Schema) -> Schema:
    """These forms, or a value of the environment."""
    return {"anyOf": [*forms, reference_to("reference")]}


def form_of(parser: Callable[..., object]) -> Schema:
    """What a parser accepts. Raises ValueError for one that isn't known."""
    if parser in _PARSERS:
        return reference_to(_PARSERS[parser])
    if parser in _NUMBERS:
        return or_reference(*_NUMBERS[parser])
    if getattr(parser, "__qualname__", "").startswith("whole."):
        bounds = inspect.getclosurevars(parser).nonlocals
        return or_reference({"type": "integer", "minimum": bounds["least"], "maximum": bounds["most"]})
    raise ValueError(f"{parser!r} has no form in {__name__}")


def definitions() -> Mapping[str, Schema]:
    """The text forms as `$defs`: each may be a value of the environment as well."""
    described = {
        name: {"description": one["description"], **or_reference({k: v for k, v in one.items() if k != "description"})}
        for name, one in TEXTS.items()
    }
    return {"reference": REFERENCE, **described}
