"""What delivery knows of an upstream, whatever protocol it speaks: a load goes in, a report comes out."""

from __future__ import annotations

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, Protocol

from relay.config import model
from relay.mail.envelope import Envelope, Recipient
from relay.mail.recode import Form
from relay.mail.reply import Reply
from relay.mail.setting import Setting
from relay.upstream.circuit import Circuit
from relay.upstream.gate import Gate
from relay.upstream.limits import UpstreamLimits
from relay.upstream.redaction import reply_for_operators
from relay.upstream.results import LOST, TIMED_OUT, OpenFailed, Result
from relay.upstream.target import Target
from relay.upstream.warm import Warm
from relay.upstream.window import Window

Parts = Callable[[], Sequence[bytes]]
"""The signed content in parts. Called once, after the gate let the message through."""


class Finish(NamedTuple):
    """How a content is finished for an upstream, before it is signed."""

    unsigned: frozenset[str] = frozenset()
    """header fields (lower case) that no signature covers, because the upstream rewrites them"""
    provider: str | None = None
    """the relay's id is put into this provider's header field, for its delivery events; None: the content stays"""
    settings: tuple[Setting, ...] = ()
    """header fields that are set or removed"""
    taken_out: frozenset[str] = frozenset()
    """header fields (lower case) that an API has parameters for"""
    is_signed: bool = True
    """False: the upstream builds another message, or breaks signatures"""

    @classmethod
    def of(cls, config: model.Upstream) -> Finish:
        """As an upstream's configuration has it. The id is of use where the upstream has a webhook."""
        provider = config.webhook.kind if config.webhook is not None else None
        return cls(frozenset(config.unsigned_headers), provider, tuple(config.headers.items()))


class Load(Protocol):
    """What one attempt carries: a message, and those of its recipients that the attempt is for."""

    message_id: str
    """the relay's id of the message"""
    envelope: Envelope
    recipients: Sequence[tuple[int, Recipient]]
    """(position in the envelope, recipient) pairs"""
    original: bytes
    """the content as it was accepted, unsigned"""
    accepted_at: float
    """when the app sent its final dot (time.monotonic)"""
    redirected_to: str | None
    """the address that it goes to instead of its recipients"""
    memo: dict[object, object]
    """what upstreams found out about the content, by keys of their own"""

    async def content(self, form: Form) -> bytes:
        """The unsigned content in that form. Raises Unencodable."""

    async def signed(self, form: Form, finish: Finish) -> Parts:
        """The content in that form, finished and signed."""

    async def finished(self, finish: Finish) -> bytes:
        """The content as it was accepted, finished, with nothing taken out and not signed."""

    def finished_now(self, finish: Finish) -> bytes | None:
        """The same. None: to make it would hold up the event loop."""


class Progress:
    """How far an attempt has come, for hedging."""

    __slots__ = ("answered", "asked", "behind", "content_sent", "rival")

    def __init__(self) -> None:
        self.asked = False
        """the upstream was asked to take the message"""
        self.behind = False
        """it has another message to answer first, so its silence says nothing of this one"""
        self.answered = False
        """it answered (SMTP: the whole envelope)"""
        self.content_sent = False
        """the attempt passed the gate: from now on the upstream may have the message"""
        self.rival: Progress | None = None
        """of another attempt with the same message at the same upstream, over a session of its own"""

    def again(self) -> None:
        """Another connection to the same upstream is asked, since none of the message was accepted."""
        self.asked = self.behind = self.answered = self.content_sent = False


class Terms(NamedTuple):
    """How long an attempt may take."""

    attempt_s: float
    """seconds for all that comes before the end of the content"""
    final_s: float
    """seconds for the answer to the content"""
    progress: Progress
    own_session: bool = False
    """not behind another message: on a session that carries nothing else"""


class Report(NamedTuple):
    """How an attempt at one upstream went, for each recipient that it was for."""

    upstream: str
    started_at: float
    """time.monotonic"""
    session: Literal["warm", "new", "none"]
    """the connection was open before, was opened for this attempt, or could not be had"""
    results: tuple[Result, ...]
    timings_ms: dict[str, float]
    """milliseconds of each phase; together they are the attempt's duration"""
    codes: tuple[int, ...] = ()
    """reply codes of the upstream, in order"""
    dsn: bool = False
    """the upstream took over the duty to report success (RFC 3461)"""
    error: Exception | None = None
    """a fault of the relay's own that ended the attempt"""
    via: Literal["smtp", "api"] = "smtp"
    knows_for_s: float = 0.0
    """how long the upstream knows the request, if it comes again: by its idempotency key; 0: it doesn't"""
    redirected: bool = False
    """it went to another address than the recipients', so replies say nothing of theirs"""

    @property
    def may_be_repeated(self) -> bool:
        """The same request may go again, where its outcome is unknown."""
        return self.knows_for_s > 0

    @property
    def ended_at(self) -> float:
        """time.monotonic: when the upstream answered, or the attempt was given up."""
        return self.started_at + sum(self.timings_ms.values()) / 1000.0


