"""Text output of `report`. Pure, but for the terminal's width."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from relay.cli.common import configured_duration, printable
from relay.cli.text import columns, table, wrapped
from relay.observe.bands import BANDS
from relay.observe.durations import NOTHING, duration
from relay.store import receive

Json = Mapping[str, Any]
_PLACE = ("LANE", "UPSTREAM", "PROVIDER")
_TIMES = ("P50", "P95", "P99")
_RATES = ("bounced", "complained", "expired", "superseded", "resent")
MAX_GROUPS = 20
"""groups of a lane in the text report; --json has them all"""


def report(document: Json) -> str:
    """The lanes: to the upstream's 250, then to the mailbox; what their apps should change; then each lane's groups.
    `document`: `observe.report.Report.as_json`."""
    lanes, lines = document["lanes"], document["lines"]
    if not lanes:
        return "nothing finished in that time"
    parts = _tables(lanes)
    parts += [_states(lane) for lane in lanes]
    parts += [_objective(lane["lane"], lane["objective"]) for lane in lanes if lane["objective"] is not None]
    parts += [_slow_receive(lane) for lane in lanes if lane["slow_receive"]]
    for lane in lanes:
        groups = [line for line in lines if line["lane"] == lane["lane"]]
        parts += _tables(groups[:MAX_GROUPS])
        if len(groups) > MAX_GROUPS:
            parts[-1] += f"\nand {len(groups) - MAX_GROUPS} more; --json has them all"
    return "\n\n".join(parts)


def _tables(lines: Sequence[Json]) -> list[str]:
    """Times to the upstream, how many were how fast, times to the mailbox, and what became of the rest."""
    bands = [band.upper() for band in BANDS]
    return [
        _table(("COUNT", *_TIMES), lines, lambda one: (str(one["recipients"]), *_times(one))),
        _table(bands, lines, lambda one: [str(one["bands"][band]) for band in BANDS]),
        _table(
            ("DELIVERED", *_TIMES), lines, lambda one: (str(one["inbox"]["delivered"]), *_times(one["inbox"]))
        ),
        _table(
            [rate.upper() for rate in _RATES], lines, lambda one: [percent(one["rates"][rate]) for rate in _RATES]
        ),
    ]  # fmt: skip


def _table(head: Sequence[str], lines: Iterable[Json], values: Callable[[Json], Iterable[str]]) -> str:
    rows = [(*_place(line), *values(line)) for line in lines]
    return table((*_PLACE, *head), rows, frozenset(head), width=columns())


def _place(line: Json) -> tuple[str, str, str]:
    if line["upstream"] is None and line["provider"] is None:
        return line["lane"], "all", "all"
    return line["lane"], line["upstream"] or NOTHING, line["provider"] or NOTHING


def _times(figures: Json) -> list[str]:
    return [duration(figures[f"{name.lower()}_ms"]) for name in _TIMES]


def _states(lane: Json) -> str:
    return wrapped(f"{lane['lane']}: {', '.join(f'{count} {state}' for state, count in lane['states'].items())}")


def percent(share: float) -> str:
    """`99.4 %`, cut off: what isn't all of it is never shown as 100 %."""
    return f"{int(share * 1000 + 1e-6) / 10:g} %"


def _objective(lane: str, objective: Json) -> str:
    within = configured_duration(round(objective["within_ms"], 3))
    target = f"{printable(lane)}: objective: {percent(objective['wanted_share'])} within {within}"
    if objective["share"] is None:
        return f"{target}: nothing to count yet"
    met = "met" if objective["met"] else "missed"
    return f"{target}: {percent(objective['share'])} of {objective['total']} ({met})"


def _slow_receive(lane: Json) -> str:
    count, of = lane["slow_receive"], lane["recipients"]
    text = (
        f"{lane['lane']}: for {count} of {of} ({100 * count / of:.0f} %) the app took more than"
        f" {receive.SLOW_MS:.0f} ms from the 354 to its final dot."
    )
    return f"{wrapped(text)}\n{wrapped(receive.ADVICE)}"
