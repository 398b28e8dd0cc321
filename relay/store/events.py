"""What happened to recipients, as values: events of the relay and of ESPs."""

from __future__ import annotations

from typing import Literal, NamedTuple

Source = Literal["relay", "esp"]
_PERMANENT = {"bounced": True, "deferred": False}
"""what an event of the relay's own says of another try"""


class MailEvent(NamedTuple):
    """Something that happened to one recipient of a message."""

    id: str
    """the same wherever and whenever it is read"""
    message_id: str
    """the relay's id of the message"""
    position: int
    """of the recipient in its message"""
    at: float
    """seconds since the epoch, by the relay's clock or the ESP's"""
    kind: str
    source: Source
    upstream: str | None = None
    permanent: bool | None = None
    """of a failure: whether another try is useless; None: not known, or no failure"""
    reason: str | None = None
    """one line, redacted: a reply, or the ESP's reason"""
    latest_at: float | None = None
    """the end of durations, where `at` has whole seconds only: see `latest`; None: `at`"""


LATEST_IN_SECOND_S = 0.999


def latest(at: float, received_at: float) -> float:
    """The latest time at which an ESP's event happened. Most ESPs cut their times to whole seconds: taken as they are,
    deliveries would look up to a second faster than they were."""
    return min(at + LATEST_IN_SECOND_S, max(at, received_at)) if at % 1 == 0 else at


def relay_event(
    message_id: str, position: int, at: float, kind: str, upstream: str | None, reason: str | None
) -> MailEvent:
    """An event of the relay's own, as a message file has it."""
    event_id = identify("relay", message_id, str(position), kind, repr(at))
    return MailEvent(event_id, message_id, position, at, kind, "relay", upstream, _PERMANENT.get(kind), reason)


def identify(*parts: str) -> str:
    """An id for an event that these parts tell from all others: `evt_` and 24 hexadecimal digits."""
    from hashlib import blake2b  # here, for the commands that read: it loads OpenSSL

    return "evt_" + blake2b("\n".join(parts).encode("utf-8", "replace"), digest_size=12).hexdigest()


class Post(NamedTuple):
    """An event on its way to one receiver."""

    receiver: str
    """`receiver_key` of its URL"""
    body: bytes


class Effect(NamedTuple):
    """What follows from an event for a recipient's state, or for its address. It is done once and may be done twice."""

    action: Literal["end", "suppress", "suppress_unnamed"]
    """`end`: a `sent` recipient ends as `bounced`; `suppress`: its address isn't mailed again; `suppress_unnamed`: so,
    and the address isn't kept, as the message has a hash in its place"""
    message_id: str
    position: int
    upstream: str
    at: float
    lane: str
    cause: str | None = None
    """of `suppress`: bounce, complaint or unsubscribe"""
    address: str | None = None
    reason: str | None = None


class Recording(NamedTuple):
    """An ESP's event about a message that is known, with all that follows from it."""

    event: MailEvent
    lane: str
    provider: str
    accepted_at: float
    """of the message"""
    posts: tuple[Post, ...] = ()
    effects: tuple[Effect, ...] = ()
    has_objective: bool = False
    """its lane has one, which a delivered event decides about"""
    trace: str | None = None
    """the app's traceparent"""


class Recorded(NamedTuple):
    """What the record of an event found."""

    is_new: bool
    is_first_delivery: bool = False
    decides: bool = False
    """whether the lane's objective was met shows with this event"""


class Token(NamedTuple):
    """What vouches for one request of a webhook only."""

    upstream: str
    token: str
    digest: bytes
    """of what the request says"""


class Undecided(NamedTuple):
    """A recipient that an upstream has accepted. Whether its lane's objective was met shows with the delivered event,
    or at `due_at` by the time of acceptance."""

    message_id: str
    position: int
    lane: str
    due_at: float
    sent_after_s: float


FURTHEST_BACK_S = 60.0
"""an ESP's clock may be so much behind: an event may seem to be as much older than its message"""
OLD = Recorded(is_new=False)
"""the event is there already"""


class Waiting(NamedTuple):
    """A post in the outbox."""

    seq: int
    event_id: str
    message_id: str
    created_at: float
    attempts: int
    """that have failed"""
    body: bytes


class Delivered(NamedTuple):
    """The receiver has it."""

    post: Waiting


class PutOff(NamedTuple):
    """An attempt failed. The next one is due at `due_at`."""

    post: Waiting
    due_at: float
    result: str


class GivenUp(NamedTuple):
    """An attempt failed, and no other follows: the post is shown as dead."""

    post: Waiting
    result: str


PostOutcome = Delivered | PutOff | GivenUp


class Batch(NamedTuple):
    """Posts of a receiver that are due, and when the next one is (None: none waits for its time)."""

    posts: tuple[Waiting, ...]
    next_at: float | None


def receiver_key(url: str) -> str:
    """What the outbox knows a receiver by: a URL may hold what isn't to be stored."""
    from hashlib import blake2b

    return blake2b(url.encode(), digest_size=12).hexdigest()


class EventSelection(NamedTuple):
    """Which events a listing is about. All that is given must hold."""

    to: str | None = None
    """the recipient's address, compared case-insensitively"""
    kind: str | None = None
    lane: str | None = None
    since: float | None = None
    """happened at or after; then the first `limit` events are listed, else the newest"""
    limit: int = 100
