"""Limits of a lane: how many messages a recipient, a client or a sender may have in a time. Pure.

A message meets some `Demand`s, one for each limit and key. `judge` decides from the times at which earlier messages
with these keys count (`admissions`). Windows slide: at most `count` messages in any period of that length.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from hashlib import blake2b
from math import inf
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

from relay.policy.suppression import canonical

if TYPE_CHECKING:
    from relay.config.model import Config, LaneLimits
    from relay.config.rate_limit import CountPer

LimitName = Literal[
    "per_recipient", "per_client", "per_sender", "resend_after", "express_budget", "look_alikes", "list_unsubscribe"
]
LIMIT_NAMES: tuple[LimitName, ...] = get_args(LimitName)
Action = Literal["reject", "delay", "demote", "log"]
NEVER = inf
"""`free_at` of a message that exceeds a limit by itself"""

History = Callable[[int], Sequence[float]]
"""When earlier messages with a key count, in order (seconds since the epoch); some may be in the future."""


class LimitFacts(NamedTuple):
    """What limits look at."""

    lane: str
    rule: str | None
    sender: str
    recipients: Sequence[str]
    client: str
    """as `client_key` has it"""
    expires_s: float
    """the life of the rule's mail: the ladder of `resend_after` begins anew after so long"""


class Demand(NamedTuple):
    """One limit, as a message meets it with one key."""

    limit: LimitName
    key: int
    windows: Sequence[CountPer] = ()
    pauses_s: Sequence[float] = ()
    """the least time between two messages: behind the first, the second, ...; the last repeats"""
    reset_s: float = 0.0
    """the pauses begin anew after a time of this length without a message"""
    times: int = 1
    """how often the message counts: two addresses of one mailbox are two"""


class Exceeded(NamedTuple):
    """A limit that a message exceeds, and when it would be within it (seconds since the epoch)."""

    limit: LimitName
    free_at: float


class Verdict(NamedTuple):
    """`exceeded` None: the message is within all limits, and counts at `at`."""

    at: float
    """when it is sent, and counts"""
    exceeded: Exceeded | None = None
    action: Action | None = None


def client_key(header: str | None, user: str | None, address: str) -> str:
    """Which client asks: the app's end user, else the user that logged in, else the address. The three never meet."""
    if header:
        return f"client {header}"
    return f"address {address}" if user is None else f"user {user}"


def mailbox(address: str, *, fold_tags: bool) -> str:
    """The form in which addresses are compared: see `suppression.canonical`. `fold_tags`: `a+b@example.com` is
    `a@example.com`."""
    compared = canonical(address)
    if fold_tags:
        local, at, domain = compared.rpartition("@")
        name = local.partition("+")[0]
        compared = f"{name or local}{at}{domain}"
    return compared


def key_of(salt: bytes, *parts: str) -> int:
    """A keyed hash: the limits' books have no address."""
    text = "\n".join(parts).encode("utf-8", "surrogatepass")
    return int.from_bytes(blake2b(text, key=salt, digest_size=8, person=b"limit").digest(), "big", signed=True)


def demands_of(facts: LimitFacts, limits: LaneLimits, salt: bytes) -> list[Demand]:
    """What a message of that lane has to meet."""
    found: list[Demand] = []
    lane = facts.lane
    if limits.per_client:
        found.append(Demand("per_client", key_of(salt, "client", lane, facts.client), limits.per_client))
    if limits.per_sender:
        key = key_of(salt, "sender", lane, canonical(facts.sender))
        found.append(Demand("per_sender", key, limits.per_sender))
    if limits.per_recipient or limits.resend_after_s:
        found += _of_recipients(facts, limits, salt)
    return found


def _of_recipients(facts: LimitFacts, limits: LaneLimits, salt: bytes) -> Iterator[Demand]:
    mailboxes = Counter(mailbox(one, fold_tags=limits.fold_tags) for one in facts.recipients)
    for address, times in mailboxes.items():
        if limits.per_recipient:
            key = key_of(salt, "recipient", facts.lane, address)
            yield Demand("per_recipient", key, limits.per_recipient, times=times)
        if limits.resend_after_s:
            key = resend_key(salt, facts, address)
            yield Demand("resend_after", key, (), limits.resend_after_s, facts.expires_s, times)


