"""The store: what must survive. An interface, so that a second one (PostgreSQL) can stand beside SQLite's.

Every implementation passes the one contract test-suite in `tests/store/contract.py`.

Times are seconds since the epoch (`*_at`), from the relay's own steady clock; durations are milliseconds where they
are shown (`*_ms`). Content is the message's bytes with CRLF line ends, not dot-stuffed and not signed: a signature is
made anew for every stay in memory, so a key that was changed meanwhile is the one that signs.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol

from relay.mail.envelope import Envelope, Recipient

if TYPE_CHECKING:
    import asyncio

State = Literal[
    "queued", "sending", "sent", "deferred", "bounced", "expired", "superseded", "held", "suppressed", "ambiguous"
]
OPEN_STATES: frozenset[State] = frozenset({"queued", "sending", "deferred", "held", "ambiguous"})
"""Not finished: the body is kept. `ambiguous` is open only while its lane holds it for an operator."""

Outcome = Literal["sent", "deferred", "refused", "ambiguous", "abandoned"]
Action = Literal["retry", "hold", "release", "drop"]


class StoreError(Exception):
    """The store can't do it now: disk full, unwritable, locked, damaged. The text is one line for an operator."""


class StoreFull(StoreError):
    """No room: answer 452 and take mail again when there is."""


class StoreDamaged(StoreError):
    """Not a store of ours, or a broken one. It was left untouched."""


class StoreSealed(StoreError):
    """Mail waits in it that is encrypted with a key that isn't given."""


class Unreadable(StoreError):
    """A message that is not there, or not what was written, and won't be: its own trouble, not the store's. The text
    goes on from `held: `, and tells nothing of the mail."""


class Booking(NamedTuple):
    """What a claim writes down before anything is sent: which process has the message in hand, and when it is due
    again should that process die."""

    ladder_s: tuple[float, ...] = (1.0,)
    """the lane's: a recipient is due again at its next step; the last repeats"""
    holder: str = "local"
    lease_s: float = 600.0
    """how long the holder may have it in hand unless it says more; for stores that several relays share"""


BOOKED = Booking()
MOST_DEATHS = 5
"""A message whose holder died so often with it in hand is `held`: it may be what kills."""
SUSPECT_DEATHS = 2
"""From so many on it is claimed alone and behind all others."""


class NewMessage(NamedTuple):
    """One accepted submission, as it is first written."""

    id: str
    lane: str
    rule: str | None
    """None: the default lane, no rule matched"""
    envelope: Envelope
    content: bytes
    client: str
    """the peer's IP, or `unix`; `local` for mail of the relay's own (bounces)"""
    message_id: str
    subject: str
    """decoded, codes redacted, one line"""
    providers: tuple[str, ...]
    """one per recipient: the mailbox provider, at least the domain"""
    accepted_at: float
    expires_at: float
    signed: tuple[str, ...] = ()
    """selectors of the keys that sign"""
    upstreams: tuple[str, ...] = ()
    """a rule's narrowed or reordered upstreams; empty: the lane's"""
    supersede_key: str | None = None
    timings_ms: Mapping[str, float] = {}


class OpenRecipient(NamedTuple):
    """A recipient still to be sent to."""

    position: int
    """its place in the envelope, from 0: the key of a recipient within its message"""
    recipient: Recipient
    step: int = 0
    """rungs of the retry ladder already used"""
    attempts: int = 0
    """attempts made so far; the next is `attempts + 1`"""
    delay_notified: bool = False


class Queued(NamedTuple):
    """A message claimed for sending: only its recipients that are due, the rest stay in the store."""

    id: str
    lane: str
    rule: str | None
    envelope: Envelope
    """with all the recipients of the submission"""
    content: bytes
    accepted_at: float
    expires_at: float
    due: tuple[OpenRecipient, ...]
    upstreams: tuple[str, ...] = ()
    supersede_key: str | None = None
    suspect: bool = False
    """its process died before, more than once, with it in hand: no other suspect is claimed before it is settled"""


class RecipientUpdate(NamedTuple):
    """What became of a recipient."""

    position: int
    state: State
    upstream: str | None = None
    reply: str | None = None
    """the upstream's last word, or the relay's own reason"""
    sent_at: float | None = None
    next_at: float | None = None
    """when `deferred` (or `queued`): due again"""
    step: int = 0
    delay_notified: bool = False


class Attempt(NamedTuple):
    """One try at handing some recipients to one upstream, written as a row for each of them."""

    position: int
    n: int
    upstream: str
    started_at: float
    session: Literal["warm", "new", "none"]
    """`none`: no session could be had"""
    outcome: Outcome
    reply: str
    timings_ms: Mapping[str, float]
    """connect, tls, auth, envelope, data"""


