from __future__ import annotations

import pytest

from relay.mail.message import parse
from relay.mail.traceparent import is_sampled, parent_id, read, trace_id, traceparent

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
FIELD = f"00-{TRACE}-{SPAN}-01"


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (FIELD, FIELD),
        (f"  {FIELD}\t", FIELD),
        (f"\r\n {FIELD}", FIELD),
        (f"00-{TRACE}-{SPAN}-00", f"00-{TRACE}-{SPAN}-00"),
        (f"01-{TRACE}-{SPAN}-03-more", f"00-{TRACE}-{SPAN}-03"),
        (f"{FIELD}-more", None),
        (f"ff-{TRACE}-{SPAN}-01", None),
        (f"00-{'0' * 32}-{SPAN}-01", None),
        (f"00-{TRACE}-{'0' * 16}-01", None),
        (FIELD.upper(), None),
        (FIELD[:-1], None),
        (f"00-{TRACE}x-{SPAN}-01", None),
        (f"01-{TRACE}-{SPAN}-01-{'x' * 600}", None),
        ("", None),
    ],
)
def test_a_field_is_read_as_trace_context_has_it(value: str, found: str | None) -> None:
    assert read(value.encode()) == found


def test_its_parts_are_the_ids_and_whether_the_app_records_the_trace() -> None:
    assert (trace_id(FIELD), parent_id(FIELD)) == (TRACE, SPAN)
    assert is_sampled(FIELD)
    assert not is_sampled(f"00-{TRACE}-{SPAN}-02")


@pytest.mark.parametrize(
    ("head", "found"),
    [
        (f"Traceparent: {FIELD}", FIELD),
        (f"traceparent: {FIELD}\r\nSubject: hello", FIELD),
        ("Subject: hello", None),
        (f"traceparent: {FIELD}\r\ntraceparent: {FIELD}", None),
        (f"traceparent: none\r\ntraceparent: {FIELD}", None),
        (f"X-traceparent: {FIELD}", None),
    ],
)
def test_a_message_has_the_trace_of_its_only_field(head: str, found: str | None) -> None:
    assert traceparent(parse(f"{head}\r\n\r\n{FIELD}\r\n".encode())) == found
