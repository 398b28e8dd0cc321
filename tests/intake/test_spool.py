"""Contents that come in by a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.intake.framing import DotDecoder
from relay.intake.spool import IN_MEMORY_BYTES, Body, Large, SpoolFull, open_spool


@given(st.lists(st.integers(0, 200_000), max_size=8), st.integers(0, 255))
def test_a_body_holds_what_was_written_wherever_it_lies(sizes: list[int], filler: int) -> None:
    pieces = [bytes([filler, at]) * (size // 2) for at, size in enumerate(sizes)]
    body = Body(Path("/tmp"))
    for piece in pieces:
        body.write(piece)
    content = body.content()
    whole = b"".join(pieces)
    if isinstance(content, Large):
        assert content.read() == whole
        assert content.size_bytes == len(whole) > IN_MEMORY_BYTES
        assert whole.startswith(content.head)
    else:
        assert content == whole
    body.close()


def test_a_file_is_the_relays_alone_and_goes_with_its_body(tmp_path: Path) -> None:
    folder = open_spool(tmp_path / "relay.db")
    body = Body(folder)
    body.write(b"x" * (IN_MEMORY_BYTES + 1))
    content = body.content()
    assert isinstance(content, Large)
    assert content.path.stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0
    body.close()
    assert list(folder.iterdir()) == []


def test_what_a_killed_relay_left_is_swept_up(tmp_path: Path) -> None:
    folder = open_spool(tmp_path / "relay.db")
    (folder / "left").write_bytes(b"never acknowledged")
    assert list(open_spool(tmp_path / "relay.db").iterdir()) == []


def test_a_full_disk_is_told_when_the_content_is_asked_for(tmp_path: Path) -> None:
    body = Body(tmp_path / "gone")
    body.write(b"x" * (IN_MEMORY_BYTES + 1))
    with pytest.raises(SpoolFull):
        body.content()


def test_what_is_too_big_leaves_no_file_behind(tmp_path: Path) -> None:
    body = Body(tmp_path)
    decoder = DotDecoder(400_000, body)
    for _ in range(5):
        decoder.feed(b"x" * 99_998 + b"\r\n")
    assert decoder.feed(b".\r\n") == b""
    assert decoder.oversize
    assert list(tmp_path.iterdir()) == []


def test_the_head_of_a_large_one_has_its_full_length_however_it_came(tmp_path: Path) -> None:
    body = Body(tmp_path)
    first, second = b"Return-Path: <a@b>\r\n", b"From: a@b\r\n\r\n" + b"x" * 300_000
    body.write(first)
    body.write(second)
    body.write(second)
    content = body.content()
    assert isinstance(content, Large)
    assert content.head == (first + second)[:IN_MEMORY_BYTES]
    assert content.read() == first + second + second
    body.close()
