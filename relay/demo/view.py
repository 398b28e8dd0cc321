"""What the demo shows: a picture for a terminal, plain lines for everything else. Pure: from values to lines."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from relay.demo.history import BULK, CODES, FAST, SLOW, History, LaneSeen, Note, Point, UpstreamSeen
from relay.demo.plot import MARKS, Line, Span, clock, plot
from relay.observe.bands import BANDS

BURST = 50
LEAST_COLUMNS_OF_PLOT, LEAST_ROWS_OF_PLOT, MOST_ROWS_OF_PLOT = 50, 5, 25
NOTES_BESIDE_PLOT = 3
ROLES: Mapping[str, str] = {
    "otp": "32;1",
    "bulk": "36",
    "one queue": "35",
    "bad": "31;1",
    "title": "1",
    "axis": "2",
}
"""the parameters of SGR (ECMA-48 8.3.117) for each role of a span"""
_ASCII = str.maketrans("●░×┤│└┴─", "o:x||++-")


@dataclass(frozen=True, slots=True)
class Style:
    """What the terminal can show."""

    columns: int = 80
    rows: int = 24
    colour: bool = True
    unicode: bool = True
    keys: bool = True
    """keys can be pressed"""


@dataclass(frozen=True, slots=True)
class Moment:
    """All that one picture shows."""

    now_s: float
    url: str
    points: Sequence[Point]
    notes: Sequence[Note]
    lanes: Mapping[str, LaneSeen]
    upstreams: Mapping[str, UpstreamSeen]
    one_queue_s: float | None
    """what the last code would have taken in one queue for all"""
    ahead: int
    """bulk messages that it would have waited for"""
    rate_per_s: float | None
    """how many of them the slow upstream is tried with a second"""
    is_fast_killed: bool = False
    is_slow_in_hiccup: bool = False


def moment(history: History, now_s: float, url: str, *, is_fast_killed: bool, is_slow_in_hiccup: bool) -> Moment:
    """The picture's values, from what was seen so far."""
    return Moment(
        now_s=now_s,
        url=url,
        points=tuple(history.points),
        notes=tuple(history.notes),
        lanes={name: history.lane(name) for name in (CODES, BULK)},
        upstreams={name: history.upstream(name, now_s) for name in (FAST, SLOW)},
        one_queue_s=history.one_queue_last_s(),
        ahead=history.one_queue.ahead,
        rate_per_s=history.one_queue.rate_per_s,
        is_fast_killed=is_fast_killed,
        is_slow_in_hiccup=is_slow_in_hiccup,
    )


def picture(now: Moment, style: Style) -> list[str]:
    """The lines of a screen, `style.rows` at most, each with `style.columns` columns at most."""
    head: list[Line] = [_head(now, style)]
    lanes: list[Line] = [
        _lane("otp", "codes", now.lanes[CODES]),
        _lane("bulk", "bulk", now.lanes[BULK]),
        _one_queue(now),
    ]
    upstreams: list[Line] = [_upstream(name, now) for name in (FAST, SLOW)]
    keys: list[Line] = [_keys(now)] if style.keys else []
    left = style.rows - len(head) - len(lanes) - len(upstreams) - len(keys)
    plotted: list[Line] = []
    rows = left - NOTES_BESIDE_PLOT - 3  # its title, and the axis of time
    if style.columns >= LEAST_COLUMNS_OF_PLOT and rows >= LEAST_ROWS_OF_PLOT:
        title = "How long each mail took: codes and bulk on one axis, a column is a second"
        plotted = [(Span(title, "title"),), *plot(now.points, now.now_s, style.columns, min(rows, MOST_ROWS_OF_PLOT))]
        left -= len(plotted)
    shown = [_note(one) for one in now.notes[-max(0, left) :]] if left > 0 else []
    body = [*head, *plotted, *lanes, *upstreams, *shown]
    filler: list[Line] = [()] * (style.rows - len(body) - len(keys))
    return [render(line, style) for line in [*body, *filler, *keys]][: style.rows]


def render(line: Line, style: Style) -> str:
    """A line as the terminal gets it, cut at its last column."""
    left, pieces = style.columns, []
    for text, role in line:
        shown = text[:left] if style.unicode else text[:left].translate(_ASCII)
        left -= len(shown)
        code = ROLES.get(role) if style.colour and shown.strip() else None
        pieces.append(shown if code is None else f"\x1b[{code}m{shown}\x1b[0m")
    return "".join(pieces)


