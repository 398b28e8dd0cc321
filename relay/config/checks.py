"""What a schema can't say: that names exist, that a listener isn't open to the world, that patterns compile.

Each check takes typed sections and yields findings; none reads a file (see `files`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from relay.config.check_peers import check_http, check_listener, check_upstream
from relay.config.errors import Finding, Loc, note, plain
from relay.config.model import PINNED_RULE, DkimDomain, Http, Lane, Listener, Match, Rule, Section, Upstream
from relay.config.network import AnyAddress, TcpAddress, is_host
from relay.config.parse import is_header_name
from relay.config.patterns import compiled
from relay.config.validate import absent
from relay.config.values import shown

NOT_YET: Mapping[Loc, str] = {
    ("lanes", "*", "limits"): "nothing is limited",
    ("rules", "*", "match", "content"): "the rule never matches",
}
"""Keys that are read and checked but change nothing so far, with what that means."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_NAME_WORDS = "up to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
_SELECTOR = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)


def check(data: Mapping[str, Any], sections: Mapping[Loc, Section]) -> Iterator[Finding]:
    """All checks. `data` has the names of every entry, `sections` only those entries that are well formed."""
    upstreams, lanes = _mapping(data.get("upstreams")), _mapping(data.get("lanes"))
    yield from _names("upstream", "upstreams", upstreams)
    yield from _names("lane", "lanes", lanes)
    yield from _top(data, lanes)
    for loc, section in sections.items():
        match section:
            case Listener():
                yield from check_listener(loc, section, lanes)
            case Http():
                yield from check_http(loc, section)
            case Upstream():
                yield from check_upstream(loc, section)
            case Lane():
                yield from _lane(loc, section, upstreams)
            case Rule():
                yield from _rule(loc, section, lanes, upstreams)
            case DkimDomain():
                yield from _dkim(loc, section)
    yield from _collisions(sections)
    yield from _listener_patterns(sections)
    yield from _unused(data, sections)
    yield from _not_yet(data)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(what: str, key: str, names: Collection[str]) -> Iterator[Finding]:
    """They become metric labels and parts of URLs."""
    for name in names:
        if not _NAME.fullmatch(name):
            yield Finding((key, name), f"expected the name of the {what}: {_NAME_WORDS}", at="key")


def _top(data: Mapping[str, Any], lanes: Collection[str]) -> Iterator[Finding]:
    given = data.get("default_lane")
    if isinstance(given, str) and lanes and given not in lanes:
        yield Finding(("default_lane",), absent("lane", given, lanes))
    hostname = data.get("hostname")
    # RFC 5321 4.1.1.1: EHLO says a domain or an address literal.
    if isinstance(hostname, str) and not is_host(hostname.removeprefix("[IPv6:").removeprefix("[").removesuffix("]")):
        yield Finding(("hostname",), f"expected a name such as relay.example.com, got {shown(hostname)}")


def _lane(loc: Loc, lane: Lane, upstreams: Collection[str]) -> Iterator[Finding]:
    yield from _upstream_names((*loc, "upstreams"), lane.upstreams, upstreams)
    if not lane.retry_s:
        yield Finding((*loc, "retry"), "expected at least one duration; the last one repeats until expiry")
    if lane.hedge_s is not None and len(lane.upstreams) < 2:
        yield note((*loc, "hedge"), "needs a second upstream to race; this lane has one")
    if lane.hedge_s is not None and lane.hedge_s >= lane.attempt_s:
        yield note((*loc, "hedge"), "never comes into play: attempt ends no later")


def _upstream_names(loc: Loc, names: tuple[str, ...], known: Collection[str]) -> Iterator[Finding]:
    if not names:
        yield Finding(loc, "expected at least one upstream, got none")
    for n, name in enumerate(names):
        if name not in known:
            yield Finding((*loc, n), absent("upstream", name, known))
        elif name in names[:n]:
            yield Finding((*loc, n), f"{shown(name)} is listed twice")


def _rule(loc: Loc, rule: Rule, lanes: Mapping[str, Any], upstreams: Collection[str]) -> Iterator[Finding]:
    if not _NAME.fullmatch(rule.name):
        yield Finding((*loc, "name"), f"expected a name: {_NAME_WORDS}; got {shown(rule.name)}")
    elif rule.name == PINNED_RULE:
        yield Finding((*loc, "name"), f"{PINNED_RULE} is what the log calls a listener's own lane; take another name")
    if rule.lane not in lanes:
        yield Finding((*loc, "lane"), absent("lane", rule.lane, lanes))
    if rule.upstreams is not None:
        yield from _upstream_names((*loc, "upstreams"), rule.upstreams, upstreams)
        own = _mapping(lanes.get(rule.lane)).get("upstreams", ())
        own = (own,) if isinstance(own, str) else own
        for n, name in enumerate(rule.upstreams):
            if own and name in upstreams and name not in own:
                yield note((*loc, "upstreams", n), f"isn't an upstream of lane {plain(rule.lane)}; the rule adds it")
    yield from _match((*loc, "match"), rule.match)


