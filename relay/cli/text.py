"""Text for a terminal: tables and wrapped lines that fit its width. Pure, but for the width."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence

from relay.cli.common import printable

LEAST_COLUMNS = 80
"""of output that goes to no terminal, too"""
MAX_CELL = 60
_NARROWEST = 8
"""columns that a table's column keeps"""


def columns() -> int:
    """How wide a line may be: `$COLUMNS`, or as wide as the terminal is; 80 at least."""
    return max(LEAST_COLUMNS, shutil.get_terminal_size((LEAST_COLUMNS, 24)).columns)


def table(
    head: Sequence[str],
    rows: Iterable[Sequence[str]],
    right: frozenset[str] = frozenset(),
    max_cell: int = MAX_CELL,
    width: int | None = None,
) -> str:
    """Columns with two blanks between them; the columns in `right` are aligned to the right. No line is wrapped.
    `max_cell`: longer values are cut to so many characters. `width`: where the table is wider, its widest columns on
    the left are cut, too."""
    cells = [[cut(value, max_cell) for value in row] for row in rows]
    widths = [max(len(row[at]) for row in (head, *cells)) for at in range(len(head))]
    if width is not None:
        _narrow(widths, [at for at, name in enumerate(head) if name not in right], width)
    lines = []
    for row in (head, *cells):
        padded = [
            value.rjust(size) if name in right else cut(value, size).ljust(size)
            for name, value, size in zip(head, row, widths, strict=True)
        ]
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines)


def _narrow(widths: list[int], cuttable: Sequence[int], width: int) -> None:
    """Take from the widest of the columns that may be cut until the table fits."""
    while sum(widths) + 2 * (len(widths) - 1) > width and cuttable:
        widest = max(cuttable, key=lambda at: widths[at])
        if widths[widest] <= _NARROWEST:
            return
        widths[widest] -= 1


def cut(value: str, most: int) -> str:
    """One printable line of so many characters at most."""
    text = printable(value)
    return text if len(text) <= most else text[: max(0, most - 1)] + "…"


def wrapped(text: str, indent: str = "", more: str = "  ", width: int | None = None) -> str:
    """A printable text on lines that fit. `indent`: of each line; `more`: added from the second line on."""
    lines = textwrap.wrap(
        printable(text),
        width or columns(),
        initial_indent=indent,
        subsequent_indent=indent + more,
        break_on_hyphens=False,
    )
    return "\n".join(lines) or indent.rstrip()
