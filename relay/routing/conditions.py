"""The conditions of a rule, compiled once: whether each holds, and why it doesn't, where an operator asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TYPE_CHECKING, Protocol

from relay.config.model import Match
from relay.config.patterns import MAX_TEXT_CHARS, Test, compiled
from relay.mail.header_text import decoded
from relay.mail.redact import redact
from relay.routing.facts import Facts, Headers

if TYPE_CHECKING:
    from relay.mail.codes.detector import Content, Verdict

MAX_HEADER_CHARS = MAX_TEXT_CHARS
"""of all fields of one name together: a message can't make a pattern read more"""
MAX_RAW_BYTES = 32_768
"""of all fields of one name together that are decoded"""
SHOWN_CHARS = 100


class View:
    """Facts in the forms that conditions need. Each form is made when it is first needed."""

    __slots__ = ("_client", "_fields", "_values", "facts")

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        self._client: tuple[IPv4Address | IPv6Address | None] | None = None
        self._fields: Headers | None = None
        self._values: dict[str, list[str]] = {}

    @property
    def client(self) -> IPv4Address | IPv6Address | None:
        """The client's address, a mapped one as its IPv4 address; None for a client without an address."""
        # Not a cached_property, which takes a lock in Python 3.11.
        if self._client is None:
            self._client = (_ip_address(self.facts.client),)
        return self._client[0]

    def header(self, name: str) -> Sequence[str]:
        """The decoded values of the fields of that (lower-case) name, within MAX_HEADER_CHARS."""
        values = self._values.get(name)
        if values is None:
            if self._fields is None:
                self._fields = self.facts.headers() if callable(self.facts.headers) else self.facts.headers
            values = self._values[name] = _limited(value for field, value in self._fields if field == name)
        return values