class Watcher(Protocol):
    """Gets a call when a lane's upstream goes down, when it comes back, and when it needs another treatment."""

    def down(self, lane: str, upstream: str, reason: str) -> None: ...

    def up(self, lane: str, upstream: str) -> None: ...

    def on_demand(self, lane: str, upstream: str, after_s: float) -> None:
        """It closes sessions that are idle for `after_s` seconds: they are opened when there is mail."""

    def one_at_a_time(self, lane: str, upstream: str, reason: str) -> None:
        """It can't take several messages on a session: they go one after the other for a time."""

    def way_down(self, lane: str, upstream: str, way: str, reason: str) -> None:
        """With `via: auto`: its API or its SMTP server is down; mail goes by the other."""

    def way_up(self, lane: str, upstream: str, way: str) -> None:
        """That one is back."""


class Users:
    """The lanes that send by an upstream, of this configuration and of earlier ones: the first starts it, the last
    closes it."""

    def __init__(self, upstream: Upstream) -> None:
        self._upstream = upstream
        self._number = 0

    def join(self) -> None:
        """One more lane sends by it."""
        self._number += 1
        if self._number == 1:
            self._upstream.start()

    async def leave(self) -> None:
        """A lane that joined doesn't send by it any more."""
        self._number -= 1
        if self._number == 0:
            await self._upstream.close()


