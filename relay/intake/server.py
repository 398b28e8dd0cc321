"""The SMTP service: its listeners, its sessions, and what they share."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from relay.config.model import Limits, Listener
from relay.config.network import AnyAddress
from relay.intake import replies
from relay.intake.logins import Logins
from relay.intake.pace import Pace
from relay.intake.policy import Peer, Policy, connections_allowed, kept_for_local, may_connect
from relay.intake.session import Session
from relay.intake.sockets import bind, cannot_listen, release, shown
from relay.intake.spool import Budget
from relay.intake.turns import Turns
from relay.intake.types import Accept, Admit, CannotListen, Observer, Reason, Silent, always
from relay.mail.reply import Reply
from relay.observe.pressure import Brake, IntakeLoad

_BACKLOG = 1024

# aiosmtpd logs addresses, bodies and PROXY headers. This service has its own words for what happens.
for _name in ("mail.log", "mail.debug"):
    logging.getLogger(_name).disabled = True


@dataclass(slots=True)
class _Door:
    """A listener in service. `policy` is replaced at a reload; sessions keep the one they began with."""

    policy: Policy
    sockets: list[socket.socket]
    servers: list[asyncio.Server] = field(default_factory=list)


class IntakeServer:
    """Takes mail on the running loop. `limits` and `hostname` may be replaced at any time."""

    def __init__(
        self, accept: Accept, limits: Limits, hostname: str, *, admit: Admit = always, observer: Observer | None = None
    ) -> None:
        self.accept = accept
        self.budget = Budget()
        """of contents in memory; they come in by files beyond it"""
        self.limits = limits
        self.hostname = hostname
        self.observer: Observer = observer or Silent()
        self.draining = False
        self.loop = asyncio.get_running_loop()
        self.turns = Turns()
        self.pace = Pace()
        self.logins = Logins()
        self.storing = 0
        """messages between their final dot and their reply"""
        self.spool: Path | None = None
        """where large contents go while they come in; None: they stay in memory"""
        self.sealed = False
        """what goes there is encrypted"""
        self._admit = admit
        self._doors: dict[tuple[AnyAddress, int], _Door] = {}
        """by address, and by number where several take any free port"""
        self._passed: Mapping[str, list[socket.socket]] = {}
        self._sessions: dict[Session, str | None] = {}
        """with the client that each counts for, once that is known"""
        self._of_client: Counter[str] = Counter()
        self._local = 0
        """sessions of clients on this machine"""
        self._empty = asyncio.Event()
        self._empty.set()

    # For the app.

    @property
    def limits(self) -> Limits:
        return self._limits

    @limits.setter
    def limits(self, limits: Limits) -> None:
        self._limits = limits
        self.budget.limit_bytes = limits.memory_bytes

    async def start(
        self, listeners: Sequence[Listener], passed: Mapping[str, list[socket.socket]] | None = None
    ) -> None:
        """Listen on all of them, or on none. `passed`: systemd's sockets. Raises CannotListen."""
        self._passed = passed or {}
        await self.reload(listeners)

    async def reload(self, listeners: Sequence[Listener]) -> None:
        """Put these in the place of the listeners there are, certificates and users read anew; all or nothing.

        An address that stays keeps its socket, and every session goes on. Raises CannotListen.
        """
        policies: dict[tuple[AnyAddress, int], Policy] = {}
        for number, listener in enumerate(listeners):
            nth = sum(address == listener.address for address, _ in policies)
            with _of_listener(number):
                policies[listener.address, nth] = await asyncio.to_thread(Policy.load, listener)
        opened: dict[tuple[AnyAddress, int], _Door] = {}
        try:
            for number, (key, policy) in enumerate(policies.items()):
                if key not in self._doors:
                    with _of_listener(number):
                        opened[key] = door = _Door(policy, bind(policy.listener.address, self._passed))
                        await self._serve(door)
        except BaseException:
            for door in opened.values():
                self._close(door)
            raise
        before = self._doors
        self._doors = {key: before.pop(key) if key in before else opened[key] for key in policies}
        for key, door in self._doors.items():
            door.policy = policies[key]
        for gone in before.values():
            self._close(gone)

    @property
    def addresses(self) -> tuple[str, ...]:
        """What is listened on, as bound: `127.0.0.1:2525`, `unix:/path`."""
        return tuple(shown(each) for door in self._doors.values() for each in door.sockets)

    @property
    def sessions(self) -> int:
        return len(self._sessions)

    def load(self) -> IntakeLoad:
        held_back_s: dict[Brake, float] = {"turn": self.turns.held_back_s, "pace": self.pace.held_back_s}
        return IntakeLoad(len(self._sessions), self.storing, self.turns.waiting, self.pace.behind_s, held_back_s)

    async def stop_accepting(self) -> None:
        """No new connections, no new messages; what is under way goes on, idle sessions hear 421."""
        self.draining = True
        for door in self._doors.values():
            self._close(door)
        self._doors = {}
        for session in list(self._sessions):
            session.wind_up()

    async def drain(self, timeout_s: float) -> int:
        """Wait for the sessions to end, then cut off what is left, and return how many those were.

        A message that is being stored by then goes on being stored; its client hears nothing and sends it again.
        """
        await self.stop_accepting()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._empty.wait(), timeout_s)
        left = list(self._sessions)
        for session in left:
            session.abort()
        return len(left)

    # For the sessions.

    def connected(self, session: Session) -> None:
        """A connection was made; one `left` follows."""
        self._sessions[session] = None
        self._empty.clear()
        self.observer.connected()

    def entered(self, session: Session, listener: Listener) -> tuple[Reply, Reason] | None:
        """Whether a client may begin; None: yes."""
        peer = session.peer
        self._of_client[peer.name] += 1
        self._sessions[session] = peer.name
        self._local += peer.local
        if self.draining:
            return replies.SHUTTING_DOWN, "busy"
        if not may_connect(peer, listener):
            return replies.NOT_ALLOWED, "allow"
        if self._crowded(peer):
            return replies.CONNECTIONS, "connections"
        return None

    def _crowded(self, peer: Peer) -> bool:
        """There are more connections now than this one's client may add to."""
        most, kept, all_of_them = self._limits.connections, kept_for_local(self._limits), len(self._sessions)
        allowed = connections_allowed(peer, self._limits)
        if allowed is not None and self._of_client[peer.name] > allowed:
            return True
        if peer.local:
            return all_of_them > most and self._local > kept
        return all_of_them > most or all_of_them - self._local > max(1, most - kept)

    def left(self, session: Session) -> None:
        """A session ended."""
        client = self._sessions.pop(session)
        if client is not None:
            self._local -= session.peer.local
            self._of_client[client] -= 1
            if not self._of_client[client]:
                del self._of_client[client]
        if not self._sessions:
            self._empty.set()
        self.observer.disconnected()

    def admission(self) -> Reply | None:
        """Whether a message may begin now; None: yes."""
        return replies.SHUTTING_DOWN if self.draining else self._admit()

    # Inside.

    async def _serve(self, door: _Door) -> None:
        for each in door.sockets:
            is_unix = each.family == socket.AF_UNIX
            create = self.loop.create_unix_server if is_unix else self.loop.create_server
            try:
                server = await create(lambda: Session(self, door.policy), sock=each, backlog=_BACKLOG)
            except OSError as error:  # another listens there that was bound at the same moment
                raise cannot_listen(door.policy.listener.address, error) from None
            door.servers.append(server)

    def _close(self, door: _Door) -> None:
        for server in door.servers:
            server.close()
        release(door.sockets, door.policy.listener.address)


@contextmanager
def _of_listener(number: int) -> Iterator[None]:
    """What can't be done in here is this listener's."""
    try:
        yield
    except CannotListen as error:
        error.listener = number
        raise
