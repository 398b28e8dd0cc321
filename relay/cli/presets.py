"""`otp-relay presets`: the providers known, and what a preset fills."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from relay.cli.common import EXIT_OK, EXIT_USAGE, NOT_READ, CommandFailed, add_config, printable, set_command

if TYPE_CHECKING:
    from relay.providers.base import Preset, Provider

UNVERIFIED = "[unverified]"
"""behind what no documentation of the provider was found for"""
_INDENT = "  "


def register(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    parser = subparsers.add_parser(
        "presets",
        help="list the providers known, or show what a preset fills",
        description="Lists the presets. With NAME, shows what that preset fills, as YAML to paste under `upstreams:`, "
        f"and what is known of the provider; {UNVERIFIED} marks what no documentation was found for.",
    )
    parser.add_argument("name", metavar="NAME", nargs="?", help="a preset, such as postmark or ses-eu-west-1")
    parser.add_argument("--json", action="store_true", help="JSON: of the list one object a line, of NAME one object")
    add_config(parser, NOT_READ)
    set_command(parser, presets)


def presets(args: argparse.Namespace) -> int:
    """Exit 0; or 2 if there is no preset of that name."""
    from relay.providers.registry import find_preset, nearest_preset, provider_of

    if args.name is None:
        _print_list(as_json=args.json)
        return EXIT_OK
    preset, provider = find_preset(args.name), provider_of(args.name)
    if preset is None or provider is None:
        near = nearest_preset(args.name)
        hint = f"did you mean {near}?" if near else "`otp-relay presets` lists them"
        raise CommandFailed(printable(f"there is no preset {args.name}; {hint}"), EXIT_USAGE)
    if args.json:
        print(json.dumps(_document(args.name, provider, preset), ensure_ascii=False))
    else:
        print("\n".join(_yaml(args.name, provider, preset)))
    return EXIT_OK


def _print_list(*, as_json: bool) -> None:
    from relay.cli.text import table
    from relay.providers.registry import presets

    if as_json:
        for name, provider, preset in presets():
            print(json.dumps(_row(name, provider, preset)))
        return
    rows = [
        (name, provider.name, f"{_host(preset)}:{preset.keys['port']}", preset.keys["tls"], ", ".join(_ways(provider)))
        for name, provider, preset in presets()
    ]
    print(table(("NAME", "PROVIDER", "SERVER", "TLS", "BY"), rows))
    for name, provider, preset in presets():
        if provider.preset_by_name is not None:
            print(f"\n{name} needs host: {preset.needs['host']}")


def _host(preset: Preset) -> str:
    """The server; of a preset that doesn't know it, the form that it has."""
    return str(preset.keys.get("host") or preset.needs["host"].partition(",")[0])


def _ways(provider: Provider) -> tuple[str, ...]:
    return ("SMTP",) if provider.api is None else ("SMTP", "API")


def _row(name: str, provider: Provider, preset: Preset) -> dict[str, Any]:
    return {
        "name": name,
        "provider": provider.name,
        "host": preset.keys.get("host"),
        "port": preset.keys["port"],
        "tls": preset.keys["tls"],
        "smtp": True,
        "api": provider.api,
    }


def _document(name: str, provider: Provider, preset: Preset) -> dict[str, Any]:
    """The JSON document of one preset."""
    facts = preset.facts
    return {
        **_row(name, provider, preset),
        "api_url": preset.api_url,
        "other_ports": [{"port": port, "tls": tls} for port, tls in preset.other_ports],
        "keys": preset.keys,
        "needs": {**preset.needs, **_secret_needed(preset)},
        "limits": facts.limits,
        "region": facts.region,
        "reply_id": facts.reply_id,
        "metadata": provider.correlation_header or facts.metadata,
        "webhook": provider.webhook is not None,
        "notes": facts.notes,
        "unverified": preset.unverified,
    }


def _secret_needed(preset: Preset) -> dict[str, str]:
    """The key that a secret stands in, with what it is."""
    if "oauth2" in preset.sample:
        return {"oauth2": "where access tokens come from"}
    return {"password": "the secret; or password_file"}


def _yaml(name: str, provider: Provider, preset: Preset) -> Iterator[str]:
    """The upstream's keys as lines of YAML, indented to stand below `upstreams:`, with what is known as comments."""
    inner = _INDENT * 2
    yield f"{_INDENT}{name}:"
    yield f"{inner}preset: {name}"
    variable = name.upper().replace("-", "_")
    for key, what in preset.needs.items():
        yield f"{inner}{key}: ${{{variable}_{key.upper()}}}  # {what}"
    if not preset.sample:
        yield f"{inner}password: ${{{variable}_PASSWORD}}  # or password_file"
    yield from _lines(preset.sample, inner, {})
    yield f"{inner}# What the preset fills; these keys may be left out:"
    remarks = dict.fromkeys(preset.unverified, UNVERIFIED)
    if preset.other_ports:
        ports = ", ".join(f"{port} {tls}" for port, tls in preset.other_ports)
        remarks["port"] = _marked(f"or {ports}", "other_ports", preset)
    yield from _lines(preset.keys, inner, remarks)
    for text in _facts(provider, preset):
        yield f"{inner}# {text}"


def _lines(keys: Mapping[str, Any], indent: str, remarks: Mapping[str, str], above: str = "") -> Iterator[str]:
    """Each key as a line of YAML with the remark on it; a mapping's keys (`sessions.idle`) have lines of their own."""
    import yaml

    for key, value in keys.items():
        if isinstance(value, Mapping):
            yield f"{indent}{key}:"
            yield from _lines(value, indent + _INDENT, remarks, f"{above}{key}.")
            continue
        flow = isinstance(value, tuple)
        text = yaml.safe_dump({key: value}, default_flow_style=None if flow else False, width=1_000).rstrip("\n")
        remark = remarks.get(f"{above}{key}")
        yield f"{indent}{text}" + (f"  # {remark}" if remark else "")


def _marked(text: str | None, name: str, preset: Preset) -> str:
    """The text, with a mark where no documentation was found for it; '' where nothing is known."""
    return " ".join([*([text] if text else []), *([UNVERIFIED] if name in preset.unverified else [])])


def _facts(provider: Provider, preset: Preset) -> Iterator[str]:
    """What is known beyond the keys, one line each."""
    facts = preset.facts
    header = provider.correlation_header
    known = (
        *(("limit", "limits", one) for one in facts.limits or (None,)),
        ("region", "region", facts.region),
        ("id in the 250", "reply_id", facts.reply_id),
        ("metadata header", "metadata", f"{header} (the relay puts its id there)" if header else facts.metadata),
    )
    for title, name, text in known:
        if marked := _marked(text, name, preset):
            yield f"{title}: {marked}"
    yield f"events: {'webhook' if provider.webhook is not None else 'none that the relay reads'}"
    if provider.api is not None:
        url = f" ({preset.api_url})" if preset.api_url else ""
        yield f"HTTP API{url}: with via: api or via: auto"
    yield from facts.notes
