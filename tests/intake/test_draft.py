"""A large content that is prepared piece by piece is what it would be if it were read whole."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from relay.intake import draft, spool
from relay.intake.draft import Draft
from relay.intake.spool import Body, Large, SpoolFailed
from relay.mail.message import Unacceptable, normalise, parse
from relay.store.model import NewMessage
from tests.mail.material import PIECES
from tests.store.build import message


def made() -> Draft:
    return Draft(message(content=b""), b"Received: from a by b;\r\n\tx\r\n", b"now", "<1@relay.example.com>")


def outcome(take: object) -> NewMessage | str:
    assert callable(take)
    try:
        new = take()
    except Unacceptable as error:
        return str(error.reply)
    assert isinstance(new, NewMessage)
    return new._replace(id="", accepted_at=0.0, expires_at=0.0)


@pytest.fixture(scope="module", autouse=True)
def in_small_pieces() -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(spool, "IN_MEMORY_BYTES", 0)
        patch.setattr(spool, "PIECE_BYTES", 3)
        patch.setattr(draft, "MAX_HEADER_BYTES", 40)
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool")


@contextmanager
def spooled(folder: Path, content: bytes) -> Iterator[Large]:
    body = Body(folder)
    body.write(content)
    large = body.content()
    assert isinstance(large, Large)
    yield large
    body.close()


def from_file(large: Large) -> NewMessage:
    made_of = made()
    new, pieces = made_of.from_file(large)
    assert new.content == b""
    content = b"".join(pieces)
    assert len(content) <= made_of.most_bytes(large)
    return new._replace(content=content)


@given(
    pieces=st.lists(
        st.one_of(PIECES, st.sampled_from([b"From: a@b\r\n", b"\0", b"text\r\n", b"\r", b"\n"])),
        min_size=1,
        max_size=16,
    )
)
@example(pieces=[b"From: a@b\r\nSubject: x\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nSubject: x 23456789 12345\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nSubject: x 23456789 123456\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nSubject: x 23456789 1234\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nBcc: c@d\r\n\r\n", b"one line\r\n" * 9, b"\r"])
@example(pieces=[b"From: a@b\r\nX-Relay-Lane: otp\r\n\r\n", b"no end"])
@example(pieces=[b"From: a@b\n\n", b"bare\n\r\rlines\n" * 9])
@example(pieces=[b"\r", b"\r\n", b"\r\n", b"\0"])
def test_a_content_read_in_pieces_equals_the_one_read_whole(folder: Path, pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    assume(content)
    whole = outcome(lambda: made().completed(parse(normalise(content))))
    with spooled(folder, content) as large:
        flowing = outcome(lambda: from_file(large))
    if isinstance(whole, str):
        assert isinstance(flowing, str)  # where two things are wrong with it, the one that is met first is told
    else:
        assert flowing == whole


def test_a_content_flows_while_it_is_read(folder: Path) -> None:
    content = b"From: a@b\r\nSubject: x\r\n\r\n" + b"one line\n" * 90
    with spooled(folder, content) as large:
        _, pieces = made().from_file(large)
        assert max(map(len, pieces)) < len(content)


@pytest.mark.parametrize("content", [b"From: a@b\r\n\r\n" + b"one line\r\n" * 9, b"no header\n" * 9])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_file_of_another_length_than_what_came_in_makes_no_message(folder: Path, content: bytes, by: int) -> None:
    with spooled(folder, content) as large:
        os.truncate(large.path, large.path.stat().st_size + by)
        with pytest.raises(SpoolFailed):
            from_file(large)
