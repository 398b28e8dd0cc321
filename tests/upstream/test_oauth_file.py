"""The file with an upstream's newest refresh token."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from relay.upstream.oauth_file import TokenFile, TokenFileError, token_file


def file(tmp_path: Path, configured: str | None = None, upstream: str = "m365") -> TokenFile:
    return token_file(tmp_path / "relay.db", upstream, configured)


def test_the_file_is_beside_the_store_and_named_after_both(tmp_path: Path) -> None:
    assert file(tmp_path).path == tmp_path / "relay-oauth-m365.json"


def test_the_file_is_beside_the_store_itself_where_its_name_is_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "relay.db").symlink_to("real/store.db")
    assert file(tmp_path).path == tmp_path / "real" / "store-oauth-m365.json"


def test_without_a_file_the_configured_token_is_the_newest(tmp_path: Path) -> None:
    assert file(tmp_path, "first").newest() == "first"
    assert file(tmp_path).newest() is None


def test_a_rotated_token_is_the_newest_for_the_next_process_too(tmp_path: Path) -> None:
    assert file(tmp_path, "first").keep("second", used="first")
    assert file(tmp_path, "first").newest() == "second"
    assert file(tmp_path, "first").keep("third", used="second")
    assert file(tmp_path, "first").newest() == "third"


def test_a_token_that_the_operator_replaces_wins_over_the_file(tmp_path: Path) -> None:
    file(tmp_path, "first").keep("second", used="first")
    replaced = file(tmp_path, "other")
    assert replaced.newest() == "other"
    assert replaced.keep("other-2", used="other")
    assert file(tmp_path, "other").newest() == "other-2"
    assert file(tmp_path, "first").newest() == "first"


def test_a_token_of_a_login_stays_until_the_operator_configures_one(tmp_path: Path) -> None:
    file(tmp_path).replace("login")
    assert file(tmp_path).newest() == "login"
    assert file(tmp_path, "configured").newest() == "configured"


def test_a_login_wins_over_the_configured_token(tmp_path: Path) -> None:
    file(tmp_path, "first").replace("login")
    assert file(tmp_path, "first").newest() == "login"


def test_the_file_stays_where_the_operator_removes_the_token_from_the_configuration(tmp_path: Path) -> None:
    file(tmp_path, "first").keep("second", used="first")
    assert file(tmp_path).newest() == "second"


def test_a_login_during_a_fetch_is_not_overwritten_by_what_the_fetch_brings(tmp_path: Path) -> None:
    running = file(tmp_path, "first")
    used = running.newest()
    file(tmp_path, "first").replace("login")
    assert not running.keep("second", used=used)
    assert running.newest() == "login"


def test_the_file_is_for_its_owner_only_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        file(tmp_path).replace("secret-token")
    finally:
        os.umask(before)
    assert file(tmp_path).path.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["relay-oauth-m365.json"]


def test_a_folder_that_is_missing_is_made_for_its_owner_only(tmp_path: Path) -> None:
    made = token_file(tmp_path / "data" / "relay.db", "m365", None)
    made.replace("login")
    assert made.newest() == "login"
    assert (tmp_path / "data").stat().st_mode & 0o077 == 0


def test_the_configured_token_itself_is_not_in_the_file(tmp_path: Path) -> None:
    written = file(tmp_path, "first-token")
    written.keep("second-token", used="first-token")
    assert "first-token" not in written.path.read_text()


def test_a_write_is_on_the_disk_before_it_has_the_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new file's content, then its name, then the folder."""
    steps: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append("folder" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(path: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    file(tmp_path).replace("login")
    assert steps == ["file", "rename", "folder"]


def test_a_half_written_file_of_an_earlier_crash_is_no_obstacle(tmp_path: Path) -> None:
    written = file(tmp_path)
    written.path.with_name(written.path.name + ".new").write_text('{"upstr')
    written.replace("login")
    assert written.newest() == "login"
    assert not written.path.with_name(written.path.name + ".new").exists()


def spoilt_with(content: bytes) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.touch(0o600)
        path.write_bytes(content)

    return spoil


GOOD = b'{"upstream": "m365", "refresh_token": "planted", "configured_sha256": null}'


def _link(path: Path) -> None:
    spoilt_with(GOOD)(path.with_name("other.json"))
    path.symlink_to("other.json")


def _open_to_all(path: Path) -> None:
    path.write_bytes(GOOD)
    path.chmod(0o666)


SPOILT = {
    "empty": spoilt_with(b"\n"),
    "cut short": spoilt_with(b'{"upstream": "m365", "refresh_tok'),
    "not text": spoilt_with(b"\xff\x00\xfe"),
    "too long": spoilt_with(b" " * 70_000),
    "deep": spoilt_with(b"[" * 60_000),
    "another upstream's": spoilt_with(b'{"upstream": "google", "refresh_token": "t-value", "configured_sha256": null}'),
    "no token": spoilt_with(b'{"upstream": "m365", "refresh_token": "", "configured_sha256": null}'),
    "a number": spoilt_with(b'{"upstream": "m365", "refresh_token": 7, "configured_sha256": null}'),
    "a link": _link,
    "a folder": lambda path: path.mkdir(),
    "a fifo": lambda path: os.mkfifo(path),
    "writable by all": _open_to_all,
}


@pytest.mark.parametrize("spoil", SPOILT.values(), ids=list(SPOILT))
def test_a_damaged_or_foreign_file_is_an_error_that_names_it_and_it_is_left_as_it_is(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    spoilt = file(tmp_path, "first")
    spoil(spoilt.path)
    before = os.lstat(spoilt.path)
    for use in (spoilt.newest, lambda: spoilt.keep("second", used="first"), lambda: spoilt.replace("login")):
        with pytest.raises(TokenFileError) as refused:
            use()
        assert str(spoilt.path) in str(refused.value)
        assert not {"t-value", "planted", "second", "login\n"} & set(str(refused.value).split())
        assert "\n" not in str(refused.value)
    after = os.lstat(spoilt.path)
    assert (before.st_ino, before.st_mtime_ns, before.st_size) == (after.st_ino, after.st_mtime_ns, after.st_size)


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = file(tmp_path)
    written.replace("old")

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(TokenFileError, match="No space left on device"):
            written.replace("new")
    assert written.newest() == "old"
    assert [path.name for path in tmp_path.iterdir()] == [written.path.name]


def test_no_repr_shows_a_token(tmp_path: Path) -> None:
    assert "configured-secret" not in repr(file(tmp_path, "configured-secret"))


_ROTATE = """
import sys
from pathlib import Path
from relay.upstream.oauth_file import token_file
file = token_file(Path(sys.argv[1]), "m365", None)
for number in range(100):
    file.keep(f"{sys.argv[2]}-{number}", used=file.newest())
"""


def test_processes_that_write_at_once_never_leave_half_a_file(tmp_path: Path) -> None:
    store = tmp_path / "relay.db"
    file(tmp_path).replace("start")
    writers = [
        subprocess.Popen([sys.executable, "-c", _ROTATE, str(store), name], stderr=subprocess.PIPE)
        for name in ("one", "two", "three")
    ]
    for writer in writers:
        _, errors = writer.communicate(timeout=50)
        assert (writer.returncode, errors) == (0, b"")
    assert str(file(tmp_path).newest()).partition("-")[0] in ("one", "two", "three")
