"""The store's own key: made once, before anything is sealed, and never in the place of one that waiting mail needs."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from relay.config.files import read_store_keys
from relay.store.base import StoreDamaged, StoreError, StoreSealed
from relay.store.codec import Codec, Plain, Sealed, key_id
from relay.store.keys import find_codec, open_codec, own_key_file
from relay.store.model import Selection
from relay.store.sqlite.schema import prepare
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, claim, message

CONFIGURED = bytes(range(32))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "relay.db"


async def left_waiting(path: Path, codec: Codec, content: bytes) -> None:
    store = await open_store(path, now=lambda: NOW, codec=codec)
    await store.put(message(content=content), claimed=False)
    await store.close()


async def found_waiting(path: Path, codec: Codec) -> set[bytes]:
    store = await open_store(path, now=lambda: NOW, codec=codec)
    try:
        return {each.content for each in await claim(store)}
    finally:
        await store.close()


def test_the_first_start_makes_a_key_for_its_owner_only_and_later_ones_use_it(path: Path) -> None:
    assert find_codec(path, (), None).key_id is None
    made = open_codec(path, (), None)
    own = own_key_file(path)
    assert own.name == "relay.db.key"
    assert stat.S_IMODE(own.stat().st_mode) == 0o600
    (key,) = read_store_keys(own)
    assert made.key_id == key_id(key)
    before = own.read_bytes()
    assert open_codec(path, (), None).key_id == find_codec(path, (), None).key_id == made.key_id
    assert own.read_bytes() == before
    assert not path.with_name("relay.db.key.new").exists()


def test_a_key_is_on_the_disk_before_its_file_has_its_name(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(path)
    steps: list[str] = []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).name}")
        fsync(descriptor)

    def renamed(source: Path, target: Path) -> None:
        steps.append(f"rename to {Path(target).name}")
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    open_codec(path, (), None)
    assert steps == ["sync relay.db.key.new", "rename to relay.db.key", f"sync {path.parent.name}"]


def test_a_key_that_was_half_made_by_a_killed_relay_is_made_anew(path: Path) -> None:
    path.with_name("relay.db.key.new").write_bytes(b"half")
    assert open_codec(path, (), None).key_id is not None
    assert not path.with_name("relay.db.key.new").exists()


def test_with_a_configured_key_none_is_made(path: Path) -> None:
    assert open_codec(path, (CONFIGURED,), Path("secrets/store")).key_id == key_id(CONFIGURED)
    assert not own_key_file(path).exists()


async def test_what_the_stores_own_key_sealed_is_readable_beside_a_configured_one_which_seals_from_then_on(
    path: Path,
) -> None:
    await left_waiting(path, open_codec(path, (), None), b"first")
    both = open_codec(path, (CONFIGURED,), Path("secrets/store"))
    assert both.key_id == key_id(CONFIGURED)
    await left_waiting(path, both, b"second")
    assert await found_waiting(path, both) == {b"first", b"second"}


async def test_mail_that_waited_in_clear_is_readable_and_new_mail_is_sealed(path: Path) -> None:
    await left_waiting(path, Plain(), b"in clear")
    codec = open_codec(path, (), None)
    await left_waiting(path, codec, b"sealed content")
    assert b"sealed content" not in path.read_bytes()
    assert await found_waiting(path, codec) == {b"in clear", b"sealed content"}


@pytest.mark.parametrize("name", ["relay.db", "relay-bulk1.db"])
async def test_a_lost_key_that_waiting_mail_needs_is_told_and_no_other_takes_its_place(path: Path, name: str) -> None:
    codec = open_codec(path, (), None)
    await left_waiting(path, codec, b"main")
    await left_waiting(path.with_name(name), codec, b"waiting")
    own = own_key_file(path)
    key = own.read_bytes()
    own.unlink()
    if name != path.name:
        assert await found_waiting(path, codec) == {b"main"}
        await _finish_all(path, codec)
    says = rf"^{path.with_name(name)}: waiting mail is encrypted with key {codec.key_id}, and {own} is missing$"
    with pytest.raises(StoreSealed, match=says):
        open_codec(path, (), None)
    assert not own.exists()
    with pytest.raises(StoreSealed, match=r", which secrets/store doesn't hold$"):
        await open_store(path.with_name(name), now=lambda: NOW, codec=Sealed([CONFIGURED], "secrets/store"))
    own.write_bytes(key)
    assert open_codec(path, (), None).key_id == codec.key_id


async def _finish_all(path: Path, codec: Codec) -> None:
    store = await open_store(path, now=lambda: NOW, codec=codec)
    await store.recover(NOW)
    await store.act("drop", Selection(), NOW)
    await store.close()


def test_a_key_file_without_a_key_is_told(path: Path) -> None:
    own_key_file(path).write_text("no key\n")
    with pytest.raises(StoreError, match=rf"^line 1 of {own_key_file(path)} isn't a key"):
        open_codec(path, (), None)


def test_no_key_is_made_beside_what_is_no_store(path: Path) -> None:
    path.write_bytes(b"something else entirely" * 100)
    with pytest.raises(StoreDamaged, match="not a store"):
        open_codec(path, (), None)
    assert not own_key_file(path).exists()


async def test_no_key_is_made_beside_a_store_that_another_relay_has(path: Path) -> None:
    store = await open_store(path, now=lambda: NOW)
    with pytest.raises(StoreError, match="in use by another relay"):
        open_codec(path, (), None)
    await store.close()
    assert not own_key_file(path).exists()
