"""The SMTP service: its listeners, and a session for each connection."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from relay.config.model import Limits, Listener
from relay.config.network import AnyAddress
from relay.intake import replies
from relay.intake.connection import Connection
from relay.intake.listener import LoadedListener
from relay.intake.registry import SessionRegistry
from relay.intake.session import Session, Shared, submit
from relay.intake.sockets import bind, cannot_listen, release, shown
from relay.intake.spool import Body, Budget
from relay.intake.turns import Priority
from relay.intake.types import Admit, CannotListen, Observer, Receipt, Settings, Submission, Submit
from relay.mail.reply import Reply
from relay.observe.pressure import Brake, IntakeLoad

_BACKLOG = 1024


@dataclass(slots=True)
class _BoundListener:
    """A listener in service. `loaded` is replaced at a reload; a session keeps the one that it began with."""

    loaded: LoadedListener
    sockets: list[socket.socket]
    servers: list[asyncio.Server] = field(default_factory=list)


class IntakeServer:
    """Accepts mail on the running event loop."""

    def __init__(self, submit: Submit, settings: Settings, observer: Observer, *, admit: Admit = lambda: None) -> None:
        self._registry = SessionRegistry(settings)
        budget = Budget(settings.limits.memory_bytes)
        self._admit = admit
        self._shared = Shared(settings, submit, self.may_begin, observer, self._registry, budget)
        self._loop = asyncio.get_running_loop()
        self._listeners: dict[tuple[AnyAddress, int], _BoundListener] = {}
        """by address, and by number where several listen on any free port"""
        self._passed: Mapping[str, list[socket.socket]] = {}

    def use_spool(self, folder: Path) -> None:
        """Let large contents come in by sealed files in `folder`; without it, in memory."""
        self._shared.spool = folder

    async def start(
        self, listeners: Sequence[Listener], passed: Mapping[str, list[socket.socket]] | None = None
    ) -> None:
        """Listen on all of them, or on none. `passed`: systemd's sockets. Raises CannotListen."""
        self._passed = passed or {}
        await self.reload(listeners)

    async def reload(self, listeners: Sequence[Listener]) -> None:
        """Replace the listeners, with certificates and users read anew: all of them, or none.

        An address that stays keeps its socket, and every session goes on. Raises CannotListen.
        """
        loaded: dict[tuple[AnyAddress, int], LoadedListener] = {}
        for number, listener in enumerate(listeners):
            nth = sum(address == listener.address for address, _ in loaded)
            with _errors_of(number):
                loaded[listener.address, nth] = await asyncio.to_thread(LoadedListener.load, listener)
        opened: dict[tuple[AnyAddress, int], _BoundListener] = {}
        try:
            for number, (key, one) in enumerate(loaded.items()):
                if key not in self._listeners:
                    with _errors_of(number):
                        opened[key] = bound = _BoundListener(one, bind(one.listener.address, self._passed))
                        await self._serve(bound)
        except BaseException:
            for bound in opened.values():
                _close(bound)
            raise
        before = self._listeners
        self._listeners = {key: before.pop(key) if key in before else opened[key] for key in loaded}
        for key, bound in self._listeners.items():
            bound.loaded = loaded[key]
        for gone in before.values():
            _close(gone)

    def configure(self, limits: Limits, hostname: str) -> None:
        """Replace the settings, for open sessions too."""
        settings = self._shared.settings
        settings.limits, settings.hostname = limits, hostname
        self._shared.budget.limit_bytes = limits.memory_bytes

    @property
    def addresses(self) -> tuple[str, ...]:
        """The addresses as bound: `127.0.0.1:2525`, `unix:/path`."""
        return tuple(shown(each) for bound in self._listeners.values() for each in bound.sockets)

    def load(self) -> IntakeLoad:
        turns, pace = self._shared.turns, self._shared.pace
        held_back_s: dict[Brake, float] = {"turn": turns.held_back_s, "pace": pace.held_back_s}
        return IntakeLoad(len(self._registry), self._shared.storing, turns.waiting, pace.behind_s, held_back_s)

    async def stop_accepting(self) -> None:
        """Accept no new connections or messages. Messages under way go on; idle sessions get 421."""
        for bound in self._listeners.values():
            _close(bound)
        self._listeners = {}
        self._registry.begin_shutdown()

    async def drain(self, timeout_s: float) -> int:
        """Stop accepting, wait for the sessions to end, cut off the rest, and return how many those were.

        A message that is being stored by then is stored. Its client gets no reply, and sends it again.
        """
        await self.stop_accepting()
        return await self._registry.drain(timeout_s)

    def connection(self, listener: Callable[[], LoadedListener]) -> Connection:
        """The protocol of a new connection; `listener` is asked once the client has connected."""

        def serve(connection: Connection) -> Coroutine[Any, Any, None]:
            self._registry.connected(connection)
            return Session(connection, listener(), self._shared).run()

        return Connection(serve, self._shared.pace)

    # for messages that come in another way than by SMTP

    @property
    def limits(self) -> Limits:
        """Those in force."""
        return self._shared.settings.limits

    def may_begin(self) -> Reply | None:
        """Why no message may begin now; None: it may."""
        return self.shutting_down() or self._admit()

    def shutting_down(self) -> Reply | None:
        """The reply while the server stops; None: it doesn't."""
        return replies.SHUTTING_DOWN if self._registry.draining else None

    def new_body(self) -> Body:
        """For a content that comes in. It shares the memory and the spool of the sessions'."""
        return Body(self._shared.spool, budget=self._shared.budget)

    async def submit(self, submission: Submission, priority: Priority) -> Receipt:
        """Store a message, in turn with the sessions'. Raises Refused."""
        return await submit(self._shared, submission, priority)

    async def _serve(self, bound: _BoundListener) -> None:
        for each in bound.sockets:
            is_unix = each.family == socket.AF_UNIX
            create = self._loop.create_unix_server if is_unix else self._loop.create_server
            try:
                server = await create(lambda: self.connection(lambda: bound.loaded), sock=each, backlog=_BACKLOG)
            except OSError as error:  # another process listens there that bound it at the same moment
                raise cannot_listen(bound.loaded.listener.address, error) from None
            bound.servers.append(server)


def _close(bound: _BoundListener) -> None:
    for server in bound.servers:
        server.close()
    release(bound.sockets, bound.loaded.listener.address)


@contextmanager
def _errors_of(number: int) -> Iterator[None]:
    """A CannotListen raised in here is about the listener at this position."""
    try:
        yield
    except CannotListen as error:
        error.listener = number
        raise
