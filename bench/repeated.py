"""Each row of a program, as often as was asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from bench.options import Options, say
from bench.process import Failed

Result = TypeVar("Result")


def repeated(
    options: Options, measure: Callable[[str], Result], line: Callable[[str, Sequence[Result]], list[str]]
) -> tuple[list[Result], int]:
    """What `measure` found of each row, and how often it raised Failed. `line`: the columns that are shown of one."""
    outcomes, failures = list[Result](), 0
    for row in options.rows:
        for _ in range(options.repeat):
            try:
                outcomes.append(measure(row))
            except Failed as failure:
                failures += 1
                say(f"{row}: FAILED: {failure}")
            else:
                say(" ".join(line(row, outcomes[-1:])))
    return outcomes, failures