class Settlement(NamedTuple):
    """Everything that one try changes, in one transaction."""

    message_id: str
    updates: tuple[RecipientUpdate, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    timings_ms: Mapping[str, float] = {}
    """merged over what the message has"""
    bounces: tuple[NewMessage, ...] = ()
    """DSNs to queue (state `queued`, due at once) in the same transaction"""
    note: str | None = None
    """why, for the time line: `expired before the final dot`"""
    only_bytes: int | None = None
    """the content's size, where the message has but this one recipient; None: it has others, or that isn't known"""


class Selection(NamedTuple):
    """Which messages an operator's action or a listing is about. All that is given must hold."""

    ids: tuple[str, ...] = ()
    lane: str | None = None
    to: str | None = None
    """a recipient's address, compared case-insensitively"""
    state: State | None = None
    since: float | None = None
    """accepted at or after"""
    until: float | None = None
    """accepted before"""
    limit: int = 100
    """of a listing; an action is about all that match"""
    ambiguous: bool = False
    """a `retry` that names no message is also about those that may have been delivered already"""

    @property
    def takes_ambiguous(self) -> bool:
        """Is an operator's `retry` also about what may have been delivered already?"""
        return self.ambiguous or bool(self.ids) or self.state == "ambiguous"


class LaneCount(NamedTuple):
    """A row of the queue's gauges."""

    lane: str
    state: State
    recipients: int
    oldest_at: float | None


class Recovered(NamedTuple):
    """Recipients of a message that the relay had in hand when it ended, and what they are now."""

    message_id: str
    lane: str
    state: Literal["queued", "held", "ambiguous"]
    recipients: int


class DeliveryRow(NamedTuple):
    """Finished recipients that are alike, for `report`. `total_ms`: final dot to the upstream's reply, cut off to three
    digits (tenths below 100 ms); None when never sent."""

    lane: str
    upstream: str | None
    provider: str
    state: State
    total_ms: float | None
    recipients: int = 1


class Store(Protocol):
    """One writer, many readers. Every call that changes something is durable when it returns."""

    async def close(self) -> None:
        """Finish what was begun, then let go of the files."""

    async def put(self, message: NewMessage, *, claimed: bool, booking: Booking = BOOKED) -> None:
        """Write a message. `claimed`: its recipients begin as `sending`, already in their lane's hands, booked as by
        `claim`; else as `queued`, due at `accepted_at`. Raises StoreFull, StoreError: then nothing was written."""

    def start_put(self, message: NewMessage, *, express: bool, booking: Booking = BOOKED) -> asyncio.Future[None]:
        """`put`, claimed, and under way before this returns; `express`: ahead of all others. Cancelled before its end,
        the message is `queued`, if it is written at all."""

    async def claim(
        self, lane: str, now: float, *, messages: int, size_bytes: int, booking: Booking = BOOKED
    ) -> Sequence[Queued]:
        """Take up to `messages` due ones (in order of `next_at`), at least one and then until their contents pass
        `size_bytes`: mark them `sending`, count the attempt, and book the next one. One that can't be read is `held`
        with a note, and left out. Suspects come one at a time, when nothing else is due."""

    async def next_due(self, lane: str) -> float | None:
        """When the lane's next `queued` or `deferred` recipient is due."""

    async def mark_final(self, message_id: str, positions: Sequence[int]) -> None:
        """Note, durably, that the final dot is about to leave: after a crash these are `ambiguous`, not `queued`."""

    async def settle(self, settlement: Settlement) -> None:
        """Write what became of some recipients; the body goes once no recipient is open. An update of a recipient
        that is no longer open changes nothing but adds its attempt."""

    async def unclaim(self, message_id: str, due_at: float | None = None) -> None:
        """Give back what wasn't sent: its `sending` recipients are `queued` again, due then (default: at once), and the
        attempt that the claim counted doesn't count."""

    async def recover(self, now: float, marking: Collection[str] = ()) -> Sequence[Recovered]:
        """At start: `sending` becomes `queued`, due when its claim booked it; `held` where its process died
        MOST_DEATHS times with it in hand; `ambiguous` where the final dot was marked. Each such message has a note of
        it, which says that an upstream may have it unless its lane is one of `marking` (`mark_final`). What the clock
        of an earlier start put into the future is due now. Returns what was `sending`."""

    async def supersede(self, key: str, before_id: str, now: float) -> Sequence[str]:
        """End the `queued` and `deferred` recipients of older messages with this key. Returns the messages' ids."""

    async def hasten(self, lane: str, now: float, *, only_urged: bool = False) -> int:
        """Make the lane's `deferred` recipients due now, their ladder's step kept: an upstream is back. `only_urged`:
        those that an operator asked to be tried. Returns how many those were."""

    async def adopt(self, lanes: Sequence[str], default: str) -> int:
        """Put open recipients of lanes that are no more into `default`. Returns how many those were."""

    async def act(self, action: Action, selection: Selection, now: float) -> Sequence[str]:
        """What an operator asks of open messages. `retry` makes queued and deferred ones due now and starts their
        ladder anew, and ambiguous ones where the selection names them (`ids`, `state`, `ambiguous`). `hold` takes
        queued and deferred ones out. `release` makes held ones due now. `drop` ends queued, deferred, held and
        ambiguous ones (state `bounced`, reply `dropped by the operator`, no DSN). `sending` ones are never touched;
        with `to` or `state`, only the recipients they name are. Returns the ids of the messages that changed."""

    async def get(self, message_id: str) -> Mapping[str, object] | None:
        """One message as the contract's section 4 has it (JSON-ready), with `next_at` where a recipient waits."""

    async def search(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        """Messages newest first, each as `get` gives it but without attempts."""

    async def waiting(self, selection: Selection) -> Sequence[Mapping[str, object]]:
        """Open messages, earliest due first, as `search` gives them, with `next_at` and `attempts` a recipient."""

    async def counts(self) -> Sequence[LaneCount]:
        """Open recipients by lane and state."""

    def size(self) -> tuple[int, int]:
        """Open messages and the bytes of their contents, as this process knows them: asked before every message."""

    async def deliveries(self, since: float) -> Sequence[DeliveryRow]:
        """What `report` counts: finished recipients of messages accepted since then; those alike are one row."""

    async def prune(self, before: float, *, limit: int) -> int:
        """Delete up to `limit` finished messages accepted before then. Returns how many."""
