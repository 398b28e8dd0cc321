"""Check what a schema can't: names exist, no listener is an open relay, no password goes in clear, patterns compile.

Each check takes typed sections and yields diagnostics. None reads a file: see `files`.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from relay.config import feedback_checks, http_checks, limit_checks, upstream_checks
from relay.config.errors import Diagnostic, Loc, note, plain
from relay.config.feedback import EventReceiver, Webhooks
from relay.config.fields import Section
from relay.config.masking import shown
from relay.config.model import API_RULE, COPY_RULE, PINNED_RULE, DkimDomain, Http, Lane, Listener, Match, Rule, Upstream
from relay.config.network import AnyAddress, TcpAddress, UnixAddress, is_host, is_private
from relay.config.parse import is_header_name
from relay.config.patterns import compiled, matches_no_address
from relay.config.validate import absent

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_NAME_RULE = "up to 63 letters, digits, dots, dashes and underscores, beginning with a letter or digit"
_SELECTOR = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9])?)*"
)


def check(data: Mapping[str, Any], sections: Mapping[Loc, Section]) -> Iterator[Diagnostic]:
    """All checks. `data` has the names of every entry, `sections` only those entries that are well formed."""
    upstreams, lanes = _mapping(data.get("upstreams")), _mapping(data.get("lanes"))
    yield from _names("upstream", "upstreams", upstreams)
    yield from _names("lane", "lanes", lanes)
    yield from _top(data, lanes)
    for loc, section in sections.items():
        match section:
            case Listener():
                yield from _listener(loc, section, lanes)
            case Http():
                yield from http_checks.check(loc, section)
                yield from _senders((*loc, "senders"), section.senders)
            case Upstream():
                yield from upstream_checks.check(loc, section)
            case Lane():
                yield from _lane(loc, section, upstreams)
                is_default = loc[1] == data.get("default_lane")
                yield from limit_checks.check((*loc, "limits"), section, is_default=is_default)
            case Rule():
                yield from _rule(loc, section, lanes, upstreams)
            case DkimDomain():
                yield from _dkim(loc, section)
            case Webhooks() | EventReceiver():
                yield from feedback_checks.check(loc, section, lanes)
    yield from _sessions_of_express_lanes(sections)
    yield from _collisions(sections)
    yield from _listener_patterns(sections)
    yield from _unused(data, sections)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(what: str, key: str, names: Collection[str]) -> Iterator[Diagnostic]:
    """Names become metric labels and parts of URLs."""
    for name in names:
        if not _NAME.fullmatch(name):
            yield Diagnostic((key, name), f"expected the name of the {what}: {_NAME_RULE}", at="key")


def _top(data: Mapping[str, Any], lanes: Collection[str]) -> Iterator[Diagnostic]:
    given = data.get("default_lane")
    if isinstance(given, str) and lanes and given not in lanes:
        yield Diagnostic(("default_lane",), absent("lane", given, lanes))
    hostname = data.get("hostname")
    # RFC 5321 4.1.1.1: EHLO takes a domain or an address literal.
    if isinstance(hostname, str) and not is_host(hostname.removeprefix("[IPv6:").removeprefix("[").removesuffix("]")):
        yield Diagnostic(("hostname",), f"expected a name such as relay.example.com, got {shown(hostname)}")
    if isinstance(data.get("redirect"), str):
        yield note(("redirect",), "all mail goes to this address instead of its recipients")


def _listener(loc: Loc, listener: Listener, lanes: Collection[str]) -> Iterator[Diagnostic]:
    where = listener.address
    private = is_private(where)
    if listener.lane is not None and listener.lane not in lanes:
        yield Diagnostic((*loc, "lane"), absent("lane", listener.lane, lanes))
    if listener.tls == "none":
        for key in ("cert_file", "key_file"):
            if getattr(listener, key) is not None:
                yield Diagnostic((*loc, key), "set tls: starttls or tls: implicit, or drop this key: tls is none")
    elif missing := [key for key in ("cert_file", "key_file") if getattr(listener, key) is None]:
        yield Diagnostic((*loc, "tls"), f"tls: {listener.tls} needs {' and '.join(missing)}")
    yield from _senders((*loc, "senders"), listener.senders)
    if listener.auth == "any" and not private:
        yield Diagnostic((*loc, "auth"), "auth: any takes every password, so it is for loopback and unix sockets only")
    if listener.auth == "required" and listener.users_file is None:
        yield Diagnostic((*loc, "auth"), "auth: required needs users_file")
    if listener.auth == "required" and listener.tls == "none" and not private:
        yield Diagnostic((*loc, "auth"), "auth: required needs TLS off loopback; set tls: starttls or tls: implicit")
    if listener.auth != "required" and listener.users_file is not None:
        yield note((*loc, "users_file"), f"isn't used, as auth is {listener.auth}")
    guarded = listener.allow or (listener.auth == "required" and listener.tls != "none")
    if isinstance(where, TcpAddress) and not private and not guarded:
        yield Diagnostic(
            (*loc, "address"),
            f"{shown(str(where))} isn't loopback, and an open relay isn't wanted: "
            "name the clients' networks in allow, or set auth: required with TLS",
        )
    if any(network.prefixlen == 0 for network in listener.allow):
        yield note((*loc, "allow"), "allows every client there is")
    if isinstance(where, UnixAddress) and listener.proxy_protocol:
        yield note((*loc, "proxy_protocol"), "has no effect on a unix socket, whose clients have no address")


def _sessions_of_express_lanes(sections: Mapping[Loc, Section]) -> Iterator[Diagnostic]:
    """Each express lane needs sessions of its own at every upstream that it, or a rule that leads to it, names."""
    express = [loc[1] for loc, section in sections.items() if isinstance(section, Lane) and section.express]
    users: dict[str, set[str]] = {}
    for loc, section in sections.items():
        lane = loc[1] if isinstance(section, Lane) else section.lane if isinstance(section, Rule) else None
        if isinstance(section, Lane | Rule) and lane in express:
            for name in section.upstreams or ():
                users.setdefault(name, set()).add(str(lane))
    for loc, section in sections.items():
        if not isinstance(section, Upstream):
            continue
        sessions, lanes = section.sessions, sorted(users.get(str(loc[1]), ()))
        # With `auto` the API and the SMTP server each have connections of their own.
        needed = len(lanes) * sessions.least * (2 if section.via == "auto" else 1)
        if sessions.least <= sessions.max < needed:
            names = ", ".join(map(plain, lanes))
            each = f"the express lanes {names} need {sessions.least} each"
            yield Diagnostic((*loc, "sessions", "max"), f"expected at least {needed}, got {sessions.max}: {each}")


def _lane(loc: Loc, lane: Lane, upstreams: Collection[str]) -> Iterator[Diagnostic]:
    yield from _upstream_names((*loc, "upstreams"), lane.upstreams, upstreams)
    if not lane.retry_s:
        yield Diagnostic((*loc, "retry"), "expected at least one duration; the last one repeats until expiry")
    if lane.hedge_s is not None and lane.hedge_s >= lane.attempt_s:
        yield note(
            (*loc, "hedge"),
            f"has no effect: attempt ({lane.attempt_s:g}s) is not longer than hedge ({lane.hedge_s:g}s)",
        )
    if "copy_codes" in lane.model_fields_set and (lane.copy_to is None or not lane.express):
        why = "there is no copy_to" if lane.copy_to is None else "the lane isn't express, so its copies are whole"
        yield note((*loc, "copy_codes"), f"has no effect: {why}")
    elif lane.copy_codes:
        yield note((*loc, "copy_codes"), f"codes go to {lane.copy_to}, too")


def _upstream_names(loc: Loc, names: tuple[str, ...], known: Collection[str]) -> Iterator[Diagnostic]:
    if not names:
        yield Diagnostic(loc, "expected at least one upstream, got none")
    for n, name in enumerate(names):
        if name not in known:
            yield Diagnostic((*loc, n), absent("upstream", name, known))
        elif name in names[:n]:
            yield Diagnostic((*loc, n), f"{shown(name)} is listed twice")


def _rule(loc: Loc, rule: Rule, lanes: Mapping[str, Any], upstreams: Collection[str]) -> Iterator[Diagnostic]:
    if not _NAME.fullmatch(rule.name):
        yield Diagnostic((*loc, "name"), f"expected a name: {_NAME_RULE}; got {shown(rule.name)}")
    elif rule.name == PINNED_RULE:
        yield Diagnostic((*loc, "name"), f"the log names a listener's own lane {PINNED_RULE}; use another name")
    elif rule.name == API_RULE:
        yield Diagnostic((*loc, "name"), f"the log names the lane of an HTTP request {API_RULE}; use another name")
    elif rule.name == COPY_RULE:
        yield Diagnostic((*loc, "name"), f"the log names what goes to copy_to {COPY_RULE}; use another name")
    if rule.lane not in lanes:
        yield Diagnostic((*loc, "lane"), absent("lane", rule.lane, lanes))
    if rule.upstreams is not None:
        yield from _upstream_names((*loc, "upstreams"), rule.upstreams, upstreams)
        own = _mapping(lanes.get(rule.lane)).get("upstreams", ())
        own = (own,) if isinstance(own, str) else own
        for n, name in enumerate(rule.upstreams):
            if own and name in upstreams and name not in own:
                yield note((*loc, "upstreams", n), f"isn't an upstream of lane {plain(rule.lane)}; the rule adds it")
    yield from _match((*loc, "match"), rule.match)


def _match(loc: Loc, match: Match) -> Iterator[Diagnostic]:
    for key in ("sender", "recipient", "subject", "listener", "user"):
        yield from _patterns((*loc, key), getattr(match, key))
    for name, patterns in (match.header or {}).items():
        if not is_header_name(name):
            yield Diagnostic((*loc, "header", name), "expected the name of a header, such as X-Relay-Lane", at="key")
        yield from _patterns((*loc, "header", name), patterns)
    if match.header == {}:
        yield Diagnostic((*loc, "header"), "expected at least one header, got none")
    if match.client == ():
        yield Diagnostic((*loc, "client"), "expected at least one network, got none")


def _senders(loc: Loc, patterns: tuple[str, ...] | None) -> Iterator[Diagnostic]:
    yield from _patterns(loc, patterns)
    for n, pattern in enumerate(patterns or ()):
        if matches_no_address(pattern):
            yield note((*loc, n), f"{shown(pattern)} matches no address; a domain is *@{pattern or 'example.com'}")


def _patterns(loc: Loc, patterns: tuple[str, ...] | None) -> Iterator[Diagnostic]:
    if patterns == ():
        yield Diagnostic(loc, "expected at least one pattern, got none")
    for n, pattern in enumerate(patterns or ()):
        try:
            compiled(pattern)
        except ValueError as error:
            yield Diagnostic((*loc, n), str(error))


def _dkim(loc: Loc, entry: DkimDomain) -> Iterator[Diagnostic]:
    if "." not in entry.domain or entry.domain.endswith(".") or not is_host(entry.domain):
        hint = "; a domain beyond ASCII is written in its xn-- form" if not entry.domain.isascii() else ""
        if entry.domain.startswith("*."):
            hint = "; the domains below it are signed too, without *."
        yield Diagnostic((*loc, "domain"), f"expected a domain such as example.com, got {shown(entry.domain)}{hint}")
    seen: set[str] = set()
    for n, key in enumerate(entry.keys):
        if len(key.selector) > 63 or not _SELECTOR.fullmatch(key.selector):
            expected = "expected a selector of letters, digits, dashes and dots, such as s1"
            yield Diagnostic((*loc, "keys", n, "selector"), f"{expected}, got {shown(key.selector)}")
        elif key.selector.lower() in seen:
            yield Diagnostic((*loc, "keys", n, "selector"), f"there is a selector {shown(key.selector)} already")
        seen.add(key.selector.lower())


def _collisions(sections: Mapping[Loc, Section]) -> Iterator[Diagnostic]:
    """What may occur once only: a rule's name, a domain, a receiver, an address."""
    rules: set[str] = set()
    domains: set[str] = set()
    urls: set[str] = set()
    addresses: dict[AnyAddress, Loc] = {}
    for loc, section in sections.items():
        match section:
            case Rule():
                if section.name in rules:
                    yield Diagnostic((*loc, "name"), f"there is a rule {shown(section.name)} already")
                rules.add(section.name)
            case DkimDomain():
                if section.domain in domains:
                    message = f"{shown(section.domain)} stands above already; list all its keys there"
                    yield Diagnostic((*loc, "domain"), message)
                domains.add(section.domain)
            case EventReceiver():
                url = feedback_checks.normal(section.url)
                if url in urls:
                    yield Diagnostic((*loc, "url"), "stands above already; list all its kinds and lanes there")
                urls.add(url)
            case Listener() | Http() | Webhooks():
                yield from _taken((*loc, "address"), section.address, addresses)
                if isinstance(section, Http):
                    yield from _taken((*loc, "send_address"), section.send_address, addresses)