def resend_key(salt: bytes, facts: LimitFacts, address: str) -> int:
    """Of messages of one rule to one mailbox (`mailbox`)."""
    return key_of(salt, "resend", facts.lane, facts.rule or "", address)


def budget_of(facts: LimitFacts, limits: LaneLimits, salt: bytes) -> Demand | None:
    """What a sender's mail has to meet to be in an express lane."""
    if limits.express_budget is None:
        return None
    key = key_of(salt, "budget", facts.lane, canonical(facts.sender))
    return Demand("express_budget", key, (limits.express_budget,))


def judge(demands: Sequence[Demand], action: Action, history: History, now: float, until: float = NEVER) -> Verdict:
    """Decide about a message that comes `now`. What can't be sent before `until`, its end, is rejected, not delayed."""
    worst: Exceeded | None = None
    for demand in demands:
        free = free_at(demand, history(demand.key), now)
        if free > now and (worst is None or free > worst.free_at):
            worst = Exceeded(demand.limit, free)
    if worst is None:
        return Verdict(now)
    if action == "delay":
        at = _free_of_all(demands, history, worst.free_at)
        return Verdict(at, worst, "delay") if at < until else Verdict(now, worst._replace(free_at=at), "reject")
    return Verdict(now, worst, action)


def _free_of_all(demands: Sequence[Demand], history: History, now: float) -> float:
    at = now
    while at < NEVER:
        later = max(free_at(demand, history(demand.key), at) for demand in demands)
        if later <= at:
            break
        at = later
    return at


def free_at(demand: Demand, times: Sequence[float], now: float) -> float:
    """The first moment from `now` on at which the demand is met. `times`: when earlier messages count, in order."""
    at = now
    while True:
        later = at
        for window in demand.windows:
            # Most keys have few messages, which no window is full with.
            if len(times) + demand.times > window.count:
                later = max(later, _window_free_at(window, times, demand.times, at))
        if demand.pauses_s and times:
            later = max(later, times[-1] + pause_s(demand.pauses_s, demand.reset_s, times))
        if later <= at:
            return at
        at = later


def _window_free_at(window: CountPer, times: Sequence[float], new: int, at: float) -> float:
    """The first moment from `at` on at which no window of this length would have more than it may. `times` has so many
    that `new` more can be too many."""
    room = window.count - new
    if room < 0:
        return NEVER
    if times[-1] <= at:
        return max(at, times[-room - 1] + window.period_s)
    for first, last in zip(times, times[room:], strict=False):
        # These two with all between them, `room + 1` in all, and the new one would be too many in one window.
        if max(last, at) - min(first, at) < window.period_s:
            at = first + window.period_s
    return at


def pause_s(pauses_s: Sequence[float], reset_s: float, times: Sequence[float]) -> float:
    """The pause behind the last of these messages. It grows with each that came within `reset_s` of the one before."""
    repeats = 1
    while repeats < len(pauses_s) and repeats < len(times) and times[-repeats] - times[-repeats - 1] < reset_s:
        repeats += 1
    return pauses_s[repeats - 1]


def horizon_s(limits: LaneLimits, expires_s: float) -> float:
    """How long an accepted message matters to the limits of a lane. `expires_s`: the longest life of its mail."""
    windows = [*limits.per_recipient, *limits.per_client, *limits.per_sender]
    if limits.express_budget is not None:
        windows.append(limits.express_budget)
    spans = [window.period_s for window in windows]
    if limits.resend_after_s:
        spans.append(max(limits.resend_after_s) + expires_s * (len(limits.resend_after_s) - 1))
    return max(spans, default=0.0)


def longest_s(config: Config) -> float:
    """How long an accepted message matters to the limits of any lane."""
    return max(horizon_s(lane.limits, lane.expires_s) for lane in config.lanes.values())
