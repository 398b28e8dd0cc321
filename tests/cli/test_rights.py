"""A user without rights is told in one line what to do, and never in a traceback."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from time import time

import pytest

from tests.cli.test_mail_commands import fill
from tests.config.keyfiles import write_keys

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

DENIED = "otp-relay: permission denied: run it as root or as the relay's user"
CONFIG = """\
http: {address: 127.0.0.1:8026}
upstreams: {mx: {host: 127.0.0.1, port: 1, tls: none}}
lanes: {otp: {upstreams: mx}, bulk: {upstreams: mx}}
dkim: {domain: example.com, keys: {selector: s1, key_file: keys/rsa2048.pem}}
"""
AS_NOBODY = """
import contextlib, encodings.idna, io, json, os, sys, traceback
import relay.service.app, relay.config.load, relay.doctor.examine
from relay.__main__ import main

def run(arguments, config, streams):
    for number, path in enumerate(streams):
        os.dup2(os.open(path, os.O_RDWR), number)
    os.setresuid(65534, 65534, 65534)
    return main([*arguments, "-c", config])

usable, commands = sys.argv[1], json.loads(sys.argv[2])
asked = os.fdopen(os.dup(0))
os.dup2(os.open(os.devnull, os.O_RDONLY), 0)  # some of them read it
for arguments in commands:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        with contextlib.suppress(BaseException):
            main([*arguments, "-c", usable])
for line in asked:
    child = os.fork()
    if not child:
        code = 1
        try:
            code = run(**json.loads(line))
        except SystemExit as end:
            code = end.code
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""Each command once as root, on another store, so that all is loaded: the other user may not read the interpreter.
Then what stdin asks for, each in a child that has become the other user: its exit code on stdout."""


def made(folder: Path) -> Path:
    """A configuration that every user may read, with keys and a store of two files."""
    folder.mkdir()
    folder.chmod(0o755)
    write_keys(folder / "keys")
    (folder / "keys").chmod(0o755)
    (folder / "keys/rsa2048.pem").chmod(0o644)
    for name in ("relay.db", "relay-bulk1.db"):
        asyncio.run(fill(folder / "data" / name, time()))
    config = folder / "relay.yaml"
    config.write_text(CONFIG)
    config.chmod(0o644)
    return config


@pytest.fixture(scope="module")
def base() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        made(Path(folder) / "usable")
        made(Path(folder) / "closed")
        yield Path(folder)


@pytest.fixture
def closed(base: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A configuration, of which one thing is closed to other users: its path and mode are the parameter."""
    name, others = request.param
    config = base / "closed/relay.yaml"
    path = config.parent / name
    before = path.stat().st_mode
    (config.parent / "data").chmod(0o755)
    path.chmod(others)
    yield config
    path.chmod(before)


READS = [
    ("log",), ("log", "01A"), ("queue",), ("report",), ("store", "check"), ("store", "compact"),
    ("store", "backup", "/nowhere/copy.db"), ("queue", "hold", "--all"),
]  # fmt: skip
OTHERS = [("check",), ("user", "add", "x"), ("explain", "-"), ("doctor",)]


class Nobody:
    """Runs commands as another user."""

    def __init__(self, base: Path, server: subprocess.Popen[str]) -> None:
        self._streams = [base / name for name in ("stdin", "stdout", "stderr")]
        self._server = server

    def __call__(self, config: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        for stream, text in zip(self._streams, ("x\n", "", ""), strict=True):
            stream.write_text(text)
        asked = {"arguments": arguments, "config": str(config), "streams": list(map(str, self._streams))}
        self._server.stdin.write(f"{json.dumps(asked)}\n")
        self._server.stdin.flush()
        code = int(self._server.stdout.readline())
        _, output, errors = (stream.read_text() for stream in self._streams)
        return subprocess.CompletedProcess(arguments, code, output, errors)


@pytest.fixture(scope="module")
def as_nobody(base: Path) -> Iterator[Nobody]:
    command = [sys.executable, "-c", AS_NOBODY, str(base / "usable/relay.yaml"), json.dumps([*READS, *OTHERS])]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as server:
        yield Nobody(base, server)
        server.terminate()


@pytest.mark.parametrize("closed", [("data", 0o700), ("data", 0o755)], indirect=True, ids=["folder", "files"])
@pytest.mark.parametrize("arguments", READS, ids=" ".join)
def test_a_store_of_another_user_is_one_line_with_what_to_do(
    closed: Path, arguments: tuple[str, ...], as_nobody: Nobody
) -> None:
    done = as_nobody(closed, *arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"{DENIED}\n"


@pytest.mark.parametrize("closed", [("data", 0o700)], indirect=True, ids=["folder"])
def test_the_http_service_is_named_where_it_answers_others_by_a_token(closed: Path, as_nobody: Nobody) -> None:
    closed.write_text(CONFIG.replace("8026}", "8026, token: '${NOT_THIS_USERS}'}"))
    try:
        assert as_nobody(closed, "log").stderr == f"{DENIED}, or ask http://127.0.0.1:8026/ with its token\n"
    finally:
        closed.write_text(CONFIG)


@pytest.mark.parametrize("closed", [("data", 0o700), ("data", 0o755)], indirect=True, ids=["folder", "files"])
def test_an_action_names_the_store_and_not_a_file_that_it_does_not_need(closed: Path, as_nobody: Nobody) -> None:
    keys = closed.parent / "keys"
    keys.chmod(0o700)
    try:
        done = as_nobody(closed, "queue", "hold", "--all")
    finally:
        keys.chmod(0o755)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"{DENIED}\n")


@pytest.mark.parametrize("closed", [("keys/rsa2048.pem", 0o600), ("keys", 0o700)], indirect=True, ids=["key", "keys"])
@pytest.mark.parametrize(
    "arguments", [*READS[:5], ("check",), ("queue", "hold", "--all"), ("user", "add", "x")], ids=" ".join
)
def test_a_key_file_of_another_user_is_one_line(closed: Path, arguments: tuple[str, ...], as_nobody: Nobody) -> None:
    done = as_nobody(closed, *arguments)
    assert len(done.stderr.splitlines()) == 1
    assert "permission denied: run it as root or as the relay's user" in done.stderr
    assert done.returncode in (1, 2)


@pytest.mark.parametrize("closed", [("relay.yaml", 0o600)], indirect=True, ids=["configuration"])
@pytest.mark.parametrize("arguments", [*READS, ("check",), ("user", "add", "x"), ("explain", "-")], ids=" ".join)
def test_a_configuration_of_another_user_is_one_line(
    closed: Path, arguments: tuple[str, ...], as_nobody: Nobody
) -> None:
    done = as_nobody(closed, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{closed}: can't read {closed}: permission denied: run it as root or as the relay's user\n"


@pytest.mark.parametrize("closed", [("data", 0o700), ("relay.yaml", 0o600), ("keys", 0o700)], indirect=True)
def test_doctor_reports_what_it_may_not_read(closed: Path, as_nobody: Nobody) -> None:
    done = as_nobody(closed, "doctor")
    said = " ".join(done.stdout.split())  # the text is wrapped
    assert "Traceback" not in done.stderr
    assert "run doctor as the relay's user" in said or "run it as root or as the relay's user" in said
