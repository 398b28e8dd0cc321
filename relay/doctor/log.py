"""What the log says: rules that match nothing, and whether objectives are met. Read beside a running relay, and never
all of a large log: a finding says so where it is about a part."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import NamedTuple

from relay.config.feedback import Objective
from relay.config.model import API_RULE, COPY_RULE, PINNED_RULE, Config
from relay.doctor.finding import About, Finding
from relay.doctor.rules import shadowed
from relay.doctor.wording import counted, listed, moment, percent, span, took
from relay.observe.report import Line, build
from relay.store.base import StoreError
from relay.store.merge import shards
from relay.store.model import DeliveryRow
from relay.store.sqlite.newest import NEWEST, has_mail, newest_since, rules_seen
from relay.store.sqlite.reader import Reader
from relay.store.timeline import TimeLines

RULES_WITHIN_S = 0.7
"""for reading by which rules messages were routed"""
OBJECTIVE_S = 86400.0
OBJECTIVE_MESSAGES = 20_000
"""the newest ones that objectives are judged by, over all files: some 200 ms"""
ENOUGH_MESSAGES = 100
"""from so many on, a rule that matched none of them is worth a look"""
_NO_RULE = (PINNED_RULE, API_RULE, COPY_RULE)
"""what the log names where no rule is asked"""


def check(config: Config, now: float, clock: Callable[[], float] = time.monotonic) -> list[Finding]:
    """Read the files of the store, if there is one. Blocks for two seconds or so. `now`: seconds since the epoch."""
    about = About("log", str(config.store))
    try:
        if not config.store.exists():
            return []
        with ExitStack() as stack:
            paths = (config.store, *shards(config.store))
            readers = [stack.enter_context(closing(Reader.open(path))) for path in paths]
            lines = stack.enter_context(closing(TimeLines(config.store)))
            return [*_rules(config, readers, clock), *_objectives(config, readers, lines, now)]
    except (StoreError, PermissionError) as error:
        reason = str(error) if isinstance(error, StoreError) else error.strerror
        return [about.unknown(f"the log was not read: {reason}", "run doctor as the relay's user")]


# Rules


class Seen(NamedTuple):
    """By which rules the newest messages were routed."""

    messages: Mapping[str | None, int]
    since: float | None
    """when the oldest of them was accepted"""
    is_all: bool
    """it was the whole log"""

    @property
    def routed(self) -> int:
        """Messages for which the rules were asked."""
        return sum(count for rule, count in self.messages.items() if rule not in _NO_RULE)


def _rules(config: Config, readers: Sequence[Reader], clock: Callable[[], float]) -> Iterator[Finding]:
    never = {rule.name for rule, _ in shadowed(config.rules)}  # another finding's
    names = [rule.name for rule in config.rules if rule.name not in never]
    if not names:
        return
    seen = _seen(set(names), readers, clock)
    about = About("rule", "", "rule-unmatched")
    unmatched = [name for name in names if name not in seen.messages]
    if seen.since is None or not seen.routed:
        return
    of = f"{counted(seen.routed, 'message')} since {moment(seen.since)}"
    if not unmatched:
        yield about.ok("each rule matched a message of the log")
        return
    rules = f"rule{'' if len(unmatched) == 1 else 's'} {listed(unmatched)}"
    text = f"{rules} matched none of {of}" if seen.is_all else f"{rules} matched none of the newest {of}"
    if seen.routed < ENOUGH_MESSAGES:
        yield about.ok(f"{text}: too few to judge by")
    else:
        hint = "otp-relay explain FILE.eml says why a rule doesn't match; remove what isn't needed"
        yield about.warn(f"{text}{'' if seen.is_all else '; older ones were not read'}", hint)


def _seen(wanted: set[str], readers: Sequence[Reader], clock: Callable[[], float]) -> Seen:
    """Read slices of all files in turn, until each rule was seen, the log is at its end or the time is up."""
    messages: Counter[str | None] = Counter()
    since: float | None = None
    ends_at = clock() + RULES_WITHIN_S
    left: dict[Reader, str] = dict.fromkeys(readers, NEWEST)
    while left and not wanted <= messages.keys():
        for reader, before in list(left.items()):
            found = reader.ask(partial(rules_seen, before=before))
            messages.update(found.messages)
            since = min((at for at in (since, found.since) if at is not None), default=None)
            if found.before is None:
                del left[reader]
            else:
                left[reader] = found.before
            if clock() > ends_at:
                return Seen(messages, since, not left)
    return Seen(messages, since, not left)


# Objectives


def _objectives(config: Config, readers: Sequence[Reader], lines: TimeLines, now: float) -> Iterator[Finding]:
    wanted = {name: lane.objective for name, lane in config.lanes.items() if lane.objective is not None}
    if not wanted:
        return
    rows, since = _deliveries({name: one.within_s for name, one in wanted.items()}, readers, lines, now)
    report = build(rows, objectives=wanted)
    by_lane = {line.lane: line for line in report.lanes}
    for lane, objective in wanted.items():
        yield _objective(About("lane", lane, "lane-objective"), by_lane.get(lane), objective, since)


def _deliveries(
    within_s: Mapping[str, float], readers: Sequence[Reader], lines: TimeLines, now: float
) -> tuple[list[DeliveryRow], float | None]:
    """What finished of the messages accepted within OBJECTIVE_S; and where those are too many, since when the part is
    that was read."""
    day = now - OBJECTIVE_S
    having = [one for one in readers if one.ask(partial(has_mail, lanes=within_s, since=day))]
    most = OBJECTIVE_MESSAGES // max(1, len(having))
    since = max((one.ask(partial(newest_since, since=day, messages=most)) for one in having), default=day)
    events = lines.esp.path if lines.esp is not None else None
    rows = [row for one in having for found in one.delivery_slices(since, within_s, events) for row in found]
    return rows, since if since > day else None


def _objective(about: About, line: Line | None, wanted: Objective, since: float | None) -> Finding:
    aim = f"objective ({percent(wanted.share)} within {span(wanted.within_s)})"
    period = "in 24 h" if since is None else f"since {moment(since)}; older messages were not read"
    judged = line.objective if line is not None else None
    if line is None or judged is None or judged.share is None:
        return about.ok(f"{aim}: no mail {period}")
    p95 = "" if line.figures.p95_ms is None else f", p95 {took(line.figures.p95_ms)}"
    figures = f"{judged.good:,} of {counted(judged.total, 'recipient')} in time ({percent(judged.share)}){p95}"
    if judged.is_met:
        return about.ok(f"{aim} met: {figures}, {period}")
    hint = "otp-relay report says which upstream and provider are slow; otp-relay log ID, which phase"
    return about.warn(f"{aim} missed: {figures}, {period}", hint)
