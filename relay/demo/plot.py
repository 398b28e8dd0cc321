"""The demo's plot: how long codes and bulk mail took, on one logarithmic axis. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from relay.demo.history import Point, Series

LEAST_S, MOST_S = 0.01, 600.0
TICKS_S: Mapping[float, str] = {0.01: "10 ms", 0.1: "100 ms", 1.0: "1 s", 10.0: "10 s", 60.0: "1 min", 600.0: "10 min"}
LABEL_COLUMNS = 8
MARKS: Mapping[Series, str] = {"otp": "●", "bulk": "░", "one queue": "×"}
ON_TOP: Sequence[Series] = ("one queue", "bulk", "otp")
"""the later one is shown where two fall into one cell"""


class Span(NamedTuple):
    """A piece of a line. `role` says what it is about: a series, or one of view.ROLES."""

    text: str
    role: str = ""


Line = tuple[Span, ...]


def plot(points: Iterable[Point], now_s: float, columns: int, rows: int) -> list[Line]:
    """`rows` lines with a column a second, and two more for the axis of time. The newest second is on the right, once
    the columns are full."""
    width = columns - LABEL_COLUMNS - 2
    first_s = max(0, math.floor(now_s) + 1 - width)
    cells: dict[tuple[int, int], Series] = {}
    for at_s, series, took_s in points:
        column = math.floor(at_s) - first_s
        if 0 <= column < width:
            cell = row_of(took_s, rows), column
            cells[cell] = max(cells.get(cell, series), series, key=ON_TOP.index)
    labels = {row_of(tick_s, rows): text for tick_s, text in TICKS_S.items()}
    lines: list[Line] = []
    for row in range(rows - 1, -1, -1):
        label = labels.get(row, "")
        lines.append((Span(f"{label:>{LABEL_COLUMNS}} {'┤' if label else '│'}", "axis"), *_row(cells, row, width)))
    return [*lines, *_time_axis(first_s, width)]


def row_of(took_s: float, rows: int) -> int:
    """The row of a duration, from 0 (the shortest) to `rows` - 1."""
    share = math.log(max(took_s, LEAST_S) / LEAST_S) / math.log(MOST_S / LEAST_S)
    return min(rows - 1, round(share * (rows - 1)))


def _row(cells: Mapping[tuple[int, int], Series], row: int, width: int) -> Iterable[Span]:
    """The spans of one row; neighbours of one series are one span."""
    text, role = "", ""
    for column in range(width):
        series = cells.get((row, column))
        if (series or "") != role:
            if text:
                yield Span(text, role)
            text, role = "", series or ""
        text += MARKS[series] if series else " "
    yield Span(text, role)


def _time_axis(first_s: int, width: int) -> Iterable[Line]:
    rule, labels = "", ""
    for column in range(width):
        second = first_s + column
        is_tick = second % 10 == 0
        rule += "┴" if is_tick else "─"
        if is_tick and len(labels) <= column and column + 5 < width:
            labels = f"{labels:<{column}}{clock(second)}"
    margin = " " * (LABEL_COLUMNS + 1)
    yield (Span(f"{margin}└{rule}", "axis"),)
    yield (Span(f"{margin} {labels}", "axis"),)


def clock(seconds: float) -> str:
    """`1:05`, `1:00:00`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