class Upstream(ABC):
    """One upstream as one lane uses it: what lanes ask of it, and what its sessions teach, whatever its protocol.

    Times are time.monotonic.
    """

    via: Literal["smtp", "api"] = "smtp"
    repeats_for_s = 0.0
    """how long the upstream knows a request that it was sent before; 0: it knows none"""

    def __init__(self, lane: str, name: str, config: model.Upstream, *, express: bool, watcher: Watcher) -> None:
        self.lane = lane
        self.name = name
        self.config = config
        self.express = express
        self._circuit = Circuit()
        most = config.sessions.max
        self.window = Window(most, most) if express else Window(most)
        self.under_way = 0
        self.urged = False
        self.settled = asyncio.Event()
        """set once a connection was opened, or couldn't be, or none is to stand ready"""
        self._watcher = watcher
        self.users = Users(self)
        self.finish = Finish.of(config)
        """how contents are finished for it"""
        self._is_on_demand = False
        """that was said"""

    @property
    def circuit(self) -> Circuit:
        """Whether mail may go there."""
        return self._circuit

    under_way: int
    """messages begun, or about to be, and not over"""
    urged: bool
    """an operator asked for an attempt now, and its probe is under way"""

    @abstractmethod
    def start(self) -> None:
        """Open what is to stand ready, in the background."""

    @abstractmethod
    async def close(self) -> None:
        """Close all connections. Attempts under way are cut off: drain the lane first."""

    @abstractmethod
    async def send(self, load: Load, gate: Gate, terms: Terms) -> Report:
        """Hand the load over. Never raises, for what the upstream does or for a fault of ours: the report has it."""

    @abstractmethod
    def counts(self) -> dict[str, int]:
        """Connections by state: idle, busy, opening."""

    @property
    @abstractmethod
    def is_connected(self) -> bool:
        """At least one connection is open."""

    @abstractmethod
    def probe(self, now: float) -> None:
        """Begin a probe, where one is due."""

    @abstractmethod
    def warm(self) -> Warm:
        """How many connections are kept open, and why."""

    @abstractmethod
    def serves(self, target: Target, limits: UpstreamLimits, *, express: bool) -> bool:
        """Whether a lane of a newer configuration may go on with this upstream, its connections and what was learnt of
        it."""

    @abstractmethod
    def take_over(self, target: Target, *, open_within_s: float, watcher: Watcher) -> None:
        """A lane of a newer configuration goes on with it (`serves`). An open circuit is probed at once: the reload may
        be meant for it."""

    @abstractmethod
    async def opened(self, within_s: float) -> None:
        """Return when there is an open connection, or when none can be opened; at the latest after `within_s` seconds.
        It gets a place before all that is opened ahead of need."""

    @abstractmethod
    def close_idle(self) -> None:
        """Close the connection that was idle longest, if there is one."""

    async def ways(self, load: Load) -> Sequence[Upstream]:  # noqa: ARG002 - for those that have several
        """How this message may go there, in order of preference. Each way has the upstream's name."""
        return (self,)

    def way_now(self, load: Load) -> Upstream | None:  # noqa: ARG002
        """The first of the `ways`. None: to find out would hold up the event loop."""
        return self

    def most_recipients(self, load: Load) -> int:  # noqa: ARG002 - for those where it depends on the message
        """Recipients that one attempt with this message may have."""
        return self.config.recipients

    @abstractmethod
    def fail_waiting(self, failure: OpenFailed) -> None:
        """Let each attempt that waits for a connection fail."""

    def has_place(self, now: float) -> bool:
        """Whether one more bulk message may begin."""
        return self.under_way < self.window.room(now)

    def window_now(self) -> int | None:
        """How many messages the upstream may get at once, 0 while it asked for a pause; None: a lane of codes has no
        window."""
        return None if self.express else self.window.room(time.monotonic())

    def urge(self) -> None:
        """Probe an open circuit now, whenever its probe is due."""
        now = time.monotonic()
        if self.circuit.state == "open":
            self.circuit.probe_at = min(self.circuit.probe_at, now)
            self.probe(now)
        self.urged = self.circuit.state == "half-open"

    def timed_out(self, progress: Progress) -> None:
        """The upstream left the message unanswered, on a session that worked: its circuit opens, unless it answers the
        same message on another session."""
        if progress.rival is None or not progress.rival.answered:
            self.condemn(OpenFailed("session", TIMED_OUT))

    def condemn(self, reason: OpenFailed) -> None:
        """Open the circuit: the upstream is unreachable, unsafe, doesn't respond, or refuses the account."""
        refused = reason.reply.permanent and reason.phase != "connect"
        reply_text = reply_for_operators(reason.reply) if reason.from_upstream else ""
        if self.circuit.failed(time.monotonic(), reason.reason, reply_text=reply_text, refused=refused):
            self._watcher.down(self.lane, self.name, reason.reason)
        self.settled.set()
        self.fail_waiting(reason)

    def account_refused(self, reason: OpenFailed, message_id: str) -> None:
        """The account was refused behind MAIL, which may be meant for this message alone: the second message in a row
        opens the circuit."""
        if self.circuit.account_refused(message_id):
            self.condemn(reason)

    def connection_lost(self) -> None:
        """A connection broke off that should not have. Two in a row open the circuit."""
        self.failed_once(OpenFailed("session", LOST))

    def failed_once(self, failure: OpenFailed) -> None:
        """It failed for no reason of the message's. Two in a row open the circuit."""
        if self.circuit.lost(time.monotonic(), failure.reason):
            self._watcher.down(self.lane, self.name, failure.reason)
            self.fail_waiting(failure)

    def throttled(self, for_s: float) -> None:
        """It asked for a pause: no message goes there before its end, and no probe."""
        now = time.monotonic()
        failure = OpenFailed("session", Reply.own(450, "4.7.1", f"too many requests: asked to wait {for_s:g} s"))
        if not self.express:
            self.window.throttled(now)
        if self.circuit.pause(now, failure.reason, for_s):
            self._watcher.down(self.lane, self.name, failure.reason)
        self.settled.set()
        self.fail_waiting(failure)

    def opens_on_demand(self, after_s: float) -> None:
        """The upstream closes connections that were idle for `after_s` seconds, so none is kept. Said once."""
        if not self._is_on_demand:
            self._is_on_demand = True
            self._watcher.on_demand(self.lane, self.name, after_s)

    def goes_one_at_a_time(self, reason: str) -> None:
        """Messages go to the upstream one after the other on each connection, for a time."""
        self._watcher.one_at_a_time(self.lane, self.name, reason)

    def connected(self) -> None:
        """A connection was opened."""
        self.settled.set()
        if self.circuit.connected():
            self._watcher.up(self.lane, self.name)

    def answered(self) -> None:
        """A message was answered as it should be."""
        if self.circuit.succeeded():
            self._watcher.up(self.lane, self.name)
