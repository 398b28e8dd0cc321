"""The store's values: what is put, claimed, settled and shown.

Times are seconds since the epoch (`*_at`), from the relay's own steady clock; durations are milliseconds where they
are shown (`*_ms`). Content is the message's bytes with CRLF line ends, not dot-stuffed and not signed. Each claim is
signed anew, with the keys that are configured then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from relay.mail.envelope import Envelope, Recipient
from relay.mail.outcome import Outcome, SessionKind, Via
from relay.policy.admissions import Admission
from relay.store.search_text import SearchText

State = Literal[
    "queued", "sending", "sent", "deferred", "bounced", "expired", "superseded", "held", "suppressed", "ambiguous"
]
OPEN_STATES: frozenset[State] = frozenset({"queued", "sending", "deferred", "held", "ambiguous"})
"""Not finished: the body is kept. `ambiguous` is open only while its lane holds it for an operator."""
FAILED_STATES: frozenset[State] = frozenset({"bounced", "expired", "suppressed", "ambiguous"})
"""It isn't known that an upstream has it, and nothing more is sent by itself."""

Action = Literal["retry", "hold", "release", "drop"]
ACTS_ON: Mapping[Action, frozenset[State]] = {
    "retry": frozenset({"queued", "deferred", "ambiguous"}),
    "hold": frozenset({"queued", "deferred"}),
    "release": frozenset({"held"}),
    "drop": frozenset({"queued", "deferred", "held", "ambiguous"}),
}
"""The states of recipients that an operator's action changes."""


class Booking(NamedTuple):
    """What a claim books before anything is sent: when the message is due again if its process crashes, and the lease
    of the process that has it."""

    ladder_s: tuple[float, ...] = (1.0,)
    """the lane's: a recipient is due again at its next step; the last repeats"""
    holder: str = "local"
    lease_s: float = 600.0
    """how long the lease lasts; for stores that several relays share"""


BOOKED = Booking()
MOST_DEATHS = 5
"""A message is `held` after so many crashes while it was `sending`: it may be their cause."""
SUSPECT_DEATHS = 2
"""From so many crashes on it is a suspect, which is claimed alone and behind all others."""


class IdempotencyKey(NamedTuple):
    """What makes a repeated request known. Keyed hashes, 16 bytes each."""

    key: bytes
    request: bytes
    """of envelope and content"""


class KnownRequest(NamedTuple):
    """A message that was accepted with an idempotency key."""

    request: bytes
    message_id: str


class SplitPart(NamedTuple):
    """A message is part of a larger one, whose recipients take different routes. Its log shows all parts as one."""

    entry: str | None
    """the id of the first part, by which the app knows the whole; None: this is the first part"""
    places: tuple[int, ...]
    """of the part's recipients in the envelope that was submitted, from 0"""


class NewMessage(NamedTuple):
    """One accepted submission, or the part of it that goes by one route, as it is first written."""

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
    due_at: float | None = None
    """when it may be sent first; None: at once"""
    limited: tuple[str, ...] = ()
    """why, for the time line: a `limited` event each"""
    admission: Admission | None = None
    """what limits count"""
    withdrawn: int | None = None
    """the `seq` of the admission of a message that this one supersedes before it is due"""
    idempotency: IdempotencyKey | None = None
    detected: str | None = None
    """what the content detector saw, `otp` or `other`; None: no rule asked"""
    split: SplitPart | None = None
    """None: all recipients of the submission are this message's"""
    trace: str | None = None
    """the app's traceparent (`mail.traceparent`); None: it gave none"""

    @property
    def first_due_at(self) -> float:
        return self.accepted_at if self.due_at is None else self.due_at


class Repeat(NamedTuple):
    """An upstream didn't answer a request that it may have acted on. It knows the request by its idempotency key, so
    the same request goes there again before anything goes elsewhere."""

    upstream: str
    until: float
    """seconds since the epoch: from then on the lane's `on_ambiguous` decides"""
    key: str
    """of the request; it stays the same while fewer of its recipients are left"""


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
    repeat: Repeat | None = None
    crashed: bool = False
    """its process ended while it was `sending`, and nothing was settled since"""


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
    is_part: bool = False
    """other recipients of the submission have taken another route"""
    suspect: bool = False
    """its process crashed more than once while it was `sending`: no other suspect is claimed before it is settled"""
    trace: str | None = None

    @classmethod
    def of(cls, message: NewMessage, due: tuple[OpenRecipient, ...]) -> Queued:
        """A message just as it was stored, with its recipients that are due."""
        return cls(
            id=message.id,
            lane=message.lane,
            rule=message.rule,
            envelope=message.envelope,
            content=message.content,
            accepted_at=message.accepted_at,
            expires_at=message.expires_at,
            due=due,
            upstreams=message.upstreams,
            supersede_key=message.supersede_key,
            is_part=message.split is not None,
            trace=message.trace,
        )


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
    repeat: Repeat | None = None


