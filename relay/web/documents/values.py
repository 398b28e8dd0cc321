"""Values that stand in several documents."""

from __future__ import annotations

from typing import Annotated, NamedTuple


class Keywords(NamedTuple):
    """Keywords of JSON Schema, for `Annotated`."""

    pairs: tuple[tuple[str, object], ...]


def keywords(**given: object) -> Keywords:
    """Values that are hashable."""
    return Keywords(tuple(given.items()))


Time = Annotated[str, keywords(format="date-time")]
"""RFC 3339 in UTC, to the millisecond"""
Milliseconds = Annotated[float, keywords(minimum=0)]
Count = Annotated[int, keywords(minimum=0)]
Share = Annotated[float, keywords(minimum=0, maximum=1)]
