"""Defaults that depend on other keys: a lane's on being express, a port on the kind of TLS, the default lane on
the lanes there are. In the words of the configuration file; all other defaults stand in `model`."""

from __future__ import annotations

import socket
import threading
from collections.abc import Mapping
from functools import cache
from typing import Any

from relay.config.model import EXPRESS_WITHIN_S
from relay.config.network import is_host
from relay.config.parse import parse_duration

_EXPRESS: Mapping[str, Any] = {
    "retry": ("200ms", "1s", "3s", "8s", "20s", "30s"),
    "attempt": "10s",
    "final": "60s",
}
_BULK: Mapping[str, Any] = {
    "retry": ("1m", "5m", "15m", "1h", "4h"),
    "attempt": "60s",
    "final": "5m",
}
_PORT = {"implicit": 465, "starttls": 587, "none": 25}
_LOOKUP_S = 2.0


def lane(name: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a lane with what it leaves out: codes live for ten minutes, other mail for two days, and a lane
    whose mail expires within the hour is express unless it says otherwise."""
    expires = given.get("expires", "10m" if name == "otp" else "2d")
    express = given.get("express", _within_the_hour(expires))
    return {**(_EXPRESS if express is True else _BULK), "expires": expires, "express": express, **given}


def _within_the_hour(expires: Any) -> bool:
    try:
        return parse_duration(expires, None) <= EXPRESS_WITHIN_S
    except ValueError:
        return False  # refused later, with its place


def port(tls: Any) -> int:
    """Of an upstream that names none (RFC 6409 3.1, RFC 8314 7.3)."""
    return _PORT.get(tls, 587) if isinstance(tls, str) else 587


def default_lane(lanes: Mapping[str, Any]) -> str | None:
    """The lane of mail that no rule claims, where the file names none: `bulk`, or the only one there is."""
    if "bulk" in lanes:
        return "bulk"
    return next(iter(lanes)) if len(lanes) == 1 else None


@cache
def machine_name() -> str:
    """The name this machine goes by in EHLO, looked up once in its life.

    A host name with a dot is taken as it is; else DNS is asked, for two seconds at most, and what it doesn't know
    stays the plain name.
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
