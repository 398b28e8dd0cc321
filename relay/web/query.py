"""Parse the filters of a listing and the selection of an action, from the command line or a request."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast, get_args

from relay.config.event_kinds import EVENT_KINDS
from relay.config.parse import parse_duration
from relay.store.events import EventSelection
from relay.store.model import FAILED_STATES, Action, LaneCount, Selection, State
from relay.store.search_text import SearchText

STATES: frozenset[str] = frozenset(get_args(State))
ACTIONS: tuple[Action, ...] = get_args(Action)
DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000
MAX_TEXT = 1_000
"""characters of a filter"""
FILTERS = (
    "q", "to", "from", "subject", "message_id", "id", "lane", "state", "failed", "since", "until", "limit",
)  # fmt: skip
EVENT_FILTERS = ("to", "kind", "lane", "since", "limit")


_ADDRESS = re.compile(r"[^@*?]+@[^@*?]+\.[^@*?]+")
"""a whole address, by which an index finds messages; anything else is a part of one, or a glob"""
_BEGIN_OF_ID = re.compile(r"[0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{10,26}")
"""ten digits are the time in an id (ULID)"""


class BadQuery(ValueError):
    """A filter or selection that makes no sense; the text says what was expected."""


def parse_since(text: str, now: float) -> float:
    """`24h` (before `now`) or an RFC 3339 time → seconds since the epoch. Raises BadQuery."""
    with contextlib.suppress(ValueError):  # no duration: perhaps a time
        return now - parse_duration(text, None)
    return parse_time(text, "a duration such as 1h or ")


def parse_time(text: str, or_else: str = "") -> float:
    """An RFC 3339 time → seconds since the epoch; without a zone it is UTC. `or_else`: what else was expected. Raises
    BadQuery."""
    try:
        at = datetime.fromisoformat(text)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(f"expected {or_else}a time such as 2026-01-31T12:00:00Z, got {text!r}") from None


def rfc3339(at: float) -> str:
    """Seconds since the epoch as `2026-01-31T12:00:00.123Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Listing(NamedTuple):
    """What a listing asks for."""

    selection: Selection
    id_begins: str | None = None
    """A begin of ids: `by_ids` makes a selection of those that were found."""
    only_ids: bool = False
    """Where no id begins so, nothing is found; else the rest of the selection counts."""

    def by_ids(self, ids: Sequence[str]) -> Selection | None:
        """The selection with the ids that were found. None: nothing is selected."""
        if ids:
            text = self.selection.text
            return self.selection._replace(ids=tuple(ids), text=None if text is None else text._replace(anywhere=None))
        return None if self.only_ids else self.selection


def listing(given: Mapping[str, str | None], now: float) -> Listing:
    """What the FILTERS ask for. Raises BadQuery."""
    unknown = sorted(given.keys() - set(FILTERS))
    if unknown:
        raise BadQuery(f"unknown filter {unknown[0]!r}; known are {', '.join(FILTERS)}")
    since, until = given.get("since"), given.get("until")
    to, anywhere, begins = (_text(name, given.get(name)) for name in ("to", "q", "id"))
    whole = to if to is not None and _ADDRESS.fullmatch(to) else None
    sender, subject, message_id = (_text(name, given.get(name)) for name in ("from", "subject", "message_id"))
    text = SearchText(None if whole is not None else to, sender, subject, message_id, anywhere)
    selection = Selection(
        to=whole,
        lane=_text("lane", given.get("lane")),
        state=_state(given.get("state")),
        since=None if since is None else parse_since(since, now),
        until=None if until is None else parse_since(until, now),
        limit=parse_limit(given.get("limit")),
        states=FAILED_STATES if _flag("failed", given.get("failed")) else frozenset(),
        text=text if text != SearchText() else None,
    )
    if begins is None and anywhere is not None and _BEGIN_OF_ID.fullmatch(anywhere):
        return Listing(selection, anywhere.upper())
    return Listing(selection, None if begins is None else begins.upper(), only_ids=begins is not None)


def event_selection(given: Mapping[str, str | None], now: float) -> EventSelection:
    """The selection of the filters `to`, `kind`, `lane`, `since` and `limit`. Raises BadQuery."""
    unknown = sorted(given.keys() - set(EVENT_FILTERS))
    if unknown:
        raise BadQuery(f"unknown filter {unknown[0]!r}; known are {', '.join(EVENT_FILTERS)}")
    begin, kind = given.get("since"), given.get("kind")
    if kind is not None and kind not in EVENT_KINDS:
        raise BadQuery(f"kind: expected one of {', '.join(sorted(EVENT_KINDS))}, got {kind!r}")
    return EventSelection(
        to=_text("to", given.get("to")),
        kind=kind,
        lane=_text("lane", given.get("lane")),
        since=None if begin is None else parse_since(begin, now),
        limit=parse_limit(given.get("limit")),
    )


def _text(name: str, text: str | None) -> str | None:
    # A lone surrogate (a stray byte of the command line) can't be searched for.
    if text is not None and not (text and text.isprintable()):
        raise BadQuery(f"{name}: expected printable text, got {text!r}")
    if text is not None and len(text) > MAX_TEXT:
        raise BadQuery(f"{name}: expected at most {MAX_TEXT} characters, got {len(text)}")
    return text


def _flag(name: str, text: str | None) -> bool:
    if text not in (None, "", "0", "1", "false", "true"):
        raise BadQuery(f"{name}: expected 1 or 0, got {text!r}")
    return text in ("1", "true")


def parse_limit(text: str | None) -> int:
    """The number of rows of a listing. Raises BadQuery."""
    if text is None:
        return DEFAULT_LIMIT
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= MAX_LIMIT:
        raise BadQuery(f"limit: expected a number from 1 to {MAX_LIMIT}, got {text!r}")
    return int(text)


def _state(text: str | None) -> State | None:
    if text is None:
        return None
    if text not in STATES:
        raise BadQuery(f"state: expected one of {', '.join(sorted(STATES))}, got {text!r}")
    return cast("State", text)


def action_selection(body: Any, action: Action) -> Selection:
    """The messages of an action: exactly one of {"ids": [...]}, {"lane": "otp"}, {"all": true}; for `retry` also
    {"ambiguous": true}. Raises BadQuery."""
    wanted = 'expected exactly one of {"ids": ["..."]}, {"lane": "..."}, {"all": true}'
    if not isinstance(body, dict):
        raise BadQuery(wanted)
    given = dict(body)
    ambiguous = given.pop("ambiguous", False)
    if not isinstance(ambiguous, bool):
        raise BadQuery("ambiguous: expected true or false")
    if ambiguous and action != "retry":
        raise BadQuery(f"ambiguous: goes with retry, not with {action}")
    if len(given) != 1:
        raise BadQuery(wanted)
    match given:
        case {"ids": [_, *_] as ids} if all(isinstance(one, str) and one and one.isprintable() for one in ids):
            return Selection(ids=tuple(ids), ambiguous=ambiguous)
        case {"lane": str(lane)} if lane and lane.isprintable():
            return Selection(lane=lane, ambiguous=ambiguous)
        case {"all": True}:
            return Selection(ambiguous=ambiguous)
        case _:
            raise BadQuery(wanted)


def unchanged_ids(selection: Selection, changed: Collection[str]) -> list[str]:
    """The ids of the selection whose messages did not change."""
    known = frozenset(changed)
    return [one for one in dict.fromkeys(selection.ids) if one not in known]


def ambiguous_left(action: Action, selection: Selection, counts: Iterable[LaneCount]) -> int | None:
    """The number of ambiguous recipients that a retry leaves as they are. None: the action leaves none."""
    if action != "retry" or "ambiguous" in selection.states_for(action):
        return None
    return sum(row.recipients for row in counts if row.state == "ambiguous" and selection.lane in (None, row.lane))
