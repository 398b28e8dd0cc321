"""Finds the lane of a message that has come in, within the limits: refused, delayed, demoted, or just logged. Pure.

It decides and counts the message in one step, so that of any number of sessions no more than allowed pass. What isn't
stored after all is withdrawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from relay.mail.envelope import Envelope
from relay.mail.header_text import decoded
from relay.mail.message import Message, first
from relay.mail.reply import Reply
from relay.policy.admissions import Admission, Admissions
from relay.policy.check import Refuse
from relay.policy.limits import (
    NEVER,
    Demand,
    LimitFacts,
    LimitName,
    Verdict,
    budget_of,
    client_key,
    demands_of,
    free_at,
    judge,
    key_of,
    longest_s,
    mailbox,
    resend_key,
)
from relay.policy.look_alikes import LookAlikes, lines_of
from relay.policy.resends import Resends
from relay.policy.superseding import supersede_key
from relay.routing.router import Route

if TYPE_CHECKING:
    from relay.config.model import Config, Lane

CLIENT_HEADER = "x-relay-client"
MOST_CLIENT_CHARS = 200
MOST_LOOKED_AT_BYTES = 65_536
"""A larger content isn't compared with others: it would take too long."""
_SWEEP_AT = 1_024
_ONCE = ("per_client", "per_sender")
"""limits that count a message once in a lane, however many parts of it go there"""


class Incoming(NamedTuple):
    """What limits look at of a message, besides its lane."""

    id: str
    envelope: Envelope
    message: Message
    """its header section at least"""
    is_whole: bool
    client: str
    """see `policy.limits.client_key`"""
    sender: str
    """of the envelope; of a null sender's message, the first From address"""
    now: float
    counted: Collection[int] = ()
    """keys that count the message already, for an earlier part of it: client and sender count it once in a lane"""


class Placement(NamedTuple):
    """Where a message goes, and what was counted."""

    route: Route
    routed: str
    """the lane that the rules chose, which may have demoted it"""
    due_at: float | None = None
    limited: tuple[str, ...] = ()
    admission: Admission | None = None
    supersede_key: str | None = None
    """in a lane that delays and supersedes"""
    superseded: Admission | None = None
    """of a delayed message that this one supersedes before it is due"""
    resent: int = 0
    """recipients that got mail of the same rule within its life"""


class LimitLog(Protocol):
    """`MailLog`."""

    def limited(self, message_id: str, lane: str, limit: str, action: str, wait_s: float | None = None) -> None: ...

    def limits_full(self, entries: int) -> None: ...


