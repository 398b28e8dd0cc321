"""Fill in what a configuration leaves out and what depends on other keys, before types are checked.

A lane's defaults depend on whether it is express, a port on the kind of TLS, an upstream's keys on its preset. All
other defaults stand in `model`.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from relay.config.access_defaults import with_access, with_api
from relay.config.document import Document
from relay.config.errors import Loc
from relay.config.masking import shown
from relay.config.model import EXPRESS_WITHIN_S
from relay.config.network import is_host
from relay.config.parse import DEFAULT_STORE, parse_duration
from relay.config.secrets import with_secrets
from relay.config.validate import suggestion
from relay.providers.registry import find_preset, nearest_preset, provider_of

_EXPRESS: Mapping[str, Any] = {
    "retry": ("200ms", "1s", "3s", "8s", "20s", "30s"),
    "attempt": "10s",
    "final": "60s",
    "suppress": "hard",
    "suppress_for": "7d",
}
_BULK: Mapping[str, Any] = {
    "retry": ("1m", "5m", "15m", "1h", "4h"),
    "attempt": "60s",
    "final": "5m",
    "suppress": "all",
}
_PORT = {"implicit": 465, "starttls": 587, "none": 25}
_SECRET = ("secret",)
_TOKENS = ("token", "read_token", "send_token")
_LOOKUP_S = 2.0


def complete(document: Document, folder: Path, machine_name: Callable[[], str]) -> dict[str, Any]:
    """The document's data with its defaults. Mistakes that are found on the way become the document's diagnostics."""
    data = dict(document.data)
    for key in ("listen", "rules", "dkim", "events"):
        if key in data and data[key] is None and key != "listen":
            data[key] = ()  # every entry is commented out
        if isinstance(data.get(key), dict):
            data[key] = (data[key],)  # one stands for a list of one
    if isinstance(data.get("events"), tuple):
        data["events"] = tuple(
            with_secrets(document, folder, ("events", n), given, _SECRET) for n, given in enumerate(data["events"])
        )
    if isinstance(data.get("listen"), tuple):
        data["listen"] = tuple(map(_listener, data["listen"]))
    if "http" in data:
        data["http"] = with_secrets(document, folder, ("http",), data["http"], _TOKENS)
    data.setdefault("store", str(DEFAULT_STORE))
    if data.get("hostname") is None:
        data["hostname"] = machine_name()
    lanes, upstreams = _mapping(data.get("lanes")), _mapping(data.get("upstreams"))
    if upstreams:
        data["upstreams"] = {name: _upstream(document, folder, name, given) for name, given in upstreams.items()}
    else:
        document.broken.update(("lanes", name, "upstreams") for name in lanes)
    if lanes:
        data["lanes"] = {name: _lane(name, given) for name, given in lanes.items()}
        if data.get("default_lane") is None:
            data["default_lane"] = "bulk" if "bulk" in lanes else next(iter(lanes)) if len(lanes) == 1 else None
        if data["default_lane"] is None:
            document.refuse(("default_lane",), "missing: name the lane of mail that no rule claims", at="key")
    else:
        document.broken.add(("default_lane",))
    return data


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _listener(given: Any) -> Any:
    """The address of systemd's sockets isn't known here: without `allow` they serve this machine only."""
    if not isinstance(given, dict) or not str(given.get("address")).startswith("systemd:"):
        return given
    if given.get("allow") or given.get("auth") == "required":
        return given
    return {**given, "allow": ("127.0.0.0/8", "::1/128")}


def _lane(name: str, given: Any) -> Any:
    """Codes expire after ten minutes, other mail after two days. Without `express`, a lane whose mail expires within
    the hour is express."""
    if not isinstance(given, dict):
        return given
    expires = given.get("expires", "10m" if name == "otp" else "2d")
    try:
        is_short = parse_duration(expires, None) <= EXPRESS_WITHIN_S
    except ValueError:
        is_short = False  # the duration is refused later
    express = given.get("express", is_short)
    return {**(_EXPRESS if express is True else _BULK), "expires": expires, "express": express, **given}


def _upstream(document: Document, folder: Path, name: str, given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    loc: Loc = ("upstreams", name)
    keys = with_access(document, folder, loc, given)
    # An empty variable: the preset's value, or the default.
    keys = {key: value for key, value in keys.items() if value is not None or key not in ("port", "tls")}
    is_api = keys.get("via") == "api"
    preset = keys.get("preset")
    if isinstance(preset, str):
        known = find_preset(preset)
        if known is None:
            close = nearest_preset(preset)
            document.refuse(
                (*loc, "preset"), f"there is no preset {shown(preset)}{suggestion([close] if close else [])}"
            )
            document.broken.add((*loc, "host"))
        else:
            keys = known.fill(keys)
            for key, what in known.needs.items():
                if not is_api and keys.get(key) is None and (key != "username" or keys.get("password") is None):
                    document.refuse((*loc, key), f"missing: preset {preset} needs {key}: {what}", at="key")
    if keys.get("webhook") is not None:
        keys["webhook"] = with_secrets(document, folder, (*loc, "webhook"), keys["webhook"], _SECRET)
        keys["webhook"] = _with_kind(keys["webhook"], preset)
    keys = with_api(keys)
    if "port" not in keys:  # RFC 6409 3.1, RFC 8314 7.3
        tls = keys.get("tls", "starttls")
        keys["port"] = _PORT.get(tls, 587) if isinstance(tls, str) else 587
    return keys


def _with_kind(given: Any, preset: Any) -> Any:
    """A webhook is of the preset's provider, unless it names its own."""
    provider = provider_of(preset) if isinstance(preset, str) else None
    if not isinstance(given, dict) or given.get("kind") is not None or provider is None or provider.webhook is None:
        return given
    return {**given, "kind": provider.name}


@cache
def machine_name() -> str:
    """This machine's name for EHLO, looked up once in the process's life.

    A host name with a dot is used as it is. Else DNS is asked, for two seconds at most; without an answer it is the
    plain host name.
    """
    name = socket.gethostname()
    if "." in name and is_host(name):
        return name
    answer: list[str] = []
    thread = threading.Thread(target=lambda: answer.append(socket.getfqdn(name)), name="getfqdn", daemon=True)
    thread.start()
    thread.join(_LOOKUP_S)
    found = answer[0] if answer else ""
    if "." in found and is_host(found) and not found.startswith("localhost"):
        return found
    return name if is_host(name) else "localhost"
