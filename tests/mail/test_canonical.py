"""Relaxed canonicalisation, compared with dkimpy and with the examples of RFC 6376."""

from __future__ import annotations

import hashlib

import pytest
from dkim.canonicalization import Relaxed
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.canonical import BodyHash, relaxed_field

lines = st.lists(st.sampled_from([b"", b" ", b"\t", b"a", b"\xc3\xa4", b"a b", b"  "]), max_size=5).map(b"".join)
bodies = st.lists(lines, max_size=12).map(lambda some: b"".join(line + b"\r\n" for line in some))


def body_hash(body: bytes, slice_bytes: int = 1000) -> bytes:
    return BodyHash(b"A: 1\r\n\r\n" + body, 8, slice_bytes).digest()


@given(bodies, st.integers(1, 20))
def test_the_body_hash_is_that_of_dkimpys_body_in_slices_of_any_size(body: bytes, slice_bytes: int) -> None:
    theirs: bytes = Relaxed.canonicalize_body(body)  # type: ignore[no-untyped-call]
    assert body_hash(body, slice_bytes) == hashlib.sha256(theirs).digest()


values = st.lists(st.sampled_from([b" ", b"\t", b"\r\n ", b"\r\n\t", b"a", b"B:", b"\xc3\xa4"]), max_size=10).map(
    b"".join
)


@given(st.sampled_from([b"from", b"subject"]), values)
def test_a_field_is_what_dkimpy_makes_of_it(name: bytes, value: bytes) -> None:
    [(their_name, their_value)] = Relaxed.canonicalize_headers([(name, value + b"\r\n")])  # type: ignore[no-untyped-call]
    assert relaxed_field(name, value) + b"\r\n" == their_name + b":" + their_value


def test_the_example_of_rfc_6376_3_4_5() -> None:
    assert relaxed_field(b"a", b" X") == b"a:X"
    assert relaxed_field(b"b", b" Y\t\r\n\tZ  ") == b"b:Y Z"
    assert body_hash(b" C \r\nD \t E\r\n\r\n\r\n") == hashlib.sha256(b" C\r\nD E\r\n").digest()


@pytest.mark.parametrize("body", [b"", b"\r\n", b"\r\n\r\n", b" \r\n\t\r\n"])
def test_an_empty_body_is_nothing(body: bytes) -> None:
    assert body_hash(body) == hashlib.sha256(b"").digest()


def test_a_body_without_a_last_line_end_gets_one() -> None:
    assert body_hash(b"a") == body_hash(b"a \t") == hashlib.sha256(b"a\r\n").digest()


def test_a_body_can_be_hashed_step_by_step() -> None:
    hashing = BodyHash(b"\r\n" + b"abc\r\n" * 100, 2, 50)
    steps = 0
    while hashing.step():
        steps += 1
    assert 9 <= steps <= 10
    assert hashing.digest() == hashing.digest() == hashlib.sha256(b"abc\r\n" * 100).digest()


@pytest.mark.parametrize(
    "body",
    [
        b" " * 2_000_000 + b"x\r\n",
        b" " * 2_000_000,
        b"\t " * 400_000 + b"\r\n",
        b"x \r\n" * 400_000,
        b"\r\n" * 400_000,
        b"\r\n" * 400_000 + b"x\r\n",
        b" \r\n" * 300_000,
        b"x  y\t" * 400_000 + b"\r\n",
    ],
    ids=["blanks", "only blanks", "tabs", "ends", "empty lines", "empty lines, then text", "blank lines", "pairs"],
)
def test_hostile_bodies_take_linear_time(body: bytes) -> None:
    # The suite's time-out ends a quadratic one: dkimpy's pattern would need hours for two million blanks.
    words = [b" ".join(line.split()) if line.strip() else b"" for line in body.split(b"\r\n")]
    # A leading blank stays, as one.
    expected = b"\r\n".join(
        (b" " if line[:1] in (b" ", b"\t") and word else b"") + word
        for line, word in zip(body.split(b"\r\n"), words, strict=True)
    )
    expected = expected.rstrip(b"\r\n")
    assert body_hash(body, 131_072) == hashlib.sha256(expected + b"\r\n" if expected else b"").digest()


@given(st.binary(min_size=1, max_size=300))
def test_text_without_blanks_is_hashed_as_it_is(raw: bytes) -> None:
    body = raw.hex().encode() + b"\r\n"
    assert body_hash(body, 16) == hashlib.sha256(body).digest()
