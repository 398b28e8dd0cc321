"""Patterns of rules match as documented, and none can stall the relay."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.model import Match
from relay.config.patterns import MAX_TEXT_CHARS, compiled
from relay.routing.conditions import View, conditions
from relay.routing.facts import Facts

LETTERS = st.text("abAB@.", max_size=12)
GLOBS = st.text("abAB@.*?", max_size=12)
PIECES = st.sampled_from(
    ["a", "b", ".", "x*", "(a|b)", "(a+)+", "(a|aa)+", "(.*)*", ".*", "[ab]", "[^a]", "a{1,30}", "(a?){20}", "^", "$"]
)
EVIL = [
    ("/^(a+)+$/", True),
    ("/(a|aa)+$/", True),
    ("/(a|a?)+$/", True),
    ("/(.*a){20}/", True),
    ("/^(([a-z])+.)+[A-Z]([a-z])+$/", False),
    ("/(x+x+)+y/", False),
    ("/(?:a|b)*a(?:a|b){300}c/", False),
    ("/(.*)*(.*)*(.*)*(.*)*(.*)*!/i", False),
    ("*a" * 60 + "!", False),
    ("*" * 900 + "!", False),
    ("?*" * 60 + "!", False),
]


@given(GLOBS, LETTERS)
@settings(max_examples=500)
def test_a_glob_matches_as_a_shell_would_but_for_case(glob: str, text: str) -> None:
    assert compiled(glob)(text) == fnmatchcase(text.lower(), glob.lower())


@given(st.text(max_size=10).filter(lambda text: not text.startswith("/") and not set("*?") & set(text)))
def test_every_character_but_star_and_question_mark_matches_itself(text: str) -> None:
    assert compiled(text)(text)
    assert not compiled(text)(text + "x")
    assert compiled(f"*{text}*" if not text.startswith("/") else text)(f"abc{text}def")


@given(
    st.text("aé[]{}()\\^$+|./-", max_size=8).filter(lambda text: not text.startswith("/")),
    st.text("aé[]\\+.", max_size=8),
)
def test_nothing_of_a_regular_expression_is_special_in_a_glob(glob: str, text: str) -> None:
    assert compiled(glob)(text) == (glob.lower() == text.lower())


@given(st.text("ab", min_size=1, max_size=6), st.text("ab", max_size=30), st.booleans())
def test_a_regular_expression_is_found_anywhere(literal: str, text: str, upper: bool) -> None:
    shown = text.upper() if upper else text
    assert compiled(f"/{literal}/i")(shown) == (literal in text)
    assert compiled(f"/{literal}/")(shown) == (literal in shown)


@given(st.lists(PIECES, min_size=1, max_size=8), st.text("ab", max_size=9))
@settings(max_examples=300, deadline=None)
def test_re2_agrees_with_the_library_that_backtracks(pieces: list[str], text: str) -> None:
    pattern = "".join(pieces)
    try:
        test = compiled(f"/{pattern}/")
        # Nested stars take the backtracking library for ever, even with nine letters.
        other = None if len(re.findall(r"\)[*+{]", pattern)) > 1 else re.compile(pattern, re.DOTALL)
    except (ValueError, re.error):
        return
    if other is not None:
        assert test(text) == (other.search(text) is not None)


@given(st.lists(PIECES, min_size=1, max_size=30), st.sampled_from(["a", "ab", "x", "é"]))
@settings(max_examples=200, deadline=None)
def test_no_combination_takes_for_ever_on_a_long_text(pieces: list[str], unit: str) -> None:
    try:
        test = compiled(f"/{''.join(pieces)}!/")
    except ValueError:
        return
    assert not test(unit * 100_000)


@pytest.mark.parametrize(("pattern", "matches"), EVIL)
def test_an_exploding_pattern_takes_linear_time(pattern: str, matches: bool) -> None:
    assert compiled(pattern)("a" * 1_000_000) is matches


@given(st.text(st.characters(exclude_categories=()), max_size=20))
def test_any_text_can_be_matched_even_lone_surrogates(text: str) -> None:
    for pattern in ("*", "/./", "é*", "a?b", "/^$/i"):
        assert compiled(pattern)(text) in (True, False)


def test_a_pattern_reads_only_the_beginning_of_a_long_text() -> None:
    text = "a" * MAX_TEXT_CHARS
    assert compiled("/b/")(text + "b") is False
    assert compiled("*b")(text + "b") is False
    assert compiled("a*")(text + "b") is True


def test_many_fields_of_one_name_share_the_limit_of_one_text() -> None:
    (condition,) = conditions(Match(header={"X-A": ("needle*",)}))

    def holds(before: int) -> bool:
        headers = (*[("x-a", "a" * 99)] * before, ("x-a", "needle" + "a" * 500))
        return condition.holds(View(Facts("", (), (), "", "", headers, "")))

    assert holds(before=MAX_TEXT_CHARS // 100 - 1)
    assert not holds(before=MAX_TEXT_CHARS // 100 + 1)


def test_a_broken_pattern_writes_nothing_to_stderr(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing"):
        compiled("/(never seen before/")
    assert capfd.readouterr().err == ""
