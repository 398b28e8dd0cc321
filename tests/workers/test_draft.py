"""A large content that is prepared while it is read is what it would be if it were read whole."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from relay.intake import draft
from relay.intake.draft import Draft
from relay.intake.spool import Large, SpoolFull
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
        patch.setattr(draft, "_CHUNK_BYTES", 3)
        patch.setattr(draft, "MAX_HEADER_BYTES", 40)
        yield


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("spool") / "content"


@given(pieces=st.lists(st.one_of(PIECES, st.sampled_from([b"From: a@b\r\n", b"\0", b"text\r\n"])), max_size=16))
@example(pieces=[b"From: a@b\r\nSubject: x\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nSubject: x 23456789 12345\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nSubject: x 23456789 123456\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nSubject: x 23456789 1234\r\n\r\n", b"one line\r\n" * 9])
@example(pieces=[b"From: a@b\r\nBcc: c@d\r\n\r\n", b"one line\r\n" * 9, b"\r"])
@example(pieces=[b"From: a@b\r\nX-Relay-Lane: otp\r\n\r\n", b"no end"])
@example(pieces=[b"\r", b"\r\n", b"\r\n", b"\0"])
def test_read_in_pieces_it_is_the_same_as_read_whole(path: Path, pieces: list[bytes]) -> None:
    content = b"".join(pieces)
    path.write_bytes(content)
    whole = outcome(lambda: made().completed(parse(normalise(content))))
    assert outcome(lambda: made().from_file(Large(b"", path, len(content)))) == whole


def test_a_content_with_usual_lines_is_read_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = b"From: a@b\r\nSubject: x\r\n\r\n" + b"one line\r\n" * 9
    path.write_bytes(content)
    monkeypatch.setattr(Large, "read", None)
    assert made().from_file(Large(b"", path, len(content))).content.endswith(content[-90:])


@pytest.mark.parametrize("content", [b"From: a@b\r\n\r\n" + b"one line\r\n" * 9, b"no header\n" * 9])
@pytest.mark.parametrize("by", [-1, 1])
def test_a_file_of_another_length_than_what_came_in_makes_no_message(path: Path, content: bytes, by: int) -> None:
    path.write_bytes(content)
    with pytest.raises(SpoolFull):
        made().from_file(Large(b"", path, len(content) + by))
