"""What the demo shows: a picture for a terminal, a line for a log, a summary at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from relay.observe.bands import BANDS, Band

_BLOCKS = "▁▂▃▄▅▆▇█"
_COLOURS: dict[Band, str] = {
    "excellent": "green", "good": "chartreuse3", "acceptable": "yellow", "poor": "dark_orange", "failed": "red",
}  # fmt: skip
_STATE_COLOURS = {"up": "green", "untried": "dim", "half-open": "yellow", "down": "red"}
BACKLOG_KEPT = 48
PACE_KEPT = 24
"""bars that fit into 80 columns"""


@dataclass(frozen=True, slots=True)
class Picture:
    """One moment of the demo."""

    elapsed_s: float
    console_url: str
    lanes: Mapping[str, Mapping[str, Any]]
    """as /api/live has them"""
    backlog: Sequence[int]
    """bulk recipients that waited at the last looks, the newest last"""
    codes: int
    news: int
    failures: int


def spark(values: Sequence[float], width: int = BACKLOG_KEPT) -> str:
    """The last `width` values as bars between nothing and the greatest."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return _BLOCKS[0] * len(shown)
    return "".join(_BLOCKS[min(len(_BLOCKS) - 1, int(value / top * len(_BLOCKS)))] for value in shown)


def waiting(lane: Mapping[str, Any]) -> int:
    """Recipients of a lane that are not finished."""
    return sum(lane["queue"].values())


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def render(picture: Picture) -> RenderableType:
    """The whole picture."""
    lanes = Table(box=None, padding=(0, 2, 0, 0))
    lanes.add_column("lane", style="bold")
    for column in ("sent", "p50", "p95", "max", "waiting"):
        lanes.add_column(column, justify="right", no_wrap=True)
    lanes.add_column("time to upstream", no_wrap=True)
    for name, lane in picture.lanes.items():
        lanes.add_row(
            name,
            str(lane["sent"]),
            *(milliseconds(lane[key]) for key in ("p50_ms", "p95_ms", "max_ms")),
            str(waiting(lane)),
            Text(spark(lane["latest_ms"], PACE_KEPT), style="cyan"),
        )
    return Panel(
        Group(lanes, Text(), *(_bands(name, lane) for name, lane in picture.lanes.items()), Text(), *_rest(picture)),
        title=f"otp-relay demo, {picture.elapsed_s:.0f} s",
        subtitle="Ctrl-C ends it",
        padding=(1, 2),
    )


def _bands(name: str, lane: Mapping[str, Any]) -> Text:
    line = Text(f"{name:5} ")
    for band in BANDS:
        count = lane["bands"][band]
        line.append(f" {band} {count} ", style=_COLOURS[band] if count else "dim")
    return line


def _rest(picture: Picture) -> list[Text]:
    backlog = Text("bulk backlog  ").append(spark(picture.backlog), style="magenta")
    backlog.append(f"  {picture.backlog[-1] if picture.backlog else 0}")
    upstreams = Text("upstreams     ")
    for lane, name, state in _upstreams(picture):
        upstreams.append(f"{name} for {lane} ").append(f"{state}  ", style=_STATE_COLOURS.get(state, "red"))
    submitted = Text(f"submitted     {picture.codes} codes, {picture.news} bulk, {picture.failures} not taken")
    console = Text("console       ").append(picture.console_url, style="underline")
    return [backlog, upstreams, submitted, console]


def _upstreams(picture: Picture) -> list[tuple[str, str, str]]:
    return [
        (lane, name, health["state"])
        for lane, shown in picture.lanes.items()
        for name, health in shown["upstreams"].items()
    ]


def line(picture: Picture) -> str:
    """The same for a pipe or a log."""
    parts = [f"{picture.elapsed_s:4.0f} s"]
    for name, lane in picture.lanes.items():
        p50, p95, slowest = (milliseconds(lane[key]) for key in ("p50_ms", "p95_ms", "max_ms"))
        parts.append(f"{name}: {lane['sent']} sent, p50 {p50}, p95 {p95}, slowest {slowest}, {waiting(lane)} waiting")
    down = sorted({name for _, name, state in _upstreams(picture) if state not in ("up", "untried")})
    if down:
        parts.append(f"not up: {', '.join(down)}")
    return " | ".join(parts)


def summary(picture: Picture) -> str:
    """The last word."""
    otp, bulk = picture.lanes.get("otp"), picture.lanes.get("bulk")
    if otp is None or bulk is None:
        return "the relay was not asked in time: nothing to tell"
    bands = ", ".join(f"{otp['bands'][band]} {band}" for band in BANDS if otp["bands"][band]) or "none sent"
    p50, p95, slowest = (milliseconds(otp[key]) for key in ("p50_ms", "p95_ms", "max_ms"))
    return (
        f"{otp['sent']} codes reached their upstream (p50 {p50}, p95 {p95}, slowest {slowest}; {bands}) beside"
        f" {bulk['sent']} bulk messages sent and {waiting(bulk)} still waiting."
    )
