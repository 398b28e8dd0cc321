"""The words of the configuration that aren't plain YAML: durations, sizes, rates, addresses, networks.

Each is an annotated type for pydantic: it takes what YAML gives and yields the typed value, or raises ValueError
with what was expected (the loader adds file, line and key).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any, TypeVar

from pydantic import BeforeValidator, Field

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB|KiB|MiB|GiB)")
_SIZE_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_RATE = re.compile(r"(\d+(?:\.\d+)?)/(ms|s|m|h|d)")
_LIMIT = re.compile(r"(\d+)/(\d+(?:\.\d+)?(?:ms|s|m|h|d))")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class SystemdAddress:
    """A socket handed over by systemd (sd_listen_fds(3)), by its FileDescriptorName."""

    name: str

    def __str__(self) -> str:
        return f"systemd:{self.name}"


AnyAddress = TcpAddress | UnixAddress | SystemdAddress


@dataclass(frozen=True, slots=True)
class CountPer:
    """At most `count` in any `period_s` seconds."""

    count: int
    period_s: float


def parse_duration(value: Any) -> float:
    """`200ms`, `2s`, `10m`, `1h`, `2d` → seconds."""
    if isinstance(value, float):
        return value  # a default of ours, already in seconds: YAML never gets here with a number, see load
    found = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise ValueError(f"expected a duration such as 200ms, 2s, 10m, 1h or 2d, got {value!r}")
    return float(found[1]) * _DURATION_S[found[2]]