def _match(loc: Loc, match: Match) -> Iterator[Finding]:
    for key in ("sender", "recipient", "subject", "listener"):
        yield from _patterns((*loc, key), getattr(match, key))
    for name, patterns in (match.header or {}).items():
        if not is_header_name(name):
            yield Finding((*loc, "header", name), "expected the name of a header, such as X-Relay-Lane", at="key")
        yield from _patterns((*loc, "header", name), patterns)
    if match.header == {}:
        yield Finding((*loc, "header"), "expected at least one header, got none")
    if match.client == ():
        yield Finding((*loc, "client"), "expected at least one network, got none")


def _patterns(loc: Loc, patterns: tuple[str, ...] | None) -> Iterator[Finding]:
    if patterns == ():
        yield Finding(loc, "expected at least one pattern, got none")
    for n, pattern in enumerate(patterns or ()):
        try:
            compiled(pattern)
        except ValueError as error:
            yield Finding((*loc, n), str(error))


def _dkim(loc: Loc, entry: DkimDomain) -> Iterator[Finding]:
    if "." not in entry.domain or entry.domain.endswith(".") or not is_host(entry.domain):
        hint = "; a domain beyond ASCII is written in its xn-- form" if not entry.domain.isascii() else ""
        if entry.domain.startswith("*."):
            hint = "; the domains below it are signed too, without *."
        yield Finding((*loc, "domain"), f"expected a domain such as example.com, got {shown(entry.domain)}{hint}")
    seen: set[str] = set()
    for n, key in enumerate(entry.keys):
        if len(key.selector) > 63 or not _SELECTOR.fullmatch(key.selector):
            expected = "expected a selector of letters, digits, dashes and dots, such as s1"
            yield Finding((*loc, "keys", n, "selector"), f"{expected}, got {shown(key.selector)}")
        elif key.selector.lower() in seen:
            yield Finding((*loc, "keys", n, "selector"), f"{shown(key.selector)} is a selector of this domain already")
        seen.add(key.selector.lower())


def _collisions(sections: Mapping[Loc, Section]) -> Iterator[Finding]:
    """Things of which there may be one only."""
    rules: set[str] = set()
    domains: set[str] = set()
    addresses: dict[AnyAddress, Loc] = {}
    for loc, section in sections.items():
        match section:
            case Rule():
                if section.name in rules:
                    yield Finding((*loc, "name"), f"there is a rule {shown(section.name)} already")
                rules.add(section.name)
            case DkimDomain():
                if section.domain.lower() in domains:
                    message = f"{shown(section.domain)} stands above already; list all its keys there"
                    yield Finding((*loc, "domain"), message)
                domains.add(section.domain.lower())
            case Listener() | Http():
                where = section.address
                if where in addresses and not (isinstance(where, TcpAddress) and where.port == 0):
                    taken = "http" if addresses[where] == ("http",) else "another listener"
                    mine = loc if isinstance(section, Listener) else addresses[where]
                    taken = "http" if ("http",) in (loc, addresses[where]) else taken
                    yield Finding((*mine, "address"), f"{shown(str(where))} is taken by {taken} already")
                addresses[where] = loc


def _listener_patterns(sections: Mapping[Loc, Section]) -> Iterator[Finding]:
    """A rule about a listener that there isn't would silently never match."""
    addresses = [str(section.address) for section in sections.values() if isinstance(section, Listener)]
    for loc, section in sections.items():
        if not isinstance(section, Rule) or not addresses:
            continue
        for n, pattern in enumerate(section.match.listener or ()):
            try:
                test = compiled(pattern)
            except ValueError:
                continue  # said already
            if not any(test(address) for address in addresses):
                message = absent("listener", pattern, addresses)
                yield Finding((*loc, "match", "listener", n), message)


def _unused(data: Mapping[str, Any], sections: Mapping[Loc, Section]) -> Iterator[Finding]:
    """What nothing leads to is most likely a slip."""
    lanes = {data.get("default_lane")}
    upstreams: set[str] = set()
    for section in sections.values():
        match section:
            case Listener() | Rule():
                lanes.add(section.lane)
                upstreams.update((section.upstreams or ()) if isinstance(section, Rule) else ())
            case Lane():
                upstreams.update(section.upstreams)
    for loc, section in sections.items():
        if isinstance(section, Lane) and loc[1] not in lanes:
            yield note(loc, "no rule, listener or default_lane leads to this lane")
        if isinstance(section, Upstream) and loc[1] not in upstreams:
            yield note(loc, "no lane or rule uses this upstream")


def _not_yet(data: Mapping[str, Any]) -> Iterator[Finding]:
    for way, meaning in NOT_YET.items():
        for loc, value in _found(data, way, ()):
            if value not in (None, False) and value != {}:
                yield note(loc, f"has no effect yet: {meaning}")


def _found(value: Any, way: Loc, loc: Loc) -> Iterator[tuple[Loc, Any]]:
    """Every value that a way with `*` for any entry leads to."""
    if not way:
        yield loc, value
        return
    step, rest = way[0], way[1:]
    if step == "*":
        entries = enumerate(value) if isinstance(value, tuple) else _mapping(value).items()
        for key, entry in entries:
            yield from _found(entry, rest, (*loc, key))
    elif isinstance(value, dict) and step in value:
        yield from _found(value[step], rest, (*loc, step))
