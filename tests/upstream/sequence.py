"""Messages on one session, behind each other, to a `Receiver`: `play` them to their end, then `account` for each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, Literal, TypeVar

from relay.clock import steady
from relay.mail.envelope import Envelope, Recipient
from relay.upstream.attempt import Progress, Terms
from relay.upstream.gate import SUPERSEDED, Gate
from relay.upstream.results import Result
from relay.upstream.sessions.kept import Opening
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.commands import Mail
from relay.upstream.smtp.report import TransactionReport
from relay.upstream.smtp.session import Session
from tests.upstream.receiver import Receiver, content_of
from tests.upstream.test_faults import Line

DATA = ("PIPELINING",)
BDAT = ("PIPELINING", "CHUNKING")
T = TypeVar("T")
LONG_S = 5_000.0
NEVER = 10**9
Fate = Literal["open", "late", "shut", "cancelled"]
"""of the gate: open from the start, opened later, shut later; or the attempt is cancelled later"""


class Loop(asyncio.SelectorEventLoop):
    """Its timers come early by `skipped_s`."""

    skipped_s = 0.0

    def time(self) -> float:
        return super().time() + self.skipped_s


def run(what: Coroutine[Any, Any, T]) -> T:
    """In a loop of its own, whose time `play` can skip."""
    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(what)


class Wire(Line):
    """Notes what is written behind the end."""

    def __init__(self) -> None:
        super().__init__()
        self.late = bytearray()

    def write(self, data: Any) -> None:
        if self.ended:
            self.late += data
        super().write(data)


@dataclass
class Message:
    """One of those that are sent."""

    number: int
    recipients: int = 2
    fate: Fate = "open"
    later: int = 3
    """rounds until its fate; below 0: it never comes"""
    in_one_write: bool = False
    """with CHUNKING: nothing of it is written before its gate is open"""
    gate: Gate = field(default_factory=lambda: Gate(steady() + LONG_S))
    task: asyncio.Task[TransactionReport] | None = None
    has_opened: bool = False

    @property
    def content(self) -> bytes:
        return content_of(self.number)

    @property
    def addresses(self) -> list[str]:
        return [f"{self.number}{chr(97 + at)}@r" for at in range(self.recipients)]

    @property
    def is_over(self) -> bool:
        return self.task is not None and self.task.done()

    def open(self) -> None:
        self.has_opened = True
        self.gate.open()

    def begin(self, session: Session) -> None:
        if self.fate == "open":
            self.open()
        to = [(at, Recipient(address)) for at, address in enumerate(self.addresses)]
        mail = Mail(Envelope(f"{self.number}@s", tuple(one for _, one in to)), to, len(self.content))
        deadline, terms = time.monotonic() + LONG_S, Terms(LONG_S, LONG_S, Progress())
        self.task = asyncio.create_task(
            session.transact(
                mail,
                lambda: [self.content],
                self.gate,
                deadline=deadline,
                terms=terms,
                in_one_write=self.in_one_write,
            )
        )

    def meet_fate(self) -> None:
        match self.fate:
            case "late":
                self.open()
            case "shut":
                self.gate.shut(SUPERSEDED)
            case "cancelled":
                assert self.task is not None
                self.task.cancel()
            case "open":
                pass


def messages(number: int, **changes: Any) -> list[Message]:
    return [Message(at, **changes) for at in range(number)]


@dataclass
class Network:
    """What lies between: it cuts, joins and breaks off."""

    reads: Iterator[int] = field(default_factory=lambda: repeat(NEVER))
    """bytes that the server reads in each round"""
    delivers: Iterator[int] = field(default_factory=lambda: repeat(NEVER))
    """bytes of replies that arrive in each round"""
    read_limit: int = NEVER
    """the connection is lost once the server has read so many bytes; what it answered still arrives"""
    reply_limit: int = NEVER
    """the connection is lost once so many bytes of replies have arrived; the server reads on until then"""
    holds_replies: bool = False
    """replies arrive only when nothing else can happen"""
    was_read: int = 0
    arrived: int = 0


@dataclass
class Played:
    """What was left at the end."""

    messages: Sequence[Message]
    receiver: Receiver
    network: Network
    wire: Wire
    session: Session
    deepest: int = 0
    """most messages under way at once"""


async def play(
    extensions: Sequence[str],
    sent: Sequence[Message],
    receiver: Receiver | None = None,
    network: Network | None = None,
    *,
    depth: int = 4,
    skips: bool = True,
    look: Callable[[Played], None] = lambda _: None,
) -> Played:
    """Each message begins as soon as the session has room for it, at most `depth` at once. `skips`: when nothing
    happens any more, time passes. In the end the connection is lost. `look` is called in each round."""
    receiver, network, wire = receiver or Receiver(), network or Network(), Wire()
    session = Session(wire, Capabilities.parse(extensions), Opening(), asyncio.get_running_loop())
    played = Played(sent, receiver, network, wire, session)
    quiet = 0
    while quiet < 4:
        moved = _begins(played, depth)
        for _ in range(3):
            await asyncio.sleep(0)
        moved |= _fates(played)
        moved |= _reads(played)
        moved |= _replies(played, held=network.holds_replies and quiet == 0)
        look(played)
        quiet = 0 if moved else quiet + 1
        if quiet == 2 and skips and all(each.later < 0 for each in sent if each.task):
            asyncio.get_running_loop().skipped_s += 3.0  # type: ignore[attr-defined]
    if skips:
        asyncio.get_running_loop().skipped_s += 3 * LONG_S  # type: ignore[attr-defined]
        for _ in range(4):
            await asyncio.sleep(0)
        assert all(each.is_over for each in sent if each.task), "an attempt hangs beyond its deadline"
        assert session.usable or session.state == "closed", "the session hangs"
    if not wire.ended:
        wire.close()
    for _ in range(4):
        await asyncio.sleep(0)
    assert all(each.is_over for each in sent if each.task), "an attempt hangs beyond its connection"
    assert session.state == "closed"
    assert not session.pipeline
    assert not wire.late, "written behind the end"
    return played


def _begins(played: Played, depth: int) -> bool:
    begun = [each for each in played.messages if each.task]
    under_way = sum(not each.is_over for each in begun)
    played.deepest = max(played.deepest, under_way)
    if len(begun) == len(played.messages) or under_way >= depth:
        return False
    if not (played.session.usable or played.session.has_room):
        return False
    played.messages[len(begun)].begin(played.session)
    return True


def _fates(played: Played) -> bool:
    """What is to happen to a message later, happens."""
    moved = False
    for each in played.messages:
        if each.task and each.later >= 0:
            each.later -= 1
            moved = True
            if each.later < 0 and not each.is_over:
                each.meet_fate()
    return moved


def _reads(played: Played) -> bool:
    """The server reads what was written."""
    network, wire = played.network, played.wire
    most = min(next(network.reads, NEVER), network.read_limit - network.was_read)
    data = bytes(wire.written[network.was_read : network.was_read + most])
    network.was_read += len(data)
    if data and not played.receiver.ended:
        played.receiver.read(data)
    return bool(data)


def _replies(played: Played, *, held: bool) -> bool:
    """Replies arrive, and then the connection's end, if it is lost."""
    network, wire, receiver = played.network, played.wire, played.receiver
    if wire.ended or held:
        return False
    most = min(next(network.delivers, NEVER), network.reply_limit - network.arrived)
    data = bytes(receiver.out[network.arrived : network.arrived + most])
    network.arrived += len(data)
    if data:
        played.session.data_received(data)
    all_arrived = network.arrived == len(receiver.out)
    lost = network.arrived >= network.reply_limit or (network.was_read >= network.read_limit and all_arrived)
    if (lost or (receiver.ended and all_arrived)) and not wire.ended:
        wire.close()
        return True
    return bool(data)


def results(message: Message) -> dict[str, Result]:
    """By recipient; none for an attempt that was cancelled."""
    assert message.task is not None
    if message.task.cancelled():
        return {}
    found = message.task.result().results
    assert sorted(each.position for each in found) == list(range(message.recipients)), "one result a recipient"
    return {message.addresses[each.position]: each for each in found}
