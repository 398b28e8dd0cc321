"""The chart of codes beside bulk mail: Postfix and otp-relay, p50 and p99.

The figures are those of docs/performance.md, "Beside Postfix"; a test compares them.
"""

from __future__ import annotations

from typing import NamedTuple

from tools.pictures.svg import box, document, ground, text

COMMIT = "800ddeb"
"""of the relay that was measured"""


class Times(NamedTuple):
    """Milliseconds from the app's final dot to the last byte at the upstream."""

    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.p50:g} / {self.p99:g}"


class Work(NamedTuple):
    name: str
    row: str
    """its name in docs/performance.md"""
    relay: Times
    postfix: Times


WORKS = (
    Work(
        "beside 6,000 bulk messages, 10 connections",
        "beside 6,000 bulk messages, 10 connections",
        Times(31.4, 32.6),
        Times(90, 187),
    ),
    Work(
        "beside 6,000 bulk messages, 200 connections",
        "the same, 200 bulk connections",
        Times(31.5, 35.8),
        Times(695, 1151),
    ),
    Work("while ten messages of 20 MB come in", "ten 20 MB messages", Times(31.5, 36.1), Times(79, 218)),
)
WIDTH, LEFT, RIGHT = 760, 24, 130
MOST_MS, TICK_MS = 1200, 200
GROUP, BAR = 74, 18
TOP = 84


def chart() -> str:
    height = TOP + GROUP * len(WORKS) + 62
    bottom = TOP + GROUP * len(WORKS)
    pieces = [
        ground(WIDTH, height),
        text(LEFT, 34, "How long a one-time code takes beside other mail", size=17, kind="bold"),
        text(LEFT, 56, "milliseconds from the app's final dot to the last byte at the upstream", kind="faint"),
    ]
    for tick in range(0, MOST_MS + 1, TICK_MS):
        line = f'<path d="M{_x(tick):g} {TOP - 12}V{bottom}" style="stroke:var(--frame);stroke-width:1"/>'
        pieces += [line, text(_x(tick), bottom + 18, f"{tick:,}", size=12, kind="faint", anchor="middle")]
    for at, work in enumerate(WORKS):
        y = TOP + GROUP * at
        pieces.append(text(LEFT, y + 8, work.name, kind="bold"))
        pieces += _bar(y + 16, "otp-relay", work.relay, "codes")
        pieces += _bar(y + 18 + BAR, "Postfix", work.postfix, "other")
    note = (
        f"Solid: p50, light: p99. 20 codes a second, upstream 20 ms away. Postfix 3.7, OpenDKIM, tuned. Commit {COMMIT}"
    )
    pieces.append(text(LEFT, height - 16, note, size=12, kind="faint"))
    spoken = "; ".join(f"{one.name}: otp-relay {one.relay} ms, Postfix {one.postfix} ms" for one in WORKS)
    return document(WIDTH, height, f"Codes, p50 / p99. {spoken}", "\n".join(pieces))


def _bar(y: float, name: str, times: Times, kind: str) -> list[str]:
    end = _x(times.p99)
    label = f"{name}: {times}"
    return [
        box(_x(0), y, end - _x(0), BAR, f"fill:var(--{kind});fill-opacity:.35", radius=2),
        box(_x(0), y, _x(times.p50) - _x(0), BAR, f"fill:var(--{kind})", radius=2),
        text(end + 7, y + 13.5, label, size=12.5, kind=f"{kind} bold"),
    ]


def _x(milliseconds: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * milliseconds / MOST_MS, 1)
