"""The conditions of a rule, each compiled once: whether it holds, and, when an operator asks, why it doesn't."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Protocol

from relay.config.model import Match
from relay.config.patterns import MAX_TEXT_CHARS, Test, compiled
from relay.mail.header_text import decoded
from relay.mail.redact import redact
from relay.routing.facts import Facts, Headers

MAX_HEADER_CHARS = MAX_TEXT_CHARS
"""of all fields of one name together: a message can't make a pattern look at more"""
MAX_RAW_BYTES = 32_768
"""of all fields of one name together that are decoded"""
SHOWN_CHARS = 100


class View:
    """Facts in the forms that conditions want; each is made when it is first asked for."""

    __slots__ = ("_all", "_client", "_client_known", "_headers", "facts")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._client: IPv4Address | IPv6Address | None = None
        self._client_known = False
        self._all: Headers | None = None
        self._headers: dict[str, list[str]] = {}

    def client(self) -> IPv4Address | IPv6Address | None:
        """The client's address, a mapped one as the IPv4 address it is; None for a client without one."""
        if not self._client_known:
            self._client_known = True
            try:
                # A link-local peer has its interface behind a percent sign.
                address = ip_address(self.facts.client.partition("%")[0])
            except ValueError:
                return None
            mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
            self._client = mapped or address
        return self._client

    def header(self, name: str) -> Sequence[str]:
        """The values of the fields of that (lower-case) name, as far as MAX_HEADER_CHARS reach."""
        values = self._headers.get(name)
        if values is None:
            values = self._headers[name] = _within(self._fields(name))
        return values

    def _fields(self, name: str) -> Iterable[str | bytes]:
        if self._all is None:
            self._all = self.facts.headers() if callable(self.facts.headers) else self.facts.headers
        return (value for field, value in self._all if field == name)


def _within(values: Iterable[str | bytes]) -> list[str]:
    """As many of them, decoded, as the limits let pass."""
    within: list[str] = []
    left, raw_left = MAX_HEADER_CHARS, MAX_RAW_BYTES
    for value in values:
        if left <= 0 or raw_left <= 0:
            break
        text = decoded(value[:raw_left]) if isinstance(value, bytes) else value
        raw_left -= len(value) + 1
        within.append(text[:left])
        left -= len(text) + 1
    return within


class Condition(Protocol):
    """One key of a `match`."""

    def holds(self, view: View) -> bool: ...

    def why_not(self, view: View) -> str:
        """In words, given that it doesn't hold: what was looked at, and what it was compared with."""
        ...


@dataclass(frozen=True, slots=True)
class Patterns:
    """Any of several patterns."""

    written: tuple[str, ...]
    tests: tuple[Test, ...]

    @classmethod
    def of(cls, written: Iterable[str]) -> Patterns:
        patterns = tuple(written)
        return cls(patterns, tuple(compiled(pattern) for pattern in patterns))

    def match(self, text: str) -> bool:
        # A plain loop: any() over a generator costs as much as the test itself.
        for test in self.tests:  # noqa: SIM110
            if test(text):
                return True
        return False

    def __str__(self) -> str:
        return " or ".join(self.written)


@dataclass(frozen=True, slots=True)
class Priority:
    least: int

    def holds(self, view: View) -> bool:
        return view.facts.priority is not None and view.facts.priority >= self.least

    def why_not(self, view: View) -> str:
        asked = "none was asked for" if view.facts.priority is None else f"it is {view.facts.priority}"
        return f"priority: {asked}, the rule wants {self.least} or more"


@dataclass(frozen=True, slots=True)
class Content:
    """Nothing tells codes by their content so far, so a rule that asks for it never matches."""

    kind: str

    def holds(self, view: View) -> bool:  # noqa: ARG002
        return False

    def why_not(self, view: View) -> str:  # noqa: ARG002
        return f"content: messages aren't looked into yet, so {self.kind} never matches"


