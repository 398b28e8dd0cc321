"""What can be a code by its shape, and what can't; whatever can be one is masked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.codes.masking import hide_codes
from relay.mail.codes.shapes import letter_shape, searchable, shapes

SHAPES = [
    ("Code: 4821", "4821", "digits"),
    ("Code 1234567890.", "1234567890", "digits"),
    ("(482913)", "482913", "digits"),
    ("482 913 is it", "482913", "grouped"),
    ("482-913", "482913", "grouped"),
    ("12 34 56", "123456", "grouped"),
    ("4821-9307", "48219307", "grouped"),
    ("4 8 2 9 1 3", "482913", "spaced"),
    ("A 7 K 2", "A7K2", "spaced"),
    ("7FK2QX", "7FK2QX", "mixed"),
    ("G-482913 is it", "G482913", "mixed"),
    ("ABCD-1234", "ABCD1234", "mixed"),
    ("验证码4821，请", "4821", "digits"),
    ("验证码4821，5分钟", "4821", "digits"),
    ("482913,10 minutes", "482913", "digits"),
    ("รหัส4821", "4821", "digits"),
]


@pytest.mark.parametrize(("line", "code", "kind"), SHAPES)
def test_a_token_has_the_shape_of_a_code(line: str, code: str, kind: str) -> None:
    assert [(shape.code, shape.kind) for shape in shapes(searchable(line))] == [(code, kind)]


NO_SHAPES = [
    "", "code", "123", "12345678901", "2026-11-29", "29-11-2026", "14:05", "1,234", "12.50", "€1234", "1234 EUR",
    "EUR 1234", "1234€", "50 %", "1234%", "ann1234@example.com", "/order/1234", "x=1234", "203.0.113.77",
    "2001:db8::a208", "Level4", "24-hour", "1234/5678", "ABCDEFG", "+49 30 1234567", "9uJhkJ1uUTGBHPfjX",
]  # fmt: skip


@pytest.mark.parametrize("line", NO_SHAPES)
def test_other_tokens_have_not(line: str) -> None:
    assert list(shapes(searchable(line))) == []


def test_the_place_of_a_shape_is_its_place_in_the_line() -> None:
    line = "Your code is 482-913."
    (shape,) = shapes(line)
    assert line[shape.start : shape.end] == "482-913"


LETTERS = [
    ("QWE-RTY", "QWERTY"),
    ("KQZVTB", "KQZVTB"), ("*KQZVTB*", "KQZVTB"), ("Code: KQZVTB", "KQZVTB"), ("Code: kQzVt", "kQzVt"),
    ("Hello", None), ("HELLO", None), ("ABC", None), ("ABCDEFGHIJK", None), ("Take KQZVTB", None), ("IMPORTANT", None),
]  # fmt: skip


@pytest.mark.parametrize(("line", "code"), LETTERS)
def test_letters_alone_are_a_code_on_a_line_of_their_own_or_behind_a_colon(line: str, code: str | None) -> None:
    shape = letter_shape(line)
    assert (None if shape is None else shape.code) == code
    if shape is not None:
        assert line[shape.start : shape.end].replace("-", "") == code


SEARCHABLE = [
    ("abc", "abc"),
    ("１２３", "123"), ("١٢٣", "123"), ("१२३", "123"), ("1️⃣2️⃣", "12"), ("①②", "12"), ("12\u200b34", "1234"),
    ("a\u00a0b", "a b"), ("e\u0301", "é"), ("ﷺ1", " 1"), ("²³", "23"), ("𝟏𝟐", "12"), ("ﬁ", "fi"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SEARCHABLE)
def test_text_is_brought_into_a_form_that_can_be_searched(text: str, expected: str) -> None:
    assert searchable(text) == expected


@given(st.text(max_size=60))
def test_a_searchable_text_stays_as_it_is(text: str) -> None:
    once = searchable(text)
    assert searchable(once) == once


TOKENS = st.text(st.sampled_from("AbKz1290 -–:.\t€/@½①²１१\u200b的ก"), max_size=40)


@given(st.one_of(TOKENS, st.text(max_size=60)))
def test_whatever_has_the_shape_of_a_code_is_masked(text: str) -> None:
    assert list(shapes(searchable(hide_codes(text)))) == []
