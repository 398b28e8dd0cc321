"""Responses of HTTP servers: read the same however they are cut, and bounded whatever they hold."""

from __future__ import annotations

import asyncio

import h11
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.providers.api import Answer
from relay.upstream.http.connection import MAX_HEAD_BYTES
from relay.upstream.http.reading import MAX_BODY_BYTES, MAX_INTERIM, End, Reading

OK = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"id": 1}'
CHUNKED = (
    b"HTTP/1.1 202 Accepted\r\nTransfer-Encoding: chunked\r\nX-Id: a\r\nX-Id: b\r\n\r\n"
    b'4\r\n{"a"\r\n3\r\n:1}\r\n0\r\n\r\n'
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.0 500 Oops\r\n\r\nthe rest"
WHOLE = [OK, CHUNKED, INTERIM + OK, UNTIL_CLOSED]


def read(pieces: list[bytes], *, closed: bool) -> tuple[End | None, Answer | None]:
    loop = asyncio.new_event_loop()
    try:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_BYTES)
        protocol.send(h11.Request(method="POST", target="/", headers=[("Host", "x"), ("Content-Length", "0")]))
        protocol.send(h11.EndOfMessage())
        reading = Reading(protocol, loop)
        for piece in pieces:
            if piece:
                reading.feed(piece)
        if closed:
            reading.feed(b"")
        return reading.end, reading.answer()
    finally:
        loop.close()


def cut(data: bytes, at: list[int]) -> list[bytes]:
    places = sorted({min(one, len(data)) for one in at})
    return [data[start:end] for start, end in zip([0, *places], [*places, len(data)], strict=True)]


@given(data=st.sampled_from(WHOLE), at=st.lists(st.integers(0, 120), max_size=8))
def test_a_response_is_the_same_however_it_is_cut(data: bytes, at: list[int]) -> None:
    assert read(cut(data, at), closed=True) == read([data], closed=True)


def test_what_a_response_says() -> None:
    assert read([OK], closed=False) == (
        "answered",
        Answer(200, {"content-type": "application/json", "content-length": "9"}, b'{"id": 1}'),
    )
    end, answer = read([CHUNKED], closed=False)
    assert (end, answer and answer.headers["x-id"], answer and answer.body) == ("answered", "a, b", b'{"a":1}')
    assert read([UNTIL_CLOSED], closed=True) == ("answered", Answer(500, {}, b"the rest"))


@given(data=st.sampled_from(WHOLE), length=st.integers(0, 200))
def test_a_response_that_breaks_off_has_no_body(data: bytes, length: int) -> None:
    end, answer = read([data[: min(length, len(data) - 1)]], closed=True)
    if data is UNTIL_CLOSED and answer is not None:
        return  # its end is the connection's
    assert end == "lost"
    assert answer is None or answer.body is None


@settings(max_examples=300)
@given(
    pieces=st.lists(
        st.one_of(st.binary(max_size=60), st.sampled_from([b"HTTP/1.1 ", b"200 OK\r\n", b"\r\n", OK, INTERIM])),
        max_size=8,
    )
)
def test_no_bytes_make_it_fail(pieces: list[bytes]) -> None:
    end, answer = read(pieces, closed=True)
    assert end in ("answered", "lost", "garbled")
    assert answer is None or 100 <= answer.status <= 999


def test_a_body_is_bounded_and_so_are_head_and_interim_answers() -> None:
    long = b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * (MAX_BODY_BYTES + 1)
    end, answer = read([long], closed=False)
    assert (end, answer and answer.body) == ("answered", None)
    assert read([b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD_BYTES + 100)], closed=False)[0] == "garbled"
    assert read([b"HTTP/1.1 102 Processing\r\n\r\n" * (MAX_INTERIM + 1)], closed=False) == ("garbled", None)


def test_a_body_in_a_coding_that_was_not_asked_for_isnt_read() -> None:
    coded = OK.replace(b"Content-Type: application/json", b"Content-Encoding: gzip")
    end, answer = read([coded], closed=False)
    assert (end, answer and answer.status, answer and answer.body) == ("answered", 200, None)