class Limiter:
    """All limits of one relay."""

    def __init__(self, log: LimitLog, salt: Callable[[], bytes]) -> None:
        """`salt`: the store's, of the hashes."""
        self.admissions = Admissions()
        self._log = log
        self._salt = salt
        self._resends = Resends()
        self._look_alikes = LookAlikes()
        self._delayed: dict[str, Admission] = {}
        """by supersede key, what isn't due yet"""
        self._sweep_at = _SWEEP_AT
        self._forgotten = 0
        self._config: Config | None = None
        self._longest_s = 0.0
        """of that configuration"""

    def place_all(self, config: Config, parts: Sequence[tuple[Route, Route, Incoming]]) -> Sequence[Placement] | Refuse:
        """`place` all parts of a message: of most messages there is one. Where a part is refused, the message is, and
        nothing of it is counted. Each part: its route, where it goes if it is demoted, and what limits look at."""
        placed: list[Placement] = []
        for route, default, incoming in parts:
            counted = {key for one in placed if one.admission is not None for key in one.admission.keys}
            placement = self.place(config, route, default, incoming._replace(counted=counted) if placed else incoming)
            if isinstance(placement, Refuse):
                self.withdraw(*placed)
                return placement
            placed.append(placement)
        return placed

    def place(self, config: Config, route: Route, default: Route, incoming: Incoming) -> Placement | Refuse:
        """Find the message's place, and count it. `default`: where it goes if it is demoted. A message that is refused
        isn't counted."""
        if config is not self._config:
            self._config, self._longest_s = config, longest_s(config)
        self.admissions.expire(incoming.now - self._longest_s)
        self._report_forgotten()
        limited: list[str] = []
        routed, lane = route.lane, config.lanes[route.lane]
        budget: Demand | None = None
        if lane.express and route.lane != default.lane:
            budget = budget_of(facts_of(route, incoming), lane.limits, self._salt())
            if budget is not None and budget.key in incoming.counted:
                budget = None
            if (why := self._pretends(route, lane, incoming, budget)) is not None:
                self._log.limited(incoming.id, route.lane, why, "demote")
                limited.append(_demoted_text(why, route, default))
                route, budget = default, None
        placed = self._within_limits(config.lanes[route.lane], route, incoming, budget)
        while isinstance(placed, str):
            limited.append(_demoted_text(placed, route, default))
            route = default  # which can't demote: the configuration refuses that
            placed = self._within_limits(config.lanes[route.lane], route, incoming, None)
        if isinstance(placed, Refuse):
            return placed
        return placed._replace(routed=routed, limited=(*limited, *placed.limited))

    def withdraw(self, *placements: Placement) -> None:
        """The message isn't stored: none of its parts counts."""
        for placement in reversed(placements):
            if placement.admission is not None:
                self.admissions.remove(placement.admission)
                if placement.supersede_key is not None:
                    self._delayed.pop(placement.supersede_key, None)
            self._put_back(placement.supersede_key, placement.superseded)

    def _within_limits(
        self, lane: Lane, route: Route, incoming: Incoming, budget: Demand | None
    ) -> Placement | Refuse | LimitName:
        """The message's place in that lane; or the limit that demotes it."""
        now, facts = incoming.now, facts_of(route, incoming)
        demands = demands_of(facts, lane.limits, self._salt())
        if incoming.counted:
            demands = [one for one in demands if one.limit not in _ONCE or one.key not in incoming.counted]
        key = supersede_key(route, incoming.envelope) if lane.supersede and lane.limits.action == "delay" else None
        older = self._take_delayed(key, now)
        verdict = judge(demands, lane.limits.action, self.admissions.times, now, now + facts.expires_s)
        limited: tuple[str, ...] = ()
        if verdict.exceeded is not None and verdict.action is not None:
            name, wait_s = verdict.exceeded.limit, verdict.exceeded.free_at - now
            self._log.limited(incoming.id, route.lane, name, verdict.action, wait_s)
            if verdict.action in ("reject", "demote"):
                self._put_back(key, older)
            if verdict.action == "reject":
                return _refused(name, route.lane, wait_s)
            if verdict.action == "demote":
                return name
            limited = (_limited_text(verdict, name, route.lane, now),)
        keys = [demand.key for demand in demands for _ in range(demand.times)]
        keys += [budget.key] if budget is not None else []
        admission = self.admissions.add(verdict.at, keys) if keys else None
        due_at = verdict.at if verdict.at > now else None
        if due_at is not None and key is not None and admission is not None:
            self._delayed[key] = admission
            self._sweep(now)
        return Placement(route, route.lane, due_at, limited, admission, key, older, self._resent(facts, lane, now))

    def _take_delayed(self, key: str | None, now: float) -> Admission | None:
        """The delayed message that a new one with this key supersedes before it is due: it counts no more."""
        older = self._delayed.pop(key, None) if key is not None else None
        if older is None or older.at <= now:
            return None
        self.admissions.remove(older)
        return older

    def _put_back(self, key: str | None, older: Admission | None) -> None:
        """What `_take_delayed` took counts again: the new message doesn't supersede it."""
        if key is not None and older is not None:
            self._delayed[key] = older
            self.admissions.restore(older)

    def _pretends(self, route: Route, lane: Lane, incoming: Incoming, budget: Demand | None) -> LimitName | None:
        """Why mail that claims an express lane looks like bulk mail; None: it doesn't."""
        limits, message = lane.limits, incoming.message
        if limits.list_unsubscribe == "demote" and any(field.name == "list-unsubscribe" for field in message.fields):
            return "list_unsubscribe"
        if budget is not None and free_at(budget, self.admissions.times(budget.key), incoming.now) > incoming.now:
            return "express_budget"
        if limits.look_alikes is None or not incoming.is_whole or len(message.content) > MOST_LOOKED_AT_BYTES:
            return None
        salt = self._salt()
        lines = [key_of(salt, "line", route.lane, incoming.sender, line) for line in lines_of(message)]
        recipients = [key_of(salt, mailbox(one.address, fold_tags=False)) for one in incoming.envelope.recipients]
        return "look_alikes" if self._look_alikes.exceed(lines, recipients, limits.look_alikes, incoming.now) else None

    def _resent(self, facts: LimitFacts, lane: Lane, now: float) -> int:
        """How many of the recipients had mail of this rule within its life. Notes this message."""
        salt, folds = self._salt(), lane.limits.fold_tags
        keys = {resend_key(salt, facts, mailbox(one, fold_tags=folds)) for one in facts.recipients}
        return sum([self._resends.note(key, now, facts.expires_s) for key in keys])

    def _sweep(self, now: float) -> None:
        """Forget what has become due."""
        if len(self._delayed) > self._sweep_at:
            self._delayed = {key: one for key, one in self._delayed.items() if one.at > now}
            self._sweep_at = max(_SWEEP_AT, 2 * len(self._delayed))

    def _report_forgotten(self) -> None:
        if self.admissions.forgotten and not self._forgotten:
            self._log.limits_full(len(self.admissions))
        self._forgotten = self.admissions.forgotten


def client_of(message: Message, user: str | None, address: str) -> str:
    """Which client asks: see `limits.client_key`."""
    named = first(message, CLIENT_HEADER)
    return client_key(None if named is None else decoded(named).strip()[:MOST_CLIENT_CHARS], user, address)


def facts_of(route: Route, incoming: Incoming) -> LimitFacts:
    """What limits look at, for that route."""
    recipients = [one.address for one in incoming.envelope.recipients]
    return LimitFacts(route.lane, route.rule, incoming.sender, recipients, incoming.client, route.life_s)


def _demoted_text(limit: LimitName, route: Route, default: Route) -> str:
    return f"{limit} of lane {route.lane}: demoted to lane {default.lane}"


def _refused(limit: LimitName, lane: str, wait_s: float) -> Refuse:
    if wait_s == NEVER:
        text = f"5.7.1 limit {limit} of lane {lane}: the message has more addresses of one mailbox than it allows"
        return Refuse(Reply(550, text), "limit")
    seconds = max(1, math.ceil(wait_s))
    return Refuse(Reply(450, f"4.7.1 limit {limit} of lane {lane}: try again in {seconds} s"), "limit", seconds)


def _limited_text(verdict: Verdict, limit: LimitName, lane: str, now: float) -> str:
    if verdict.action == "delay":
        return f"{limit} of lane {lane}: delayed for {math.ceil(verdict.at - now)} s"
    return f"{limit} of lane {lane}: sent all the same"