def _ip_address(client: str) -> IPv4Address | IPv6Address | None:
    try:
        # A link-local address has its interface behind a percent sign.
        address = ip_address(client.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _limited(values: Iterable[str | bytes]) -> list[str]:
    """The values, decoded, as far as the limits allow."""
    result: list[str] = []
    left, raw_left = MAX_HEADER_CHARS, MAX_RAW_BYTES
    for value in values:
        if left <= 0 or raw_left <= 0:
            break
        text = decoded(value[:raw_left]) if isinstance(value, bytes) else value
        raw_left -= len(value) + 1
        result.append(text[:left])
        left -= len(text) + 1
    return result


class Condition(Protocol):
    """One key of a `match`."""

    def holds(self, view: View) -> bool: ...

    def why_not(self, view: View) -> str:
        """Why it doesn't hold: the message's value, and what the rule wants."""
        ...


@dataclass(frozen=True, slots=True)
class Patterns:
    """A list of patterns, of which any may match."""

    written: tuple[str, ...]
    tests: tuple[Test, ...]

    @classmethod
    def of(cls, written: Sequence[str]) -> Patterns:
        return cls(tuple(written), tuple(compiled(pattern) for pattern in written))

    def match_any(self, texts: Iterable[str]) -> bool:
        # Plain loops: any() over a generator costs as much as the tests themselves.
        for text in texts:
            for test in self.tests:
                if test(text):
                    return True
        return False

    def __str__(self) -> str:
        return " or ".join(self.written)


@dataclass(frozen=True, slots=True)
class PriorityAtLeast:
    least: int

    def holds(self, view: View) -> bool:
        return view.facts.priority is not None and view.facts.priority >= self.least

    def why_not(self, view: View) -> str:
        given = "the message has none" if view.facts.priority is None else f"it is {view.facts.priority}"
        return f"priority: {given}, the rule wants {self.least} or more"


@dataclass(frozen=True, slots=True)
class ContentIs:
    """What the content detector sees. The first rule that asks pays for it."""

    wanted: Content
    nothing: Verdict
    """on facts without a content"""

    @classmethod
    def of(cls, wanted: Content) -> ContentIs:
        """Loads the detector, so that no message waits for that."""
        from relay.mail.codes.detector import NOTHING, the_model

        the_model()
        return cls(wanted, NOTHING)

    def holds(self, view: View) -> bool:
        return self._verdict(view).content == self.wanted

    def why_not(self, view: View) -> str:
        verdict = self._verdict(view)
        return f"content: it is {verdict.content}: {'; '.join(verdict.explain())}"

    def _verdict(self, view: View) -> Verdict:
        examination = view.facts.examination
        return self.nothing if examination is None else examination.verdict()


@dataclass(frozen=True, slots=True)
class ListenerMatches:
    patterns: Patterns

    def holds(self, view: View) -> bool:
        return self.patterns.match_any((view.facts.listener,))

    def why_not(self, view: View) -> str:
        return f"listener: {_shown(view.facts.listener)} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class UserMatches:
    """The user of AUTH. Mail without one never matches."""

    patterns: Patterns

    def holds(self, view: View) -> bool:
        return view.facts.user is not None and self.patterns.match_any((view.facts.user,))

    def why_not(self, view: View) -> str:
        if view.facts.user is None:
            return f"user: the mail has none, the rule wants {self.patterns}"
        return f"user: {_shown(view.facts.user)} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class ClientIn:
    networks: tuple[IPv4Network | IPv6Network, ...]

    def holds(self, view: View) -> bool:
        address = view.client
        if address is None:
            return False
        for network in self.networks:  # noqa: SIM110
            if address in network:
                return True
        return False

    def why_not(self, view: View) -> str:
        wanted = " or ".join(map(str, self.networks))
        if view.client is None:
            return f"client: {_shown(view.facts.client)} has no IP address, the rule wants {wanted}"
        return f"client: {view.client} isn't in {wanted}"


@dataclass(frozen=True, slots=True)
class SenderMatches:
    """The envelope's sender, or any address of a From header."""

    patterns: Patterns

    def holds(self, view: View) -> bool:
        return self.patterns.match_any((view.facts.sender, *view.facts.from_addresses))

    def why_not(self, view: View) -> str:
        envelope = f"{view.facts.sender or '<>'} (envelope)"
        others = [f"{address} (From)" for address in view.facts.from_addresses]
        return f"sender: {_list([envelope, *others])} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class RecipientsMatch:
    """Every recipient."""

    patterns: Patterns

    def holds(self, view: View) -> bool:
        return bool(view.facts.recipients) and self._other(view) is None

    def _other(self, view: View) -> str | None:
        """The first recipient that doesn't match."""
        for address in view.facts.recipients:
            if not self.matches(address):
                return address
        return None

    def matches(self, address: str) -> bool:
        """Does it hold for a message to this recipient alone?"""
        return self.patterns.match_any((address,))

    def why_not(self, view: View) -> str:
        other = self._other(view)
        if other is None:
            return f"recipient: there is none, the rule wants {self.patterns}"
        return f"recipient: {_shown(other)} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class SubjectMatches:
    patterns: Patterns

    def holds(self, view: View) -> bool:
        return self.patterns.match_any((view.facts.subject,))

    def why_not(self, view: View) -> str:
        return f"subject: {_shown(redact(view.facts.subject))!r} isn't {self.patterns}"


@dataclass(frozen=True, slots=True)
class HeaderMatches:
    """Any field of that name."""

    name: str
    lower: str
    patterns: Patterns

    def holds(self, view: View) -> bool:
        return self.patterns.match_any([value.strip() for value in view.header(self.lower)])

    def why_not(self, view: View) -> str:
        values = view.header(self.lower)
        if not values:
            return f"header: there is no {self.name}, the rule wants {self.patterns}"
        shown = _list([repr(redact(value.strip())) for value in values])
        return f"header: {self.name} {shown} isn't {self.patterns}"


def conditions(match: Match) -> tuple[Condition, ...]:
    """The conditions of a `match`, the fastest first. Without any, the rule always matches."""
    found: list[Condition] = []
    if match.priority is not None:
        found.append(PriorityAtLeast(match.priority))
    if match.listener is not None:
        found.append(ListenerMatches(Patterns.of(match.listener)))
    if match.user is not None:
        found.append(UserMatches(Patterns.of(match.user)))
    if match.sender is not None:
        # The null sender is <> in the configuration and '' in an envelope.
        found.append(SenderMatches(Patterns.of(["" if pattern == "<>" else pattern for pattern in match.sender])))
    if match.client is not None:
        found.append(ClientIn(match.client))
    if match.subject is not None:
        found.append(SubjectMatches(Patterns.of(match.subject)))
    if match.recipient is not None:
        found.append(RecipientsMatch(Patterns.of(match.recipient)))
    found += [HeaderMatches(name, name.lower(), Patterns.of(wanted)) for name, wanted in (match.header or {}).items()]
    if match.content is not None:
        found.append(ContentIs.of(match.content))
    return tuple(found)


def _shown(text: str) -> str:
    return text if len(text) <= SHOWN_CHARS else text[:SHOWN_CHARS] + "..."


def _list(texts: Sequence[str]) -> str:
    rest = f" and {len(texts) - 5} more" if len(texts) > 5 else ""
    return ", ".join(map(_shown, texts[:5])) + rest
