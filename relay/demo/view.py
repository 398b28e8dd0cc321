"""The demo's output: a line a second, and a summary at the end. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from relay.observe.bands import BANDS

Lanes = Mapping[str, Mapping[str, Any]]
"""`lanes` of /api/live"""


def line(elapsed_s: float, lanes: Lanes) -> str:
    """Delivery times and backlog of each lane, and the upstreams that are down."""
    parts = [f"{elapsed_s:4.0f} s"]
    for name, lane in lanes.items():
        parts.append(f"{name}: {lane['sent']} sent, {_times(lane)}, {_waiting(lane)} waiting")
    down = {
        upstream
        for lane in lanes.values()
        for upstream, health in lane["upstreams"].items()
        if health["state"] not in ("up", "untried")
    }
    if down:
        parts.append(f"not up: {', '.join(sorted(down))}")
    return " | ".join(parts)


def summary(lanes: Lanes) -> str:
    """The last line of the demo."""
    otp, bulk = lanes["otp"], lanes["bulk"]
    bands = ", ".join(f"{otp['bands'][band]} {band}" for band in BANDS if otp["bands"][band]) or "none sent"
    return (
        f"{otp['sent']} codes reached their upstream ({_times(otp)}; {bands}) beside"
        f" {bulk['sent']} bulk messages sent and {_waiting(bulk)} still waiting."
    )


def _times(lane: Mapping[str, Any]) -> str:
    p50, p95, slowest = (_milliseconds(lane[key]) for key in ("p50_ms", "p95_ms", "max_ms"))
    return f"p50 {p50}, p95 {p95}, slowest {slowest}"


def _waiting(lane: Mapping[str, Any]) -> int:
    """Recipients of a lane that are not finished."""
    return sum(lane["queue"].values())


def _milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"
