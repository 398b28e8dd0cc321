"""Who may look at a store, and what is not taken for the relay's own lock."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from relay.store import maintenance
from relay.store.base import StoreError
from relay.store.merge import open_offline, open_readers
from relay.store.model import Selection
from relay.store.sqlite import files
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, message

NOBODY = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to become another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """Which any user may enter, unlike pytest's own."""
    path = Path(tempfile.mkdtemp())
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def as_another(do: Callable[[], object]) -> str:
    """What it raises as an unprivileged user: the text of a StoreError that is a denial, or the traceback of anything
    else."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing raised"
        try:
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
            do()
        except StoreError as error:
            said = str(error) if files.is_denial(error) else "no denial"
        except BaseException:
            said = traceback.format_exc()
        finally:
            os.write(writing, said.encode())
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    return said


async def make(store: Path) -> None:
    for path in (store, store.with_name("relay-bulk1.db")):
        opened = await open_store(path, now=lambda: NOW)
        await opened.put(message(), claimed=False)
        await opened.close()


def search(store: Path) -> None:
    with open_offline(store) as look:
        look.search(Selection())


def act(store: Path) -> None:
    asyncio.run(open_store(store, now=lambda: NOW))


COMMANDS: dict[str, Callable[[Path], object]] = {
    "log, queue, report": search,
    "store check": maintenance.check,
    "store backup": lambda store: maintenance.backup(store, Path("/tmp/never-made.db")),
    "store compact": maintenance.compact,
    "an action": act,
    "the relay's own view": open_readers,
    "is a relay running": files.holder,
}


@as_root
@pytest.mark.parametrize("mode", [0o700, 0o755], ids=["a folder that can't be entered", "one that can"])
@pytest.mark.parametrize("command", COMMANDS)
def test_a_user_without_rights_meets_one_line_that_is_known_for_a_denial(folder: Path, mode: int, command: str) -> None:
    store = folder / "data" / "relay.db"
    asyncio.run(make(store))
    store.parent.chmod(mode)
    said = as_another(lambda: COMMANDS[command](store))
    assert len(said.splitlines()) == 1
    assert str(store.parent) in said


# The lock


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
async def test_a_lock_that_is_a_link_is_refused_and_what_it_leads_to_left_alone(tmp_path: Path, there: bool) -> None:
    store, victim = tmp_path / "relay.db", tmp_path / "victim"
    if there:
        victim.write_text("precious")
    lock = tmp_path / "relay.db.lock"
    lock.symlink_to(victim)
    for take in (files.lock, files.holder):
        with pytest.raises(StoreError) as caught:
            take(store)
        assert str(caught.value) == f"{lock}: a symbolic link; remove it"
    assert (victim.read_text() if there else not victim.exists()) == ("precious" if there else True)
    lock.unlink()
    await (await open_store(store, now=lambda: NOW)).close()


def test_a_lock_that_is_another_name_of_a_file_is_refused(tmp_path: Path) -> None:
    victim, lock = tmp_path / "victim", tmp_path / "relay.db.lock"
    victim.write_text("precious")
    os.link(victim, lock)
    with pytest.raises(StoreError, match=rf"^{lock}: not a file of the relay's own \(owner \d+\); remove it$"):
        files.lock(tmp_path / "relay.db")
    assert victim.read_text() == "precious"


def test_a_lock_that_is_no_file_is_refused_and_keeps_nothing_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "relay.db.lock")
    for take in (files.lock, files.holder):
        with pytest.raises(StoreError, match="not a file of the relay's own"):
            take(tmp_path / "relay.db")


@as_root
def test_a_lock_that_another_user_put_there_is_refused(tmp_path: Path) -> None:
    lock = tmp_path / "relay.db.lock"
    lock.touch()
    os.chown(lock, NOBODY, NOBODY)
    with pytest.raises(StoreError, match=rf"\(owner {NOBODY}\); remove it$"):
        files.lock(tmp_path / "relay.db")


@as_root
def test_root_looks_after_the_store_of_the_relays_user(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    lock = folder / "relay.db.lock"
    lock.touch()
    for each in (folder, lock):
        os.chown(each, NOBODY, NOBODY)
    os.close(files.lock(folder / "relay.db"))
