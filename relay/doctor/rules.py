"""Rules that can never match, since a rule before them takes all that they would. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from ipaddress import IPv4Network, IPv6Network

from relay.config.model import Match, Rule
from relay.doctor.finding import About, Finding


def check(rules: Sequence[Rule]) -> Iterator[Finding]:
    """A finding for each such rule."""
    for rule, earlier in shadowed(rules):
        text = f"never matches: rule {earlier.name} before it takes all that it would match"
        yield About("rule", rule.name, "rule-shadowed").warn(text, f"remove it, or put it before {earlier.name}")


def shadowed(rules: Sequence[Rule]) -> Iterator[tuple[Rule, Rule]]:
    """Each rule that never matches, and the first one that sees to that."""
    for number, rule in enumerate(rules):
        earlier = next((one for one in rules[:number] if covers(one.match, rule.match)), None)
        if earlier is not None:
            yield rule, earlier


def covers(wide: Match, narrow: Match) -> bool:
    """Whether all that `narrow` matches is matched by `wide`, as far as their texts say: patterns are compared as they
    are written."""
    return all(_key_covers(getattr(wide, key), getattr(narrow, key)) for key in Match.model_fields)


def _key_covers(wide: object, narrow: object) -> bool:
    match wide, narrow:
        case (None, _):
            return True
        case (_, None):
            return False
        case (int(), int()):  # a priority is a least one
            return narrow >= wide
        case (dict(), dict()):
            return _headers_cover(wide, narrow)
        case (tuple(), tuple()):
            return all(_is_in(one, wide) for one in narrow)
    return wide == narrow


def _headers_cover(wide: Mapping[str, Sequence[str]], narrow: Mapping[str, Sequence[str]]) -> bool:
    """Every header of `wide` has to be asked for by `narrow`, too."""
    asked = {name.lower(): patterns for name, patterns in narrow.items()}
    return all(name.lower() in asked and set(asked[name.lower()]) <= set(patterns) for name, patterns in wide.items())


def _is_in(one: object, many: Iterable[object]) -> bool:
    if isinstance(one, IPv4Network):
        return any(isinstance(other, IPv4Network) and one.subnet_of(other) for other in many)
    if isinstance(one, IPv6Network):
        return any(isinstance(other, IPv6Network) and one.subnet_of(other) for other in many)
    return one in many
