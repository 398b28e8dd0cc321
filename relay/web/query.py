"""A listing's filters and an action's selection as an operator writes them, on the command line or in a request."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, cast, get_args

from relay.config.parse import parse_duration
from relay.store.model import Action, LaneCount, Selection, State

STATES: frozenset[str] = frozenset(get_args(State))
ACTIONS: tuple[Action, ...] = get_args(Action)
DEFAULT_LIMIT = 100
MAX_LIMIT = 10_000
FILTERS = ("to", "lane", "state", "since", "limit")


class BadQuery(ValueError):
    """Not what was expected; the text says what was."""


def since(text: str, now: float) -> float:
    """`24h` (so long before `now`) or an RFC 3339 time → seconds since the epoch. Raises BadQuery."""
    with contextlib.suppress(ValueError):  # then it is a point in time, or neither
        return now - parse_duration(text, None)
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise BadQuery(f"expected a duration such as 1h or a time such as 2026-01-31T12:00:00Z, got {text!r}") from None
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()


def rfc3339(at: float) -> str:
    """Seconds since the epoch as `2026-01-31T12:00:00.123Z`."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def listing(given: Mapping[str, str | None], now: float) -> Selection:
    """The selection that the filters `to`, `lane`, `state`, `since` and `limit` make. Raises BadQuery."""
    unknown = sorted(given.keys() - set(FILTERS))
    if unknown:
        raise BadQuery(f"unknown filter {unknown[0]!r}; known are {', '.join(FILTERS)}")
    begin = given.get("since")
    return Selection(
        to=_word("to", given.get("to")),
        lane=_word("lane", given.get("lane")),
        state=_state(given.get("state")),
        since=None if begin is None else since(begin, now),
        limit=_limit(given.get("limit")),
    )


def _word(name: str, text: str | None) -> str | None:
    # A lone surrogate (a stray byte of the command line) is nothing the store could look for.
    if text is not None and not (text and text.isprintable()):
        raise BadQuery(f"{name}: expected printable text, got {text!r}")
    return text


def _limit(text: str | None) -> int:
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


def target(body: Any, action: Action) -> Selection:
    """What an action is on: exactly one of {"ids": [...]}, {"lane": "otp"}, {"all": true}; beside it, for `retry`,
    {"ambiguous": true}. Raises BadQuery."""
    wanted = 'expected exactly one of {"ids": ["..."]}, {"lane": "..."}, {"all": true}'
    if not isinstance(body, dict):
        raise BadQuery(wanted)
    given = dict(body)
    ambiguous = given.pop("ambiguous", False)
    if not isinstance(ambiguous, bool) or (ambiguous and action != "retry"):
        raise BadQuery(f"ambiguous: expected true or false, and goes with retry; the action is {action}")
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


def leaves_ambiguous(action: Action, selection: Selection) -> bool:
    """Does the action pass over what an upstream may have taken already?"""
    return action == "retry" and "ambiguous" not in selection.states_for(action)


def unchanged(selection: Selection, changed: Collection[str]) -> list[str]:
    """The ids that were given, but for those of messages that changed."""
    known = frozenset(changed)
    return [one for one in dict.fromkeys(selection.ids) if one not in known]


def left(counts: Iterable[LaneCount], selection: Selection) -> int:
    """How many ambiguous recipients the selection has."""
    return sum(row.recipients for row in counts if row.state == "ambiguous" and selection.lane in (None, row.lane))
