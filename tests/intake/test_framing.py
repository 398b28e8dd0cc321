"""Where a line and DATA end: only at CRLF and at CRLF.CRLF, however the bytes come in."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.intake.framing import MAX_AUTH_BYTES, MAX_COMMAND_BYTES, BadLine, DotDecoder, LineBuffer, line_limit
from tests.intake.harness import whole

HOSTILE = st.lists(
    st.sampled_from([b"\r", b"\n", b"\r\n", b".", b"..", b"\0", b"a", b"\r\n.\r", b"\n.\n", b"\r.\r", b"\r\n.\n"])
).map(b"".join)


def decode(segments: list[bytes], limit_bytes: int = 1000) -> tuple[bytes, bytes, bool] | None:
    """Content, what is behind it, whether it was too big; None when the end was not seen."""
    decoder = DotDecoder(limit_bytes)
    for number, segment in enumerate(segments):
        behind = decoder.feed(segment)
        if behind is not None:
            return whole(decoder.content()), behind + b"".join(segments[number + 1 :]), decoder.oversize
    return None


def by_the_book(stream: bytes) -> tuple[bytes, bytes] | None:
    """RFC 5321 4.5.2 line by line: the slow and plain way."""
    lines: list[bytes] = []
    rest = stream
    while b"\r\n" in rest:
        line, _, rest = rest.partition(b"\r\n")
        if line == b".":
            return b"".join(each + b"\r\n" for each in lines), rest
        lines.append(line.removeprefix(b"."))
    return None


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({0, len(stream), *(place % (len(stream) + 1) for place in places)})
    return [stream[a:b] for a, b in pairwise(marks)] or [b""]


@pytest.mark.parametrize(
    ("stream", "content", "behind"),
    [
        (b".\r\n", b"", b""),
        (b"a\r\n.\r\n", b"a\r\n", b""),
        (b"a\r\n.\r\nQUIT\r\n", b"a\r\n", b"QUIT\r\n"),
        (b"..\r\n.\r\n", b".\r\n", b""),
        (b"...\r\n.\r\n", b"..\r\n", b""),
        (b".a\r\n.\r\n", b"a\r\n", b""),
        (b"a\r\n..b\r\n.\r\n", b"a\r\n.b\r\n", b""),
        (b"\r\n.\r\n", b"\r\n", b""),
        (b"a\n.\nb\r\n.\r\n", b"a\n.\nb\r\n", b""),
        (b"a\r.\rb\r\n.\r\n", b"a\r.\rb\r\n", b""),
        (b"a\r\n.\nb\r\n.\r\n", b"a\r\n\nb\r\n", b""),
        (b"a\r\n.\rb\r\n.\r\n", b"a\r\n\rb\r\n", b""),
        (b"a\n.\r\nb\r\n.\r\n", b"a\n.\r\nb\r\n", b""),
        (b"a\r.\r\nb\r\n.\r\n", b"a\r.\r\nb\r\n", b""),
        (b"a\r\n\0.\r\nb\r\n.\r\n", b"a\r\n\0.\r\nb\r\n", b""),
        (b"a\r\n.\0\r\nb\r\n.\r\n", b"a\r\n\0\r\nb\r\n", b""),
        (b"a\r\r\n.\r\r\n.\r\n", b"a\r\r\n\r\r\n", b""),
    ],
)
def test_data_ends_only_at_a_dot_between_two_crlf(stream: bytes, content: bytes, behind: bytes) -> None:
    for segments in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        assert decode(segments) == (content, behind, False)


@given(HOSTILE, st.lists(st.integers(0, 400)))
@example(b"\r\n.\r\r\n.\r\n", [5])
@example(b".\r\n.\r\n", [1])
def test_however_the_bytes_are_cut_the_outcome_is_the_book_s(stream: bytes, places: list[int]) -> None:
    stream += b"\r\n.\r\nNOOP\r\n"
    assert decode(cut(stream, places)) == (*(by_the_book(stream) or ()), False)


@given(st.binary(max_size=60), st.lists(st.integers(0, 100)))
def test_what_a_client_stuffed_comes_out_as_it_went_in(content: bytes, places: list[int]) -> None:
    content += b"\r\n"
    stuffed = re.sub(rb"(^|\r\n)\.", rb"\1..", content) + b".\r\n"
    assert decode(cut(stuffed, places)) == (content, b"", False)


@given(HOSTILE, st.lists(st.integers(0, 400)), st.integers(0, 40))
def test_past_the_limit_nothing_is_kept_and_the_end_is_still_found(
    stream: bytes, places: list[int], limit: int
) -> None:
    stream += b"\r\n.\r\nNOOP\r\n"
    content, behind = by_the_book(stream) or (b"", b"")
    expected = (content, behind, False) if len(content) <= limit else (b"", behind, True)
    assert decode(cut(stream, places), limit) == expected


def test_without_its_end_data_goes_on() -> None:
    assert decode([b"a\r\n.\r", b"\r\n."]) is None


@pytest.mark.parametrize(
    ("start", "limit"),
    [
        (b"NOOP", MAX_COMMAND_BYTES),
        (b"", MAX_COMMAND_BYTES),
        (b"mail from:<", MAX_COMMAND_BYTES + 3000),
        (b"RCPT TO:<", MAX_COMMAND_BYTES + 3000),
        (b"Auth PLAIN", MAX_AUTH_BYTES),
    ],
)
def test_a_command_s_verb_sets_how_long_it_may_be(start: bytes, limit: int) -> None:
    assert line_limit(start) == limit


def lines_of(segments: list[bytes], limit_bytes: int | None = None) -> list[bytes | str]:
    """The lines that a client's segments hold, and the replies to those that can't be read."""
    buffer = LineBuffer()
    lines: list[bytes | str] = []
    for segment in segments:
        buffer.feed(segment)
        while True:
            try:
                line = buffer.read_line(limit_bytes)
            except BadLine as bad:
                lines.append(bad.reply.text)
                continue
            if line is None:
                break
            lines.append(line)
    return lines


@pytest.mark.parametrize(
    ("stream", "lines"),
    [
        (b"NOOP\r\nRSET\r\nQU", [b"NOOP", b"RSET"]),
        (b"\r\n\r\n", [b"", b""]),
        (b"NOOP\nMAIL\r\nRSET\r\n", ["5.5.2 A line must end in CRLF, not in LF alone", b"RSET"]),
        (b"NO\rOP\r\nRSET\r\n", ["5.5.2 A line can't contain CR without LF", b"RSET"]),
        (b"NO\0OP\r\nRSET\r\n", ["5.5.2 A line can't contain NUL", b"RSET"]),
        (b"NOOP " + b"x" * 2_000 + b"\r\nRSET\r\n", ["5.5.6 Line too long", b"RSET"]),
    ],
)
def test_a_line_ends_at_crlf_only_and_a_bad_one_is_skipped(stream: bytes, lines: list[bytes | str]) -> None:
    for segments in ([stream], [stream[i : i + 1] for i in range(len(stream))]):
        assert lines_of(segments) == lines


@given(HOSTILE, st.lists(st.integers(0, 400)))
@example(b"aaaaaaaaaaaa\r\n", [11, 12])
@example(b"a\r\r\n\r\n", [1, 2, 3])
def test_however_the_bytes_are_cut_the_lines_are_the_same(stream: bytes, places: list[int]) -> None:
    assert lines_of(cut(stream, places), 10) == lines_of([stream], 10)


def test_bytes_and_lines_are_read_from_one_buffer() -> None:
    buffer = LineBuffer()
    buffer.feed(b"head\r\nbody and more")
    assert buffer.read_line() == b"head"
    assert buffer.read(4) == b"body"
    assert len(buffer) == 9
    assert buffer.read() == b" and more"
    buffer.feed(b"x" * 2_000)
    with pytest.raises(BadLine):
        buffer.read_line()
    buffer.clear()
    buffer.feed(b"NOOP\r\n")
    assert buffer.read_line() == b"NOOP"
