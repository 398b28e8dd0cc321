"""What hostile mail costs: in proportion to its size at most, and little where the event loop waits for it."""

from __future__ import annotations

import pytest

from relay.mail.address import provider
from relay.mail.dkim import Signer, ascii_domain
from relay.mail.fieldtext import MAX_FIELD_BYTES, Unencodable, ascii_value
from relay.mail.mailboxes import mailboxes
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


@pytest.mark.parametrize("domain", ["a.", "é.", ".", "xn--a.", "İ."])
def test_no_key_belongs_to_a_domain_that_cannot_be(domain: str) -> None:
    signer = Signer((), {})

    def select(value: bytes) -> None:
        assert signer.select(value.decode()) is None

    assert_linear(select, lambda size: (domain * (size // len(domain))).encode(), 20_000)
    assert ascii_domain(domain * 300 + "com") == ""


def test_a_domain_beyond_253_octets_is_none() -> None:
    longest = ".".join(["a" * 61] * 4) + ".com.a"
    assert len(longest) == 253
    assert ascii_domain(longest) == ascii_domain(longest.upper() + ".") == longest
    assert mailboxes(f"<x@{longest}>") == [f"x@{longest}"]
    assert provider(f"x@{longest}") == longest
    assert ascii_domain(longest + "b") == ""
    assert mailboxes(f"<x@{longest}b>, y@example.com") == ["y@example.com"]
    assert provider(f"x@{longest}b") == ""
