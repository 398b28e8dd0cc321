"""Text output of `log`, `queue` and `report`: aligned tables. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from relay.cli.common import configured_duration, printable
from relay.observe.bands import BANDS
from relay.observe.durations import NOTHING, duration
from relay.store import receive
from relay.store.model import OPEN_STATES

if TYPE_CHECKING:
    from relay.observe.report import Line, Objective, Report

Json = Mapping[str, Any]
_PLACE = ("LANE", "UPSTREAM", "PROVIDER")
MAX_CELL = 60
MAX_GROUPS = 20
"""groups of a lane in the text report; --json has them all"""


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: frozenset[str] = frozenset(),
    max_cell: int = MAX_CELL,
) -> str:
    """Columns with two blanks between them; the columns in `right` are aligned to the right. No line is wrapped.
    `max_cell`: longer values are cut to so many characters."""
    cells = [head, *([_cell(value, max_cell) for value in row] for row in rows)]
    widths = [max(len(row[at]) for row in cells) for at in range(len(head))]
    lines = []
    for row in cells:
        padded = [
            value.rjust(width) if name in right else value.ljust(width)
            for name, value, width in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _cell(value: str, max_cell: int) -> str:
    text = printable(value)
    return text if len(text) <= max_cell else text[: max_cell - 1] + "…"


def messages(found: Iterable[Json]) -> str:
    """One line for each message."""
    rows = [
        (
            one["accepted_at"],
            one["id"],
            _lanes(one, one["recipients"]),
            _states(one["recipients"]),
            _upstreams(one["recipients"]),
            duration(one["timings_ms"].get("total")),
            _addresses(one["recipients"]),
            one["subject"],
        )
        for one in found
    ]
    return table(("ACCEPTED", "ID", "LANE", "STATE", "UPSTREAM", "TIME", "TO", "SUBJECT"), rows, frozenset({"TIME"}))


def queue(found: Iterable[Json], now: float) -> str:
    """One line for each waiting message, about its unfinished recipients."""
    rows = []
    for one in found:
        recipients = [recipient for recipient in one["recipients"] if recipient["state"] in OPEN_STATES]
        due = [recipient["next_at"] for recipient in recipients if recipient.get("next_at")]
        last = next((recipient["reply"] for recipient in recipients if recipient.get("reply")), None)
        rows.append(
            (
                one["id"],
                _lanes(one, recipients),
                _states(recipients),
                _time_left(min(due, default=None), now),
                _time_left(min((each.get("expires_at", one["expires_at"]) for each in recipients), default=None), now),
                _addresses(recipients),
                last or NOTHING,
            )
        )
    return table(
        ("ID", "LANE", "STATE", "DUE", "EXPIRES", "TO", "LAST REPLY"), rows, right=frozenset({"DUE", "EXPIRES"})
    )


def counts(rows: Iterable[tuple[str, str, int]]) -> str:
    """`otp: 3 queued, 1 deferred` for each lane. `rows`: lane, state, recipients. '' for none."""
    lanes: dict[str, list[str]] = {}
    for lane, state, recipients in sorted(rows):
        lanes.setdefault(lane, []).append(f"{recipients} {state}")
    return "\n".join(f"{printable(lane)}: {', '.join(states)}" for lane, states in lanes.items())


def message(one: Json) -> str:
    """The time line of a message, with all attempts."""
    rule = f"rule {one['rule']}" if one["rule"] else "default lane"
    lines = [
        f"{one['id']}  {one['lane']} ({rule})",
        f"  from        {one['sender'] or '<>'}  (client {one['client']})",
        f"  subject     {one['subject']}",
        f"  message-id  {one['message_id']}",
        f"  size        {one['size']} bytes, {_signed(one['signed'])}",
        f"  accepted    {one['accepted_at']}, expires {one['expires_at']}",
        f"  times       {_timings(one['timings_ms'])}",
    ]
    if one["content"]:
        lines.append(f"  content     {one['content']}")
    lines.extend(f"  limited     {reason}" for reason in _limited(one))
    if one.get("hint"):
        lines.append(f"  hint        {one['hint']}")
    for recipient in one["recipients"]:
        via = f" via {recipient['upstream']}" if recipient["upstream"] else ""
        lines.append(f"  to {recipient['address']}: {recipient['state']}{via}{_part(recipient)}")
        times = [name for name in ("sent_at", "delivered_at") if recipient.get(name)]
        lines.extend(f"    {name.removesuffix('_at'):9} {recipient[name]}" for name in times)
        if recipient.get("next_at"):
            lines.append(f"    next try at {recipient['next_at']}")
        if recipient["reply"]:
            lines.append(f"    reply     {recipient['reply']}")
        lines.extend(_attempt(attempt) for attempt in recipient.get("attempts", ()))
        lines.extend(_event(event) for event in recipient.get("events", ()) if event["source"] == "esp")
    notes = (" ".join(str(value) for value in note.values()) for note in one.get("notes", ()))
    lines.extend(f"  note        {note}" for note in notes)
    return "\n".join(printable(line) for line in lines)


def _part(recipient: Json) -> str:
    """Of a recipient of a split message: its lane, and the id of the part that the relay's log lines have."""
    if "part" not in recipient:
        return ""
    rule = f"rule {recipient['rule']}" if recipient["rule"] else "default lane"
    return f"  [{recipient['lane']} ({rule}), part {recipient['part']}, expires {recipient['expires_at']}]"


def _limited(one: Json) -> list[str]:
    """What limits did to the message, each once, whatever the number of its recipients."""
    events = [event for recipient in one["recipients"] for event in recipient.get("events", ())]
    return list(dict.fromkeys(event["reason"] for event in events if event["kind"] == "limited"))


