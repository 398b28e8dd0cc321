"""Files, disk and clock of the machine that the tests run on, and tables of others."""

from __future__ import annotations

import os
import stat
from hashlib import sha256
from pathlib import Path

import pytest

from relay.config.files import read_store_keys
from relay.config.load import load
from relay.doctor import files
from relay.doctor.finding import Finding, exit_code
from relay.doctor.machine import check_clock, check_disk, file_system, judge_clock
from relay.store.codec import Sealed
from relay.store.keys import open_codec, own_key_file
from relay.store.sqlite.store import open_store
from tests.store.build import NOW, message
from tests.support.relay import write_config

UPSTREAM = {"host": "127.0.0.1", "port": 1, "tls": "none"}


@pytest.mark.parametrize(
    ("mode", "owned_by_root", "status"),
    [
        (0o600, False, None),
        (0o400, False, None),
        (0o640, True, None),
        (0o440, True, None),
        (0o640, False, "warn"),
        (0o644, True, "warn"),
        (0o604, False, "warn"),
        (0o660, True, "warn"),
        (0o602, False, "fail"),
        (0o666, True, "fail"),
    ],
)
def test_a_secret_is_for_its_owner(mode: int, owned_by_root: bool, status: str | None) -> None:
    judged = files.judge_file(stat.S_IFREG | mode, owned_by_root=owned_by_root)
    assert (judged and judged[0]) == status


@pytest.mark.parametrize(
    ("mode", "status"),
    [(0o700, None), (0o755, None), (0o775, None), (0o1777, "warn"), (0o777, "fail"), (0o703, "fail")],
)
def test_nobody_else_writes_to_a_secrets_folder(mode: int, status: str | None) -> None:
    judged = files.judge_folder(stat.S_IFDIR | mode)
    assert (judged and judged[0]) == status


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    password = tmp_path / "secrets" / "esp"
    password.parent.mkdir(mode=0o700)
    password.write_text("hunter2\n")
    password.chmod(0o600)
    upstream = {**UPSTREAM, "username": "relay", "password_file": str(password)}
    return write_config(tmp_path, {"esp": upstream}, store="store/relay.db")


def looked_at(config_file: Path, area: str = "files") -> list[Finding]:
    return [finding for finding in files.check(load(config_file, {})) if finding.area == area]


def test_closed_files_are_well(config_file: Path) -> None:
    (finding,) = looked_at(config_file)
    assert finding.status == "ok"


@pytest.mark.parametrize(("mode", "status"), [(0o644, "warn"), (0o606, "fail")])
def test_an_open_password_file_is_reported_with_the_command_that_closes_it(
    config_file: Path, mode: int, status: str
) -> None:
    password = config_file.parent / "secrets" / "esp"
    password.chmod(mode)
    (finding,) = looked_at(config_file)
    assert (finding.subject, finding.status, finding.hint) == (str(password), status, f"chmod 600 {password}")


@pytest.mark.parametrize("name", ["relay.db", "relay.db-wal"])
def test_an_open_store_is_reported(config_file: Path, name: str) -> None:
    store = config_file.parent / "store" / name
    store.parent.mkdir()
    store.touch()
    store.chmod(0o644)
    (finding,) = looked_at(config_file)
    assert (finding.subject, finding.status) == (str(store), "warn")


def test_a_folder_open_to_all_is_a_failure(config_file: Path) -> None:
    folder = config_file.parent / "store"
    folder.mkdir()
    folder.chmod(0o777)
    (finding,) = looked_at(config_file)
    assert (finding.subject, finding.status) == (str(folder), "fail")


def test_without_a_configured_key_the_stores_own_encrypts(config_file: Path) -> None:
    (finding,) = looked_at(config_file, "store")
    assert (finding.status, "the next start makes it" in finding.text) == ("ok", True)
    open_codec(load(config_file, {}).config.store, (), None)
    (finding,) = looked_at(config_file, "store")
    assert (finding.status, finding.text.endswith("store/relay.db.key)")) == ("ok", True)


def test_an_open_key_of_the_store_is_reported(config_file: Path) -> None:
    store = load(config_file, {}).config.store
    open_codec(store, (), None)
    own_key_file(store).chmod(0o644)
    (finding,) = looked_at(config_file)
    assert (finding.subject, finding.status) == (str(own_key_file(store)), "warn")