def _head(now: Moment, style: Style) -> Line:
    name, time = "otp-relay demo  ", clock(now.now_s)
    room = max(0, style.columns - len(name) - len(time) - 1)
    return Span(name, "title"), Span(f"{f'console: {now.url}':<{room}.{room}} "), Span(time, "title")


def _lane(series: str, name: str, lane: LaneSeen) -> Line:
    mark = MARKS["otp"] if series == "otp" else MARKS["bulk"]
    times = f"median {duration(lane.median_s)}, last {duration(lane.last_s)}, slowest {duration(lane.slowest_s)}"
    return Span(f"{mark} {name:<6}", series), Span(f"{lane.sent:,} sent, {lane.waiting:,} waiting: {times}")


def _one_queue(now: Moment) -> Line:
    mark = Span(f"{MARKS['one queue']} ", "one queue")
    if now.one_queue_s is None or now.rate_per_s is None:
        return mark, Span("one queue for all: measuring how fast the slow upstream is")
    would = f"one queue for all would have taken {duration(now.one_queue_s)}"
    return mark, Span(would, "one queue"), Span(f" ({now.ahead:,} ahead at {now.rate_per_s:.0f}/s)")


def _upstream(name: str, now: Moment) -> Line:
    seen = now.upstreams[name]
    word, role, rest = "up", "", ""
    if name == FAST and seen.state in ("down", "half-open"):
        word, role, rest = "DOWN", "bad", "fast is down: codes go by slow"
    elif name == FAST and now.is_fast_killed:
        word, role, rest = "killed", "bad", "its connections are dropped"
    elif name == SLOW and now.is_slow_in_hiccup:
        word, role, rest = "hiccup", "bad", "refuses the newsletter (451)"
    if not rest:
        rest = f"{seen.refused:,} refused with 4xx" if seen.refused else ""
    rates = f"{seen.codes_per_s:4.1f} codes/s {seen.bulk_per_s:5.1f} bulk/s  "
    return Span(f"  {name:<6}", "title"), Span(f"{word:<7}", role), Span(rates), Span(rest, role)


def _note(note: Note) -> Line:
    return Span(f"{clock(note.at_s):>7} ", "axis"), Span(note.text, "bad" if note.is_bad else "")


def _keys(now: Moment) -> Line:
    kill = "revive fast" if now.is_fast_killed else "kill fast"
    return (
        *(Span("k", "title"), Span(f" {kill}   ")),
        *(Span("b", "title"), Span(f" burst of {BURST} codes   ")),
        *(Span("q", "title"), Span(" quit")),
    )


def line(now: Moment) -> str:
    """The picture's figures as one plain line."""
    parts = [f"{now.now_s:4.0f} s"]
    for name, lane in now.lanes.items():
        times = f"median {duration(lane.median_s)}, slowest {duration(lane.slowest_s)}"
        parts.append(f"{name}: {lane.sent} sent, {times}, {lane.waiting} waiting")
    if now.one_queue_s is not None:
        parts.append(f"one queue for all would have taken {duration(now.one_queue_s)}")
    down = [name for name, seen in now.upstreams.items() if seen.state not in ("up", "untried")]
    if down:
        parts.append(f"not up: {', '.join(down)}")
    return " | ".join(parts)


def note_line(note: Note) -> str:
    """A note as a plain line."""
    return f"{note.at_s:4.0f} s | {note.text}"


def summary(history: History) -> list[str]:
    """The last lines of the demo."""
    codes, bulk = history.lane(CODES, latest=None), history.lane(BULK, latest=None)
    bands = ", ".join(f"{history.bands[one]} {one}" for one in BANDS if history.bands[one]) or "none sent"
    times = f"p50 {duration(codes.median_s)}, slowest {duration(codes.slowest_s)}; {bands}"
    last = (
        f"{codes.sent} codes reached their upstream ({times})"
        f" beside {bulk.sent} bulk messages sent and {bulk.waiting} still waiting."
    )
    if (would_take_s := history.one_queue_median_s()) is None:
        return [last]
    return [f"In one queue for all, the median code would have taken {duration(would_take_s)}.", last]


def duration(seconds: float | None) -> str:
    """`31 ms`, `4.2 s`, `74 s`, `3 min 20 s`; `-` for None."""
    if seconds is None:
        return "-"
    steps: Sequence[tuple[float, Callable[[float], str]]] = (
        (0.9995, lambda s: f"{s * 1000:.0f} ms"),
        (9.95, lambda s: f"{s:.1f} s"),
        (119.5, lambda s: f"{s:.0f} s"),
    )
    for below_s, show in steps:
        if seconds < below_s:
            return show(seconds)
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"
