"""`otp-relay user add`, as a program."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from relay.intake.users import Users, read_users

PROGRAM = """
import argparse, sys
from relay.cli import user
parser = argparse.ArgumentParser()
user.register(parser.add_subparsers(required=True))
args = parser.parse_args()
sys.exit(args.run(args))
"""


def run(*arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "relay", *arguments]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=False)


def add(name: str, path: Path, given: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", PROGRAM, "user", "add", name, "--file", str(path)]
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=30, check=False)


async def test_an_added_user_can_log_in_and_the_password_can_be_changed(tmp_path: Path) -> None:
    path = tmp_path / "users"
    assert add("app", path, "first one\n").returncode == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o640)
    path.write_text("# ours\n" + path.read_text())
    assert add("other", path, "x\n").returncode == 0
    done = add("app", path, "second one\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert "second one" not in done.stdout + path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(read_users(path)) == ["other", "app"]
    assert path.read_text().startswith("# ours\n")
    users = Users.load(path)
    assert await users.verify("app", b"second one")
    assert not await users.verify("app", b"first one")
    assert await users.verify("other", b"x")
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("name", "given", "complaint"), [("a:b", "x\n", "no blanks"), ("", "x\n", "no blanks"), ("app", "", "no password")]
)
def test_what_can_t_be_added_leaves_no_file(name: str, given: str, complaint: str, tmp_path: Path) -> None:
    done = add(name, tmp_path / "users", given)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_users_file_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "users"
    path.write_text("not a users file\n")
    done = add("app", path, "x\n")
    assert done.returncode == 2
    assert f"{path}:1: expected name:" in done.stderr
    assert path.read_text() == "not a users file\n"


LISTENER = "listen: {address: 127.0.0.1:2525, auth: required, users_file: users}\n"
REST = "upstreams: {mx: {host: 127.0.0.1, port: 1, tls: none}}\nlanes: {bulk: {upstreams: mx}}\n"


def test_the_first_user_makes_the_file_that_the_configuration_names(tmp_path: Path) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(LISTENER + REST)
    assert "users_file: no such file" in run("check", "-c", str(config)).stderr
    done = run("user", "add", "app", "-c", str(config), given="secret\n")
    assert (done.returncode, done.stderr) == (0, "")
    assert list(read_users(tmp_path / "users")) == ["app"]
    assert run("check", "-c", str(config)).returncode == 0


@pytest.mark.parametrize("mistake", ["lanes: {bulk: {upstreams: mx, expires: 10}}", "nonsense: 1"])
def test_another_mistake_in_the_configuration_is_still_told(tmp_path: Path, mistake: str) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(LISTENER + (REST if "lanes" not in mistake else REST.partition("lanes")[0]) + mistake + "\n")
    done = run("user", "add", "app", "-c", str(config), given="secret\n")
    assert done.returncode == 2
    assert "users_file" not in done.stderr
    assert not (tmp_path / "users").exists()


def test_a_users_file_that_is_a_folder_is_still_told(tmp_path: Path) -> None:
    (tmp_path / "users").mkdir()
    config = tmp_path / "relay.yaml"
    config.write_text(LISTENER + REST)
    done = run("user", "add", "app", "-c", str(config), given="secret\n")
    assert done.returncode == 2
    assert "this is a folder" in done.stderr
