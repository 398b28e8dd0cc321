"""Replies off a byte stream."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.mail.reply import Reply
from relay.upstream.smtp.replies import MAX_LINE_BYTES, ProtocolError, ReplyReader

TEXT = st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)
REPLY = st.tuples(st.integers(200, 559), st.lists(TEXT, min_size=1, max_size=4))


def wire(code: int, lines: list[str]) -> bytes:
    last = len(lines) - 1
    return "".join(f"{code}{' ' if at == last else '-'}{line}\r\n" for at, line in enumerate(lines)).encode()


@given(st.lists(REPLY, max_size=6), st.data())
def test_replies_are_the_same_however_the_stream_is_cut(
    replies: list[tuple[int, list[str]]], data: st.DataObject
) -> None:
    stream = b"".join(wire(code, lines) for code, lines in replies)
    whole = list(ReplyReader().feed(stream))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=12)))
    reader = ReplyReader()
    pieces: list[Reply] = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        pieces += reader.feed(stream[start:end])
    assert pieces == whole
    assert [reply.code for reply in whole] == [code for code, _ in replies]
    assert reader.idle


@pytest.mark.parametrize(
    ("stream", "reply"),
    [
        (b"250\r\n", Reply(250, "")),
        (b"250 \r\n", Reply(250, "")),
        (b"250 ok\n", Reply(250, "ok")),
        (b"250-2.0.0 one\r\n250 2.0.0 two\r\n", Reply(250, "2.0.0 one two")),
        (b"250-one\r\n250-two\r\n250\r\n", Reply(250, "one two")),
        (b"550 5.1.1 no\x07such\x1buser\r\n", Reply(550, "5.1.1 no such user")),
        (b"451 caf\xe9\r\n", Reply(451, "caf�")),
    ],
)
def test_a_reply_reads_as_one_line_of_plain_text(stream: bytes, reply: Reply) -> None:
    assert list(ReplyReader().feed(stream)) == [reply]


@pytest.mark.parametrize(
    "stream",
    [
        b"HTTP/1.1 400 Bad Request\r\n",
        b"\r\n",
        b"25 ok\r\n",
        b"2500 ok\r\n",
        b"150 ok\r\n",
        b"650 ok\r\n",
        b"250-one\r\n251 two\r\n",
        b"250" + b"x" * MAX_LINE_BYTES,
        b"250 " + b"x" * MAX_LINE_BYTES + b"\r\n",
        b"250-more\r\n" * 10_000,
        bytes(range(128, 256)) + b"\r\n",
    ],
)
def test_what_is_no_reply_is_refused_in_bounded_memory(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        list(ReplyReader().feed(stream))


@given(st.binary(max_size=200))
def test_no_bytes_make_the_reader_fail_in_another_way(stream: bytes) -> None:
    reader = ReplyReader()
    try:
        replies = list(reader.feed(stream))
    except ProtocolError:
        return
    assert all(200 <= reply.code <= 599 and "\n" not in reply.text and "\r" not in reply.text for reply in replies)


def test_replies_before_the_garbage_count() -> None:
    replies = ReplyReader().feed(b"250 ok\r\n550 no\r\nwhat?\r\n250 ok\r\n")
    assert [next(replies).code, next(replies).code] == [250, 550]
    with pytest.raises(ProtocolError):
        next(replies)