@dataclass(frozen=True, slots=True)
class Listener:
    patterns: Patterns

    def holds(self, view: View) -> bool:
        return self.patterns.match(view.facts.listener)

    def why_not(self, view: View) -> str:
        return f"listener: {_shown(view.facts.listener)} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class Client:
    networks: tuple[IPv4Network | IPv6Network, ...]

    def holds(self, view: View) -> bool:
        address = view.client()
        if address is None:
            return False
        for network in self.networks:  # noqa: SIM110
            if address in network:
                return True
        return False

    def why_not(self, view: View) -> str:
        wanted = " or ".join(map(str, self.networks))
        if view.client() is None:
            return f"client: {_shown(view.facts.client)} has no IP address, the rule wants {wanted}"
        return f"client: {view.client()} isn't in {wanted}"


@dataclass(frozen=True, slots=True)
class Sender:
    """The envelope's sender, or any address of a From header."""

    patterns: Patterns

    def holds(self, view: View) -> bool:
        if self.patterns.match(view.facts.sender):
            return True
        for address in view.facts.from_addresses:  # noqa: SIM110
            if self.patterns.match(address):
                return True
        return False

    def why_not(self, view: View) -> str:
        envelope = f"{view.facts.sender or '<>'} (envelope)"
        others = [f"{address} (From)" for address in view.facts.from_addresses]
        return f"sender: {_list([envelope, *others])} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class Recipient:
    """Every recipient."""

    patterns: Patterns

    def holds(self, view: View) -> bool:
        for address in view.facts.recipients:
            if not self.patterns.match(address):
                return False
        return bool(view.facts.recipients)

    def why_not(self, view: View) -> str:
        other = next((one for one in view.facts.recipients if not self.patterns.match(one)), None)
        if other is None:
            return f"recipient: there is none, the rule wants {self.patterns}"
        return f"recipient: {_shown(other)} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class Subject:
    patterns: Patterns

    def holds(self, view: View) -> bool:
        return self.patterns.match(view.facts.subject)

    def why_not(self, view: View) -> str:
        return f"subject: {_shown(redact(view.facts.subject))!r} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class Header:
    """Any field of that name."""

    name: str
    lower: str
    patterns: Patterns

    def holds(self, view: View) -> bool:
        for value in view.header(self.lower):  # noqa: SIM110
            if self.patterns.match(value.strip()):
                return True
        return False

    def why_not(self, view: View) -> str:
        values = view.header(self.lower)
        if not values:
            return f"header: there is no {self.name}, the rule wants {self.patterns}"
        said = _list([repr(redact(value.strip())) for value in values])
        return f"header: {self.name} {said} isn't {self.patterns}"


def conditions(match: Match) -> tuple[Condition, ...]:
    """All that a `match` asks for, what is quickly answered first. An empty one asks nothing, and so holds."""
    found: list[Condition] = []
    if match.priority is not None:
        found.append(Priority(match.priority))
    if match.content is not None:
        found.append(Content(match.content))
    if match.listener is not None:
        found.append(Listener(Patterns.of(match.listener)))
    if match.sender is not None:
        # The null sender is written <> in the dialogue, and '' in here.
        found.append(Sender(Patterns.of("" if pattern == "<>" else pattern for pattern in match.sender)))
    if match.client is not None:
        found.append(Client(match.client))
    if match.subject is not None:
        found.append(Subject(Patterns.of(match.subject)))
    if match.recipient is not None:
        found.append(Recipient(Patterns.of(match.recipient)))
    found += _headers(match.header or {})
    return tuple(found)


def _headers(wanted: Mapping[str, tuple[str, ...]]) -> Iterable[Condition]:
    for name, patterns in wanted.items():
        yield Header(name, name.lower(), Patterns.of(patterns))


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def _list(texts: Sequence[str]) -> str:
    rest = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return ", ".join(map(_shown, texts[:5])) + rest