@pytest.mark.parametrize("name", ["relay.db", "relay-bulk1.db"])
async def test_mail_that_no_key_opens_is_a_failure_and_with_its_key_all_is_well(config_file: Path, name: str) -> None:
    folder = config_file.parent
    for key in ("right", "wrong"):
        (folder / "secrets" / key).write_text(sha256(key.encode()).hexdigest())
        (folder / "secrets" / key).chmod(0o600)
    keys = read_store_keys(folder / "secrets" / "right")
    await (await open_store(folder / "store" / "relay.db", now=lambda: NOW)).close()
    store = await open_store(folder / "store" / name, now=lambda: NOW, codec=Sealed(keys, ""))
    await store.put(message(), claimed=False)
    await store.close()
    text = config_file.read_text()
    for key, status in (("right", "ok"), ("wrong", "fail")):
        config_file.write_text(f"{text}store_key_file: secrets/{key}\n")
        (finding,) = looked_at(config_file, "store")
        assert (finding.status, f"secrets/{key}" in finding.text) == (status, True)
    config_file.write_text(text)
    (finding,) = looked_at(config_file, "store")
    assert (finding.status, "relay.db.key is missing" in finding.text) == ("fail", True)


MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
proc /proc proc rw 0 0
filer:/mail /srv/mail nfs4 rw 0 0
/dev/vdb /srv/mail/local xfs rw 0 0
tmpfs /run tmpfs rw 0 0
/dev/sdc /mnt/with\\040blank btrfs rw 0 0
old /twice ext3 rw 0 0
new /twice cifs rw 0 0
broken line
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/var/lib/relay", "ext4"),
        ("/srv/mail/queue", "nfs4"),
        ("/srv/mailbox", "ext4"),
        ("/srv/mail/local/deep/down", "xfs"),
        ("/run/relay", "tmpfs"),
        ("/mnt/with blank/x", "btrfs"),
        ("/twice", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_innermost_and_latest_mount(folder: str, kind: str) -> None:
    assert file_system(Path(folder), MOUNTS) == kind


def test_without_a_table_of_mounts_the_file_system_is_not_known() -> None:
    assert file_system(Path("/var"), "") is None


def test_the_disk_is_measured_where_the_store_will_be_and_nothing_stays_behind(tmp_path: Path) -> None:
    place, free, sync = check_disk(tmp_path / "not" / "yet" / "relay.db", 1)
    assert {place.subject, free.subject, sync.subject} == {str(tmp_path.resolve())}
    assert free.status == "ok"
    assert "fdatasync of 4 KiB" in sync.text
    assert os.listdir(tmp_path) == []


def test_less_room_than_the_queue_keeps_free_is_a_failure(tmp_path: Path) -> None:
    disk = os.statvfs(tmp_path)
    free_bytes = disk.f_bavail * disk.f_frsize
    statuses = [check_disk(tmp_path / "relay.db", floor)[1].status for floor in (free_bytes * 2, free_bytes // 2)]
    assert statuses == ["fail", "warn"]


def test_a_folder_that_can_not_be_written_to_is_a_failure() -> None:
    found = check_disk(Path("/proc/relay.db"), 1)
    assert found[-1].status == "fail"


@pytest.mark.parametrize(
    ("kernel", "timesyncd", "status"),
    [
        (0, False, "ok"),
        (1, False, "ok"),
        (5, True, "ok"),
        (None, True, "ok"),
        (5, False, "unknown"),
        (None, False, "unknown"),
    ],
)
def test_a_clock_is_well_only_when_something_says_so(kernel: int | None, timesyncd: bool, status: str) -> None:
    assert judge_clock(kernel, timesyncd=timesyncd).status == status


def test_this_machines_clock_is_checked() -> None:
    assert check_clock().status in ("ok", "unknown")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [
        ((), 0),
        (("ok", "ok"), 0),
        (("ok", "warn"), 1),
        (("unknown",), 1),
        (("warn", "unknown", "ok"), 1),
        (("ok", "fail"), 2),
        (("unknown", "fail", "warn"), 2),
    ],
)
def test_the_worst_finding_is_the_exit_code(statuses: tuple[str, ...], code: int) -> None:
    findings = [Finding("area", "", status, "text") for status in statuses]  # type: ignore[arg-type]
    assert exit_code(findings) == code
