"""What a pool keeps: one open, authenticated connection to an upstream, whatever its protocol."""

from __future__ import annotations

import asyncio
import math
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

State = Literal["idle", "busy", "resetting", "quitting", "closed"]


@dataclass(frozen=True, slots=True)
class Opening:
    """What opening the session took, in milliseconds, one phase behind the other from `began_at` (time.monotonic)."""

    connect: float = 0.0
    tls: float = 0.0
    auth: float = 0.0
    began_at: float = 0.0

    def ends(self) -> Iterator[tuple[Literal["connect", "tls", "auth"], float]]:
        """Each phase with its end (time.monotonic)."""
        connected = self.began_at + self.connect / 1000.0
        secured = connected + self.tls / 1000.0
        yield "connect", connected
        yield "tls", secured
        yield "auth", secured + self.auth / 1000.0


class KeptSession(asyncio.Protocol):
    """`on_free` is called when it is idle again after a `reset`, `on_room` when another message may begin behind one
    under way, `on_closed` once when it is gone; the first and the last from the event loop."""

    def __init__(self, opening: Opening) -> None:
        self.opening = opening
        self.idle_since = time.monotonic()
        self.transactions = 0
        """messages begun so far"""
        self.state: State = "idle"
        self.replace_at = math.inf
        """time.monotonic: from then on it needs a successor"""
        self.lives_s = math.inf
        """how old it may become"""
        self.is_out_of_step = False
        """something came that nothing asked for"""
        self.closed_idle_after_s: float | None = None
        """when the upstream closed the session while it was idle: after how long"""
        self.on_free: Callable[[Any], None] | None = None
        self.on_closed: Callable[[Any], None] | None = None
        self.on_room: Callable[[Any], None] | None = None
        self.reads_ahead: Callable[[], bool] = lambda: True
        """whether the upstream has shown that it reads ahead"""

    @property
    @abstractmethod
    def usable(self) -> bool:
        """Idle, open, and nothing unread is buffered."""

    @property
    @abstractmethod
    def is_open(self) -> bool:
        """It carries mail, or can."""

    @property
    @abstractmethod
    def has_room(self) -> bool:
        """Another message may begin behind those under way."""

    @property
    @abstractmethod
    def depth(self) -> int:
        """Messages under way."""

    @abstractmethod
    def transport_info(self, name: str) -> Any:
        """What the transport knows of the connection, as `ssl_object` (asyncio.BaseTransport.get_extra_info)."""

    @abstractmethod
    def reset(self) -> None:
        """Show the upstream that the idle session lives; `on_free` when it did. One that can't do so closes."""

    @abstractmethod
    def quit(self) -> None:
        """Close as the protocol asks for it; never waits."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once, whatever is under way."""

    def note_idle_end(self) -> None:
        """The connection ends. If it is idle, that tells how long the upstream keeps idle ones."""
        if self.state == "idle":
            self.closed_idle_after_s = time.monotonic() - self.idle_since


S = TypeVar("S", bound=KeptSession)