class Attempt(NamedTuple):
    """One try at handing some recipients to one upstream, written as a row for each of them."""

    position: int
    n: int
    upstream: str
    started_at: float
    session: SessionKind
    outcome: Outcome
    reply: str
    timings_ms: Mapping[str, float]
    """by phase: `relay.upstream.phases`, PHASES and RARE_PHASES"""
    via: Via = "smtp"


class Settlement(NamedTuple):
    """Everything that a round changes, or an interim write of it, in one transaction."""

    message_id: str
    updates: tuple[RecipientUpdate, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    timings_ms: Mapping[str, float] = {}
    """merged over what the message has"""
    bounces: tuple[NewMessage, ...] = ()
    """DSNs to queue (state `queued`, due at once) in the same transaction"""
    note: str | None = None
    """why, for the time line: `expired before the final dot`"""
    went_unsigned: bool = False
    """an upstream took it without our signatures: none is shown from now on"""
    only_bytes: int | None = None
    """the content's size, where the message has but this one recipient; None: it has others, or that isn't known"""

    def last_attempts(self) -> dict[int, int]:
        """The highest number among the attempts for each recipient. Hedged ones may end in another order."""
        made: dict[int, int] = {}
        for attempt in self.attempts:
            made[attempt.position] = max(attempt.n, made.get(attempt.position, 0))
        return made


class Selection(NamedTuple):
    """Which messages an operator's action or a listing is about. All that is given must hold, of one part of a split
    message."""

    ids: tuple[str, ...] = ()
    """of a split message all of its parts', for an action"""
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
    states: frozenset[State] = frozenset()
    """of a recipient, one of these; empty: any"""
    text: SearchText | None = None

    def states_for(self, action: Action) -> frozenset[State]:
        """The states of recipients that this action changes. A `retry` is about ambiguous ones, which may have been
        delivered already, only where the selection names them."""
        is_named = self.ambiguous or bool(self.ids) or self.state == "ambiguous"
        return ACTS_ON[action] if is_named or action != "retry" else ACTS_ON[action] - {"ambiguous"}


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


class Expired(NamedTuple):
    """Recipients of a message that the store has ended, because the message's life was over."""

    message_id: str
    recipients: int


class DeliveryRow(NamedTuple):
    """Finished recipients that are alike, for `report`. `total_ms`: final dot to the upstream's reply, cut off to three
    digits (tenths below 100 ms); None when never sent. `slow_receive`: see `store.receive`."""

    lane: str
    upstream: str | None
    provider: str
    state: State
    total_ms: float | None
    recipients: int = 1
    slow_receive: bool = False
    resent: bool = False
    """the same rule sent another message to the same recipient before, within the message's life"""
    in_time: bool | None = None
    """whether the lane's objective was met; None: it has none, or it isn't about such a recipient"""


class ReportedRow(NamedTuple):
    """Events of ESPs that are alike, for `report`: of each recipient the first of a kind. `after_ms`: of `delivered`,
    from the final dot, cut off to three digits as `DeliveryRow.total_ms`."""

    lane: str
    upstream: str
    provider: str
    kind: str
    permanent: bool | None
    after_ms: float | None
    recipients: int = 1


class LateEnd(NamedTuple):
    """A recipient that an upstream accepted, and that its ESP then reported as bounced, rejected or failed."""

    message_id: str
    position: int
    upstream: str
    reply: str
    """why, redacted"""


Ended = Literal["done", "later", "absent"]
"""`later`: the recipient isn't finished; `absent`: the message isn't in this store"""


class TransferredMessage(NamedTuple):
    """A message on its way to another store of this relay: its rows by table, as dictionaries, and its content."""

    id: str
    message: Mapping[str, Any]
    rows: Mapping[str, Sequence[Mapping[str, Any]]]
    content: bytes
