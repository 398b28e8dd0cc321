"""What hostile mail costs: in proportion to its size at most, and little where the event loop waits for it."""

from __future__ import annotations

import pytest

from relay.mail.fieldtext import MAX_FIELD_BYTES, Unencodable, ascii_value
from tests.fuzz.cost import assert_linear

FIELDS = [
    ("to", b'\\"'), ("to", b'"'), ("to", b"<"), ("to", b"("), ("to", b"\\("), ("to", b"\\"), ("to", b"a "),
    ("to", b"<("), ("to", b'("'), ("to", b'"\xc3\xa9" '), ("to", b"a@b, "),
    ("content-disposition", b"a"), ("content-disposition", b"a-"), ("content-disposition", b'a="'),
    ("content-disposition", b'a="\\"'), ("content-disposition", b"a=;"),
    ("subject", b" "), ("subject", b"\r\n "), ("subject", b"\xc3\xa9 x "), ("subject", b"\xff"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "unit"), FIELDS)
@pytest.mark.parametrize("start", [b"\xc3\xa9", b'\xc3\xa9"', b"\xc3\xa9 <", b"\xc3\xa9 ("])
def test_a_field_is_put_into_ascii_in_linear_time(name: str, unit: bytes, start: bytes) -> None:
    def made(size: int) -> bytes:
        return start + unit * (size // len(unit))

    assert_linear(lambda value: ascii_value(name, value), made, 3_900, Unencodable)


@pytest.mark.parametrize("name", ["to", "subject", "content-type"])
def test_a_field_beyond_what_any_program_writes_is_not_put_into_ascii(name: str) -> None:
    fits = b'\xc3\xa9; name="\xc3\xa9"'.ljust(MAX_FIELD_BYTES)
    if name != "content-type":
        assert ascii_value(name, fits).isascii()
    with pytest.raises(Unencodable):
        ascii_value(name, fits + b" ")
