"""Header fields that an upstream sets or removes on what goes out by it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.message import parse
from relay.mail.setting import Setting, taken_out, with_fields

MAIL = b"From: a@example.com\r\nX-Tag: one\r\nSubject: hi\r\nx-tag: two\r\n folded\r\n\r\nbody\r\n"


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ([("X-Stream", "codes")], MAIL.replace(b"\r\n\r\n", b"\r\nX-Stream: codes\r\n\r\n")),
        ([("X-TAG", "new")], b"From: a@example.com\r\nX-TAG: new\r\nSubject: hi\r\n\r\nbody\r\n"),
        ([("X-Tag", None)], b"From: a@example.com\r\nSubject: hi\r\n\r\nbody\r\n"),
        ([("X-None", None)], MAIL),
        ([("X-Tag", None), ("X-Tag", "back")], b"From: a@example.com\r\nSubject: hi\r\nX-Tag: back\r\n\r\nbody\r\n"),
    ],
    ids=["added behind all others", "in place of the first", "removed", "not there", "in order"],
)
def test_a_field_is_set_or_removed_and_nothing_else_changes(settings: list[Setting], expected: bytes) -> None:
    assert with_fields(MAIL, settings) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"body only\r\n", b"X-A: 1\r\n\r\nbody only\r\n"),
        (b"\r\nbody\r\n", b"X-A: 1\r\n\r\nbody\r\n"),
        (b"", b"X-A: 1\r\n\r\n"),
        (b"Subject: x\r\n", b"Subject: x\r\nX-A: 1\r\n"),
        (b" folded first\r\nSubject: x\r\n\r\nb\r\n", b" folded first\r\nSubject: x\r\nX-A: 1\r\n\r\nb\r\n"),
    ],
)
def test_a_message_without_a_plain_header_section_keeps_its_body(content: bytes, expected: bytes) -> None:
    assert with_fields(content, [("X-A", "1")]) == expected


def test_a_long_value_is_folded_at_its_spaces() -> None:
    [line, *others] = with_fields(b"\r\n", [("X-Long", "word " * 40 + "end")]).split(b"\r\n")[:4]
    assert all(len(one) <= 78 for one in (line, *others))
    assert others[0].startswith(b" word")


def test_what_an_api_has_parameters_for_is_taken_out_with_its_values() -> None:
    content, found = taken_out(MAIL, frozenset({"x-tag", "x-none"}))
    assert content == b"From: a@example.com\r\nSubject: hi\r\n\r\nbody\r\n"
    assert found == {"x-tag": ("one", "two folded")}
    assert taken_out(content, frozenset({"x-tag"})) == (content, {})


NAMES = st.sampled_from(["X-Tag", "Subject", "From", "X-New"])
VALUES = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
LINES = st.lists(st.sampled_from([b"X-Tag: 1\r\n", b"Subject: s\r\n", b" folded\r\n", b"junk\r\n", b"From: f\r\n"]))


@given(head=LINES, body=st.binary(max_size=40), name=NAMES, value=VALUES)
def test_whatever_the_message_the_field_is_read_once_and_the_rest_stays(
    head: list[bytes], body: bytes, name: str, value: str
) -> None:
    content = b"From: first\r\n" + b"".join(head) + b"\r\n" + body
    made = with_fields(content, [(name, value)])
    fields = [field for field in parse(made).fields if field.name == name.lower()]
    assert [field.value.strip() for field in fields] == [value.encode()]
    assert made.endswith(b"\r\n" + body)
    others = [field.value for field in parse(content).fields if field.name not in ("", name.lower())]
    assert [field.value for field in parse(made).fields if field.name not in ("", name.lower())] == others
