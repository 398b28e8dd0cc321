"""Contents that come in by a file."""

from __future__ import annotations

import os
import pickle
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.intake.framing import DotDecoder
from relay.intake.spool import (
    ALWAYS_BYTES,
    IN_MEMORY_BYTES,
    PIECE_BYTES,
    Body,
    Budget,
    Large,
    SpoolFailed,
    open_spool,
)
from relay.store.codec import SEAL_BYTES


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
    with pytest.raises(SpoolFailed):
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


@pytest.fixture
def short_of_room() -> Iterator[Callable[[int], None]]:
    """Sets where writes to files end: what goes beyond is written up to there, and only the next write fails."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("room_comes_back", [False, True])
def test_a_write_that_is_cut_short_is_seen(
    short_of_room: Callable[[int], None], room_comes_back: bool, tmp_path: Path
) -> None:
    body = Body(tmp_path)
    body.write(b"x" * 300_000)
    short_of_room(350_000)
    body.write(b"y" * 100_000)
    if room_comes_back:
        short_of_room(1_000_000)
        body.write(b"z" * 100_000)
    short_of_room(1_000_000_000)
    with pytest.raises(SpoolFailed):
        body.content()
    body.close()
    assert list(tmp_path.iterdir()) == []


def test_a_last_piece_that_the_disk_does_not_take_is_seen(short_of_room: Callable[[int], None], tmp_path: Path) -> None:
    body = Body(tmp_path)
    body.write(b"x" * 300_000)
    (file,) = tmp_path.iterdir()
    short_of_room(file.stat().st_size + 10)
    with pytest.raises(SpoolFailed):
        body.content()
    short_of_room(1_000_000_000)
    body.close()
    assert list(tmp_path.iterdir()) == []


def test_pieces_in_each_others_place_are_not_read(tmp_path: Path) -> None:
    body = Body(tmp_path)
    body.write(b"x" * 400_000)
    content = body.content()
    assert isinstance(content, Large)
    raw = content.path.read_bytes()
    piece = PIECE_BYTES + SEAL_BYTES
    content.path.write_bytes(raw[piece : 2 * piece] + raw[:piece] + raw[2 * piece :])
    with pytest.raises(SpoolFailed):
        content.read()
    body.close()


@pytest.mark.parametrize("by", [-1, 1])
def test_a_file_of_another_length_than_what_came_in_is_not_read(tmp_path: Path, by: int) -> None:
    body = Body(tmp_path)
    body.write(b"x" * 400_000)
    content = body.content()
    assert isinstance(content, Large)
    os.truncate(content.path, content.path.stat().st_size + by)
    with pytest.raises(SpoolFailed):
        content.read()
    body.close()


def test_a_file_holds_nothing_in_clear_and_opens_in_another_process_that_has_the_content(tmp_path: Path) -> None:
    body = Body(tmp_path)
    pieces = [b"secret %d " % at * 20_000 for at in range(4)]
    for piece in pieces:
        body.write(piece)
    content = body.content()
    assert isinstance(content, Large)
    assert b"secret" not in content.path.read_bytes()
    assert b"secret" not in repr(content).encode()
    # To another process it goes by its link.
    assert pickle.loads(pickle.dumps(content)).read() == b"".join(pieces)
    with content.path.open("r+b") as file:
        file.seek(300_000)
        file.write(b"other")
    with pytest.raises(SpoolFailed):
        content.read()
    body.close()


# The budget of what is in memory.


def test_what_the_budget_has_no_room_for_comes_in_by_a_file(tmp_path: Path) -> None:
    budget = Budget(440_000)
    bodies = [Body(tmp_path, budget=budget) for _ in range(5)]
    for body in bodies:
        for _ in range(10):
            body.write(b"x" * 10_000)
    assert [body.large for body in bodies] == [False, False, False, True, True]
    assert budget.used_bytes <= 330_000 + 2 * ALWAYS_BYTES
    assert {body.content() for body in bodies[:4]} == {b"x" * 100_000}
    with pytest.raises(SpoolFailed):
        bodies[4].content()
    for body in bodies:
        body.close()
    assert budget.used_bytes == 0
    assert list(tmp_path.iterdir()) == []


def test_a_small_content_is_taken_whatever_others_use_and_one_without_a_file_is_not() -> None:
    budget = Budget(100_000)
    assert budget.take(100_000, complete=True)
    code, letter = Body(budget=budget), Body(budget=budget)
    code.write(b"x" * 2_000)
    letter.write(b"x" * 10_000)
    letter.write(b"x" * 10_000)
    assert code.content() == b"x" * 2_000
    with pytest.raises(SpoolFailed):
        letter.content()
    code.close()
    letter.close()
    assert budget.used_bytes == 100_000


# Its folder.


def test_a_spool_that_is_a_link_is_refused_and_nothing_behind_it_touched(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "precious").write_bytes(b"x")
    (tmp_path / "relay-spool").symlink_to(elsewhere)
    with pytest.raises(OSError):
        open_spool(tmp_path / "relay.db")
    assert (elsewhere / "precious").exists()


def test_a_spool_that_others_may_look_into_is_closed_to_them(tmp_path: Path) -> None:
    (tmp_path / "relay-spool").mkdir(mode=0o777)
    (tmp_path / "relay-spool").chmod(0o777)
    assert open_spool(tmp_path / "relay.db").stat().st_mode & 0o777 == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a folder away")
def test_a_spool_of_another_user_is_refused(tmp_path: Path) -> None:
    (tmp_path / "relay-spool").mkdir(mode=0o700)
    os.chown(tmp_path / "relay-spool", 12_345, -1)
    with pytest.raises(OSError, match="another user"):
        open_spool(tmp_path / "relay.db")
