"""When a From field is well-formed, other programs read the same addresses from it as the relay."""

from __future__ import annotations

from email.headerregistry import AddressHeader, HeaderRegistry
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.address_list import addresses_in, is_well_formed

_make: Any = HeaderRegistry()
PIECES = st.sampled_from(
    [
        "a@x.example", "b@y.example", "<a@x.example>", "<b@y.example>", '"a@x.example"', '"q, <c@z.example>"', "Name",
        "J. Doe", "=?utf-8?q?c=40z=2Eexample=2C?=", "(c@z.example)", ",", ";", ":", " ", "<", ">", "@",
        '"', "(", ")", "\\", "[127.0.0.1]", "c@[127.0.0.1]", "ü", "\t",
    ]
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "a@x.example", "<a@x.example>", "Name <a@x.example>", '"Na, me" <a@x.example>',
        "J. R. Doe <a@x.example> (work)",
        "=?utf-8?q?J=C3=B6rg?= <a@x.example>", "a@x.example, B <b@y.example>", "Jörg <jörg@x.example>",
        '"a b"@x.example', "a@[127.0.0.1]", "Name<a@x.example>", '"c@z.example via App" <a@x.example>',
    ],
)  # fmt: skip
def test_what_programs_write_is_well_formed(text: str) -> None:
    assert is_well_formed(text)


@pytest.mark.parametrize(
    "text",
    [
        "", "a", "a@x.example b@y.example", "a@x.example (x) b@y.example", "a@x.example<> b@y.example", "undisclosed:;",
        "=?utf-8?q?c=40z.example=2C?= a@x.example", "<a@x.example> b@y.example", "<a@x.example> <b@y.example>",
        "<@r.example:a@x.example>", "a@x.example,", ",a@x.example", "a @x.example", "A: a@x.example;", '"a@x.example',
        "a@x.example; b@y.example", "c@z.example <a@x.example>", "(a (b) a@x.example",
        "=?utf-8?q?c=40z=2Eexample=2C?=a@x.example", "a@=?utf-8?q?z=2Eexample?=", '"=?utf-8?q?c=40?="@x.example',
        "a@x.example\x00", "a\u200b@x.example",
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_is_not(text: str) -> None:
    assert not is_well_formed(text)


@given(st.lists(PIECES, max_size=10))
def test_the_standard_library_reads_the_same_addresses_from_what_is_well_formed(pieces: list[str]) -> None:
    text = "".join(pieces)
    if is_well_formed(text):
        header = _make("From", text)
        assert isinstance(header, AddressHeader)
        assert [one.addr_spec.lower() for one in header.addresses] == [one.lower() for one in addresses_in(text)]


@pytest.mark.parametrize("piece", ["w ", '"a"', "(a)", "<a@b>", "a@b,", " ", "@", "\\", '\\"', "=?u?q?a?= "])
def test_it_takes_linear_time(piece: str) -> None:
    # Half a second at most. In quadratic time it takes minutes, and pytest ends it.
    is_well_formed(piece * 100_000)
