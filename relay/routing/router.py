"""Find a message's lane: that of the first rule that matches, else the default lane. Recipients with
different routes become several parts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from relay.config.model import API_RULE, PINNED_RULE, Config, Lane, Rule
from relay.routing.conditions import Condition, RecipientsMatch, View, conditions
from relay.routing.facts import Facts


@dataclass(frozen=True, slots=True)
class Route:
    """Where a message goes. `rule` is None when none matched; `upstreams` in order of preference."""

    lane: str
    rule: str | None
    upstreams: tuple[str, ...]
    life_s: float
    """from the final dot: the lane's `expires`, or the rule's, if that is less"""


class RoutedPart(NamedTuple):
    """The recipients of a message that take one route."""

    route: Route
    positions: tuple[int, ...]
    """of the recipients in the message, in order"""


@dataclass(frozen=True, slots=True)
class UnmatchedRule:
    """A rule that didn't match, with a reason for every condition that doesn't hold."""

    rule: str
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """A route, and every rule before it, which didn't match."""

    route: Route
    earlier: tuple[UnmatchedRule, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    conditions: tuple[Condition, ...]
    route: Route


class Router:
    """The rules of a configuration, compiled. Pure: the same facts always take the same route."""

    def __init__(self, config: Config) -> None:
        lanes = config.lanes
        self._pinned = {name: Route(name, PINNED_RULE, lane.upstreams, lane.expires_s) for name, lane in lanes.items()}
        self._named = {name: replace(route, rule=API_RULE) for name, route in self._pinned.items()}
        self._rules = tuple(_Rule(conditions(rule.match), _route_of(rule, lanes[rule.lane])) for rule in config.rules)
        # What is redirected goes as one copy a message, so it isn't split.
        self._by_recipient = config.redirect is None and any(rule.match.recipient is not None for rule in config.rules)
        default = lanes[config.default_lane]
        self._default = Route(config.default_lane, None, default.upstreams, default.expires_s)

    def route(self, facts: Facts) -> Route:
        """The lane that the listener pins or the request names, else that of the first rule that matches, else the
        default lane. Raises KeyError where there is no such lane."""
        if facts.listener_lane is not None:
            return self._pinned[facts.listener_lane]
        if facts.named_lane is not None:
            return self._named[facts.named_lane]
        view = View(facts)
        for rule in self._rules:
            for condition in rule.conditions:
                if not condition.holds(view):
                    break
            else:
                return rule.route
        return self._default

    def parts(self, facts: Facts) -> Sequence[RoutedPart]:
        """The message's recipients by route, in the order of the first recipient of each. Only a rule with `recipient`
        can tell them apart: then each goes where it would go alone. Else there is one part, routed by `route`. Raises
        KeyError as `route` does."""
        count = len(facts.recipients)
        if count < 2 or not self._by_recipient or facts.listener_lane is not None or facts.named_lane is not None:
            return (RoutedPart(self.route(facts), tuple(range(count))),)
        found: dict[Route, list[int]] = {}
        for position, route in sorted(self._route_each(facts)):
            found.setdefault(route, []).append(position)
        return [RoutedPart(route, tuple(positions)) for route, positions in found.items()]

    def _route_each(self, facts: Facts) -> Iterator[tuple[int, Route]]:
        """The route of each recipient, by position. One walk over the rules: all that isn't about the recipient is
        asked once for all of them, and only while some recipient is left that the rule can match."""
        view, left = View(facts), list(range(len(facts.recipients)))
        for rule in self._rules:
            matched = left
            for condition in rule.conditions:
                if isinstance(condition, RecipientsMatch):
                    matched = [position for position in matched if condition.matches(facts.recipients[position])]
                elif not condition.holds(view):
                    matched = []
                if not matched:
                    break
            else:
                yield from ((position, rule.route) for position in matched)
                taken = set(matched)
                left = [position for position in left if position not in taken]
            if not left:
                return
        yield from ((position, self._default) for position in left)

    def demoted(self, route: Route) -> Route:
        """Where mail goes that its lane doesn't take: by the default lane, for no longer than it would have lived."""
        return replace(self._default, rule=route.rule, life_s=min(route.life_s, self._default.life_s))

    def explain(self, facts: Facts) -> Explanation:
        """As `route`, and why no earlier rule matched. Codes are redacted in the reasons."""
        route = self.route(facts)
        skips_rules = facts.listener_lane is not None or facts.named_lane is not None
        earlier = () if skips_rules else tuple(self._earlier(View(facts)))
        return Explanation(route, earlier)

    def _earlier(self, view: View) -> Iterator[UnmatchedRule]:
        for rule in self._rules:
            reasons = tuple(condition.why_not(view) for condition in rule.conditions if not condition.holds(view))
            if not reasons:
                return
            yield UnmatchedRule(rule.route.rule or "", reasons)


def _route_of(rule: Rule, lane: Lane) -> Route:
    life_s = lane.expires_s if rule.expires_s is None else min(rule.expires_s, lane.expires_s)
    return Route(rule.lane, rule.name, rule.upstreams or lane.upstreams, life_s)