def _taken(loc: Loc, where: AnyAddress | None, addresses: dict[AnyAddress, Loc]) -> Iterator[Diagnostic]:
    """Keep the address of the key at `loc`, or say what has it. Ports that the system chooses differ."""
    if where is None or (isinstance(where, TcpAddress) and where.port == 0):
        return
    other = addresses.setdefault(where, loc)
    if other != loc:
        listener, first = (other, loc) if other[0] == "listen" != loc[0] else (loc, other)
        taken_by = "another listener" if first[0] == "listen" else str(first[0])
        yield Diagnostic(listener, f"{shown(str(where))} is taken by {taken_by} already")


def _listener_patterns(sections: Mapping[Loc, Section]) -> Iterator[Diagnostic]:
    """A rule about an unknown listener would silently never match."""
    addresses = [str(section.address) for section in sections.values() if isinstance(section, Listener)]
    if addresses:
        addresses += [str(section.sending.address) for section in sections.values() if isinstance(section, Http)]
    for loc, section in sections.items():
        if not isinstance(section, Rule) or not addresses:
            continue
        for n, pattern in enumerate(section.match.listener or ()):
            try:
                test = compiled(pattern)
            except ValueError:
                continue  # reported already
            if not any(test(address) for address in addresses):
                message = absent("listener", pattern, addresses)
                yield Diagnostic((*loc, "match", "listener", n), message)


def _unused(data: Mapping[str, Any], sections: Mapping[Loc, Section]) -> Iterator[Diagnostic]:
    """A lane or an upstream that nothing uses is probably a mistake."""
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
