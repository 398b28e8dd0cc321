"""What goes again to an upstream that knows idempotency keys: pure.

An answer that didn't come leaves the outcome unknown. Where the upstream knows the request by its key, the same request
goes there again, before anything goes elsewhere, and the outcome becomes known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from relay.config.model import Lane
from relay.delivery.message import Pending
from relay.delivery.verdict import Verdict
from relay.mail.reply import Reply
from relay.store.model import Repeat
from relay.upstream.attempt import Report
from relay.upstream.base import Upstream
from relay.upstream.gate import LOST_RACE

EXPRESS_FOR_S = 30.0
"""A code that is later is a lost sign-up: from then on `on_ambiguous` decides."""
SPARE_S = 60.0
"""so long before the upstream forgets a key, it is used no more"""


class Turn(NamedTuple):
    """Recipients that the same ways are asked for."""

    positions: tuple[int, ...]
    ways: tuple[Upstream, ...]


def turns(pending: Iterable[Pending], ways: Sequence[Upstream], now: float) -> Iterator[Turn]:
    """Which ways are asked for which recipients. `now`: seconds since the epoch."""
    found: dict[tuple[str | None, tuple[Upstream, ...]], list[int]] = {}
    for one in pending:
        key = None if one.repeat is None else one.repeat.key
        found.setdefault((key, tuple(_ways_of(one, ways, now))), []).append(one.open.position)
    for (_, of_these), positions in found.items():
        yield Turn(tuple(positions), of_these)


def _ways_of(one: Pending, ways: Sequence[Upstream], now: float) -> Sequence[Upstream]:
    if one.repeat is None:
        # Where the process ended meanwhile, an upstream that knows the request may have it: to ask it first is safe.
        return sorted(ways, key=lambda way: not way.repeats_for_s) if one.open.crashed else ways
    first = [way for way in ways if way.name == one.repeat.upstream and way.repeats_for_s]
    if now < one.repeat.until:
        return first
    # By its policy it goes elsewhere, but the upstream that can say what became of it is asked before.
    return [*first, *(way for way in ways if way.name != one.repeat.upstream)]


def wait(pending: Pending) -> None:
    """The upstream that may have it can't be asked now, and nothing else may be."""
    if pending.repeat is not None:
        reply = Reply.own(451, "4.4.1", f"waits for {pending.repeat.upstream}, which may have it and is down")
        pending.last, pending.upstream = str(reply), pending.repeat.upstream
        pending.is_unknown, pending.unsupported_everywhere = True, False


def ways_after(
    report: Report, ways: Sequence[Upstream], repeated: set[Upstream], *, is_to_repeat: bool
) -> list[Upstream]:
    """The ways that are left after an attempt. `repeated`: those that were asked a second time already. `is_to_repeat`:
    recipients of it have a `Repeat`."""
    if all(result.reply == LOST_RACE for result in report.results):
        return list(ways)
    asked = next((way for way in ways if (way.name, way.via) == (report.upstream, report.via)), None)
    unknown = any(result.outcome == "ambiguous" for result in report.results)
    if not unknown:
        return [way for way in ways if way is not asked]
    if is_to_repeat and report.may_be_repeated and asked is not None:
        # Once more at once; then at the ladder's next step.
        first = [] if asked in repeated else [asked]
        repeated.add(asked)
        return first
    # Another way to the same upstream would send it twice.
    return [way for way in ways if way.name != report.upstream]


def after(before: Repeat | None, report: Report, verdict: Verdict, now: float, lane: Lane) -> Repeat | None:
    """What is to be repeated behind an attempt. `now`: seconds since the epoch."""
    if report.may_be_repeated and verdict is Verdict.UNKNOWN:
        if before is not None and before.upstream == report.upstream:
            return before if now < before.until else None
        left_s = report.knows_for_s - SPARE_S
        until = now + (min(EXPRESS_FOR_S, left_s) if lane.express else left_s)
        return Repeat(report.upstream, until, report.key)
    # A refusal for now says nothing of the request before.
    said_nothing = verdict in (Verdict.TRY_NEXT, Verdict.UNSUPPORTED, Verdict.WITHDRAWN)
    return before if said_nothing and before is not None and now < before.until else None
