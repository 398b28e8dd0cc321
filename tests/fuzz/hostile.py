"""Hostile inputs: a start, one or two units repeated, an end. Repetition is what costs more than linear time."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import strategies as st

from tests.fuzz.cost import FLOOR_S, GROWTH, assert_linear, cpu_s
from tests.fuzz.parsers import CORE, Parser


@dataclass(frozen=True)
class Shape:
    """`start`, then each of `units` many times, then `end`."""

    start: bytes
    units: tuple[bytes, ...]
    end: bytes

    def made(self, size_bytes: int) -> bytes:
        each = size_bytes // len(self.units)
        return self.start + b"".join(unit * max(1, each // len(unit)) for unit in self.units) + self.end


def shapes(parser: Parser) -> st.SearchStrategy[Shape]:
    token = st.one_of(st.sampled_from(CORE), st.sampled_from(parser.tokens))
    unit = st.one_of(token, st.lists(token, min_size=2, max_size=3).map(b"".join))
    units = st.one_of(st.tuples(unit), st.tuples(unit, unit))
    return st.builds(Shape, st.sampled_from(parser.starts), units, st.one_of(st.just(b""), token))


def hold(parser: Parser, shape: Shape) -> None:
    """It takes linear time, and raises only expected exceptions."""
    large = shape.made(parser.size_bytes * GROWTH)
    if cpu_s(lambda: parser.call(large), *parser.expected) > FLOOR_S:
        assert_linear(parser.call, shape.made, parser.size_bytes, *parser.expected)