def _event(event: Json) -> str:
    """What an ESP reported. The relay's own events stand in the lines above."""
    permanent = {True: " for good", False: " for now"}.get(event["permanent"], "")
    reason = f": {event['reason']}" if event["reason"] else ""
    return f"    {event['upstream']}  {event['kind']}{permanent} after {duration(event['after_ms'])}{reason}"


def report(built: Report) -> str:
    """The lanes: to the upstream's 250, then to the mailbox; what their apps should change; then each lane's groups."""
    if not built.lanes:
        return "nothing finished in that time"
    parts = [_to_the_upstream(built.lanes), _to_the_mailbox(built.lanes)]
    parts += [_objective(line.lane, line.objective) for line in built.lanes if line.objective is not None]
    parts += [_slow_receive(line) for line in built.lanes if line.figures.slow_receive]
    for lane in built.lanes:
        groups = [line for line in built.lines if line.lane == lane.lane]
        parts += [_to_the_upstream(groups[:MAX_GROUPS]), _to_the_mailbox(groups[:MAX_GROUPS])]
        if len(groups) > MAX_GROUPS:
            parts[-1] += f"\nand {len(groups) - MAX_GROUPS} more; --json has them all"
    return "\n\n".join(parts)


def _to_the_upstream(lines: Iterable[Line]) -> str:
    head = (*_PLACE, "COUNT", "P50", "P95", "P99", *(band.upper() for band in BANDS), "STATES")
    return table(head, map(_figures, lines), frozenset(head[3:-1]))


def _to_the_mailbox(lines: Iterable[Line]) -> str:
    shares = ("BOUNCED", "COMPLAINED", "EXPIRED", "SUPERSEDED", "RESENT")
    head = (*_PLACE, "DELIVERED", "P50", "P95", "P99", *shares)
    return table(head, map(_outcomes, lines), frozenset(head[3:]))


def _place(line: Line) -> tuple[str, str, str]:
    if line.upstream is None and line.provider is None:
        return line.lane, "all", "all"
    return line.lane, line.upstream or NOTHING, line.provider or NOTHING


def _outcomes(line: Line) -> tuple[str, ...]:
    inbox, rates = line.figures.inbox, line.figures.rates
    times_ms = (inbox.p50_ms, inbox.p95_ms, inbox.p99_ms)
    shares = (rates.bounced, rates.complained, rates.expired, rates.superseded, rates.resent)
    return (*_place(line), str(inbox.delivered), *map(duration, times_ms), *map(percent, shares))


def percent(share: float) -> str:
    """`99.4 %`, cut off: what isn't all of it is never shown as 100 %."""
    return f"{int(share * 1000 + 1e-6) / 10:g} %"


def _objective(lane: str, objective: Objective) -> str:
    within = configured_duration(round(objective.within_s * 1000, 3))
    target = f"{printable(lane)}: objective: {percent(objective.wanted_share)} within {within}"
    if objective.share is None:
        return f"{target}: nothing to count yet"
    met = "met" if objective.is_met else "missed"
    return f"{target}: {percent(objective.share)} of {objective.total} ({met})"


def _figures(line: Line) -> tuple[str, ...]:
    figures = line.figures
    return (
        *_place(line),
        str(figures.recipients),
        duration(figures.p50_ms),
        duration(figures.p95_ms),
        duration(figures.p99_ms),
        *(str(figures.bands[band]) for band in BANDS),
        ", ".join(f"{count} {state}" for state, count in figures.states.items()),
    )


def _slow_receive(line: Line) -> str:
    count, of = line.figures.slow_receive, line.figures.recipients
    return (
        f"{printable(line.lane)}: for {count} of {of} ({100 * count / of:.0f} %) the app took more than"
        f" {receive.SLOW_MS:.0f} ms from the 354 to its final dot.\n{receive.ADVICE}"
    )


def _attempt(attempt: Json) -> str:
    spent_ms = sum(attempt["timings_ms"].values())
    session = "no" if attempt["session"] == "none" else attempt["session"]
    by = " by its API" if attempt.get("via") == "api" else ""
    return (
        f"    #{attempt['n']} {attempt['started_at']} {attempt['upstream']}{by} ({session} session)"
        f" {attempt['outcome']} in {duration(spent_ms)} ({_timings(attempt['timings_ms'])}): {attempt['reply']}"
    )


def _timings(timings_ms: Mapping[str, float]) -> str:
    return ", ".join(f"{phase} {duration(ms)}" for phase, ms in timings_ms.items()) or NOTHING


def _signed(selectors: Sequence[str]) -> str:
    return f"signed by {', '.join(selectors)}" if selectors else "unsigned"


def _states(recipients: Sequence[Json]) -> str:
    found = Counter(recipient["state"] for recipient in recipients)
    if len(recipients) == 1:
        return str(recipients[0]["state"])
    return ", ".join(f"{count} {state}" for state, count in found.items())


def _lanes(message: Json, recipients: Iterable[Json]) -> str:
    """The message's lane, or of a split one each of these recipients' lanes."""
    return ", ".join(dict.fromkeys(recipient.get("lane", message["lane"]) for recipient in recipients))


def _upstreams(recipients: Sequence[Json]) -> str:
    return ", ".join(sorted({recipient["upstream"] for recipient in recipients if recipient["upstream"]})) or NOTHING


def _addresses(recipients: Sequence[Json]) -> str:
    first = str(recipients[0]["address"]) if recipients else NOTHING
    return first if len(recipients) <= 1 else f"{first} (+{len(recipients) - 1})"


def _time_left(at: str | None, now: float) -> str:
    """The time left until `at`; `now` if it has come."""
    if at is None:
        return NOTHING
    wait_s = datetime.fromisoformat(at).timestamp() - now
    return "now" if wait_s <= 0 else duration(wait_s * 1000)
