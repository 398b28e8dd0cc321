from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from relay.store.ulid import IdMaker

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def decode(text: str) -> int:
    value = 0
    for character in text:
        value = value * 32 + ALPHABET.index(character)
    return value


def test_an_id_is_the_specifications_example_time_and_the_given_randomness() -> None:
    made = IdMaker().new_id(1469918176.385, bytes(range(10)))
    assert made[:10] == "01ARYZ6S41"  # from the ULID specification's README
    assert decode(made) & ((1 << 80) - 1) == int.from_bytes(range(10), "big")


@given(st.lists(st.tuples(st.floats(-5, 2e9), st.binary(min_size=10, max_size=10)), min_size=2))
def test_ids_increase_strictly_whatever_the_clock_does(moments: list[tuple[float, bytes]]) -> None:
    maker = IdMaker()
    made = [maker.new_id(now, random) for now, random in moments]
    assert all(earlier < later for earlier, later in pairwise(made))
    assert {len(each) for each in made} == {26}


@given(st.floats(0, 2e9), st.binary(min_size=10, max_size=10))
def test_an_id_tells_its_time(now: float, random: bytes) -> None:
    assert decode(IdMaker().new_id(now, random)) >> 80 == int(now * 1000)
