"""A large content leaves piece by piece as it would leave at once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.upstream.smtp import outgoing
from relay.upstream.smtp.outgoing import PIECE_BYTES, Outgoing

LINES = st.lists(st.sampled_from([b".", b"..", b"x", b"\r\n", b"\r\n.", b"\r", b"\n", b"\n."]), max_size=12)


@given(st.lists(LINES.map(b"".join).map(lambda text: text + b"\r\n"), min_size=1, max_size=3), st.integers(3, 9))
def test_dots_are_doubled_wherever_it_is_cut(parts: list[bytes], piece_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(outgoing, "PIECE_BYTES", piece_bytes)
        data, chunk = (list(Outgoing(parts, is_chunked=chunked)) for chunked in (False, True))
    whole = b"".join(parts)
    assert b"".join(data) == re.sub(rb"(\A|\r\n)\.", rb"\1..", whole) + b".\r\n"
    assert b"".join(chunk) == b"BDAT %d LAST\r\n" % len(whole) + whole
    assert max(map(len, data[:-1]), default=0) <= 2 * piece_bytes


def test_what_is_large_is_never_made_ready_at_once() -> None:
    content = (b".x" * 495 + b"\r\n") * 3_000
    going = Outgoing([b"DKIM-Signature: x\r\n", content], is_chunked=False)
    sizes = []
    while going:
        sizes.append(len(going.take()))
    assert max(sizes) < 1.1 * PIECE_BYTES
    assert sum(sizes) == len(content) + 3_000 + 19 + 3
    assert not going
