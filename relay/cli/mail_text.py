"""Text output of `log` and `queue`. Pure, but for the terminal's width."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from relay.cli.common import printable
from relay.cli.text import columns, cut, wrapped
from relay.observe import verdict
from relay.observe.durations import NOTHING, duration
from relay.store.model import OPEN_STATES

Json = Mapping[str, Any]
_STATE_COLUMNS = 10


def messages(found: Iterable[Json]) -> str:
    """Two lines for each message: its id, what became of it and for whom; then when, how and what."""
    return "\n".join(_message_lines(one) for one in found)


def _message_lines(one: Json) -> str:
    recipients = one["recipients"]
    how = [_lanes(one, recipients), _upstreams(recipients)]
    took = duration(one["timings_ms"].get("total"))
    about = [one["accepted_at"], *(part for part in (*how, took) if part != NOTHING), one["subject"]]
    return "\n".join((_head(one, recipients), _line("  " + "  ".join(about))))


def _head(one: Json, recipients: Sequence[Json]) -> str:
    return _line(f"{one['id']}  {_states(recipients):<{_STATE_COLUMNS}}  {_addresses(recipients)}")


def queue(found: Iterable[Json], now: float) -> str:
    """Lines for each waiting message, about its unfinished recipients."""
    return "\n".join(_queue_lines(one, now) for one in found)


def _queue_lines(one: Json, now: float) -> str:
    recipients = [recipient for recipient in one["recipients"] if recipient["state"] in OPEN_STATES]
    due = [recipient["next_at"] for recipient in recipients if recipient.get("next_at")]
    ends = (each.get("expires_at", one["expires_at"]) for each in recipients)
    times = [f"due {_when(min(due), now)}"] if due else []
    if (expires := min(ends, default=None)) is not None:
        times.append(f"expires {_when(expires, now)}")
    lines = [_head(one, recipients), _line("  " + "  ".join([_lanes(one, recipients), *times]))]
    last = next((recipient["reply"] for recipient in recipients if recipient.get("reply")), None)
    return "\n".join([*lines, *([_line(f"  {last}")] if last else [])])


def counts(rows: Iterable[tuple[str, str, int]]) -> str:
    """`otp: 3 queued, 1 deferred` for each lane. `rows`: lane, state, recipients. '' for none."""
    lanes: dict[str, list[str]] = {}
    for lane, state, recipients in sorted(rows):
        lanes.setdefault(lane, []).append(f"{recipients} {state}")
    return "\n".join(wrapped(f"{lane}: {', '.join(states)}") for lane, states in lanes.items())


def message(one: Json) -> str:
    """A message: what became of it in a sentence, then its facts, and the time line of each recipient."""
    rule = f"rule {one['rule']}" if one["rule"] else "default lane"
    fields = [
        ("from", f"{one['sender'] or '<>'}  (client {one['client']})"),
        ("subject", one["subject"]),
        ("message-id", one["message_id"]),
        ("size", f"{one['size']} bytes, {_signed(one['signed'])}"),
        ("accepted", f"{one['accepted_at']}, expires {one['expires_at']}"),
        ("times", _timings(one["timings_ms"])),
        *((name, one[name]) for name in ("content", "trace") if one.get(name)),
        *(("limited", reason) for reason in _limited(one)),
        *((name, one[name]) for name in ("hint",) if one.get(name)),
    ]
    lines = [wrapped(f"{one['id']}  {one['lane']} ({rule})"), wrapped(verdict.of_message(one), "  ", "")]
    lines += [wrapped(f"{name:<10}  {value}", "  ", " " * 12) for name, value in fields]
    for recipient in one["recipients"]:
        lines += _recipient(recipient)
    notes = (" ".join(str(value) for value in note.values()) for note in one.get("notes", ()))
    lines.extend(wrapped(f"note        {note}", "  ", " " * 12) for note in notes)
    return "\n".join(lines)


def _recipient(recipient: Json) -> list[str]:
    via = f" via {recipient['upstream']}" if recipient["upstream"] else ""
    lines = [wrapped(f"to {recipient['address']}: {recipient['state']}{via}{_part(recipient)}", "  ")]
    fields = [(name.removesuffix("_at"), recipient[name]) for name in ("sent_at", "delivered_at") if recipient[name]]
    if recipient.get("next_at"):
        fields.append(("next try", f"at {recipient['next_at']}"))
    if recipient["reply"]:
        fields.append(("reply", recipient["reply"]))
    lines += [wrapped(f"{name:<9} {value}", "    ", " " * 10) for name, value in fields]
    for attempt in recipient.get("attempts", ()):
        lines += _attempt(attempt)
    events = (event for event in recipient.get("events", ()) if event["source"] == "esp")
    return lines + [wrapped(_event(event), "    ") for event in events]


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
    return f"{event['upstream']}  {event['kind']}{permanent} after {duration(event['after_ms'])}{reason}"


def _attempt(attempt: Json) -> list[str]:
    spent_ms = sum(attempt["timings_ms"].values())
    session = "no" if attempt["session"] == "none" else attempt["session"]
    by = " by its API" if attempt.get("via") == "api" else ""
    where = f"{attempt['upstream']}{by} ({session} session)"
    return [
        wrapped(f"#{attempt['n']} {attempt['started_at']} {where}", "    "),
        wrapped(f"{attempt['outcome']} in {duration(spent_ms)} ({_timings(attempt['timings_ms'])})", "       "),
        wrapped(attempt["reply"], "       "),
    ]


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


def _when(at: str, now: float) -> str:
    """`now`, or `in 12 s`."""
    wait_s = datetime.fromisoformat(at).timestamp() - now
    return "now" if wait_s <= 0 else f"in {duration(wait_s * 1000)}"


def _line(text: str) -> str:
    """One line that fits."""
    return cut(printable(text), columns()).rstrip()
