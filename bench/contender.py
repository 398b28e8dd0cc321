"""What is measured: something that takes mail at a port and hands it to the upstreams of a site."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, Self

from bench.message import DOMAIN

SELECTOR = "bench"
WEBHOOK_SECRET = "bench:s3cret"


@dataclass(frozen=True, slots=True)
class Upstream:
    """On 127.0.0.1, known to certificates as localhost too."""

    port: int
    ca_file: Path | None = None
    """STARTTLS, verified by this"""
    auth: bool = False
    """with sink.USERNAME and sink.PASSWORD"""
    api: str | None = None
    """the HTTP API that it is, over TLS; None: it speaks SMTP"""


@dataclass(frozen=True, slots=True)
class Site:
    """Everything a contender has to know."""

    directory: Path
    """its own, empty"""
    otp: tuple[Upstream, ...]
    """for mail with `X-Relay-Lane: otp`, in order of preference"""
    bulk: Upstream
    """for the rest"""
    key_file: Path
    """RSA-2048; signs for DOMAIN with SELECTOR"""
    domain: str = DOMAIN
    hedge: str | None = None
    parked: Upstream | None = None
    """for mail with `X-Relay-Lane: parked`"""
    sessions: Mapping[str, int] = field(default_factory=lambda: {"warm": 4, "max": 20})
    """`sessions` of the relay's upstreams for codes"""
    webhooks_port: int | None = None
    """where the relay takes webhooks (WEBHOOK_SECRET proves them) of an upstream named `bulk`; None: it takes none"""
    is_limited: bool = False
    """the relay's lanes have every kind of limit, none of them reached"""
    by_content: bool = False
    """the relay knows codes by what they say, not by `X-Relay-Lane: otp`"""
    floor_sessions: int = 6
    """which the floor keeps open"""


class Contender(AbstractContextManager["Contender"], Protocol):
    """Runs inside its `with` block: takes mail when that is entered, and is gone, children and all, when it ends."""

    name: str
    port: int
    """of its SMTP service, on 127.0.0.1"""

    def __enter__(self) -> Self: ...

    @property
    def roots(self) -> Sequence[int]:
        """The processes it consists of, with all that descend from them."""
