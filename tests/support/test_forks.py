"""A relay that was forked is, from outside, one that was started anew."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.support import forks
from tests.support.app import BULK, Talk, letter
from tests.support.processes import workers
from tests.support.relay import RelayProcess, until, write_config
from tests.support.upstream import Upstream

pytestmark = pytest.mark.skipif(not forks.possible(), reason="no forks here: every start takes a new interpreter")

RELAY = [sys.executable, "-m", "relay"]
LETTER = b"From: a@example.com\r\nSubject: hi\r\n\r\nhello\r\n"
CONFIG = "upstreams: {mx: {host: '${MX}', port: 1, tls: none}}\nlanes: {bulk: {upstreams: mx}}\n"

WAITS = [*RELAY, "explain", "-c", "relay.yaml", "-"]
"""for the message on its standard input"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "relay.yaml").write_text(CONFIG)
    (tmp_path / "broken.yaml").write_text("lanes: [")
    return tmp_path


@pytest.fixture
def anew() -> Iterator[None]:
    """Until the test ends, no forks."""
    yield
    forks.SERVER.is_used = True


COMMANDS = [
    ("--version",), ("log",), ("store", "check"), ("check",), ("check", "-c", "broken.yaml"), ("explain", "-"),
    ("lint", "-"),
    ("user", "add", "x", "--file", "/nowhere/users"), ("sendmail", "-t"), ("keygen",), ("run", "-c", "broken.yaml"),
]  # fmt: skip


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_ends_and_says_the_same(folder: Path, words: Sequence[str], anew: None) -> None:
    """Its arguments, input, environment and working directory reach it."""

    def ended() -> tuple[int, bytes, bytes]:
        environment = {**os.environ, "MX": "127.0.0.1", "OTP_RELAY_SUBMIT": "127.0.0.1:1"}
        done = subprocess.run(
            [*RELAY, *words], cwd=folder, env=environment, input=LETTER, capture_output=True, timeout=30, check=False
        )
        return done.returncode, done.stdout, done.stderr

    forked = ended()
    forks.SERVER.is_used = False
    assert forked == ended()


def test_it_is_a_child_with_a_session_and_descriptors_of_its_own(folder: Path) -> None:
    mine, passed = os.pipe()
    process = subprocess.Popen(
        WAITS,
        cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, pass_fds=(passed,), start_new_session=True,
        env={**os.environ, "MX": "127.0.0.1"},
    )  # fmt: skip
    os.close(mine)
    os.close(passed)
    assert is_forked(process.pid)
    assert os.getsid(process.pid) == process.pid
    assert f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{process.pid}/status").read_text()
    assert {0, 1, 2, passed} <= {int(name) for name in os.listdir(f"/proc/{process.pid}/fd")}
    assert os.readlink(f"/proc/{process.pid}/fd/{passed}").startswith("pipe:")
    process.send_signal(signal.SIGKILL)
    with process:
        assert process.wait(10) == -signal.SIGKILL


def test_its_pipes_end_with_it(folder: Path) -> None:
    """Nothing else holds them open: not another one that is forked meanwhile, nor what forks."""
    environment = {**os.environ, "MX": "127.0.0.1"}
    with (
        subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=environment) as one,
        subprocess.Popen(WAITS, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, env=environment) as other,
    ):
        one.kill()
        assert one.stdout is not None
        assert one.stdout.read() == b""
        assert other.communicate(LETTER, 30)[0] != b""


NOT_FORKED = {
    "another program": ([sys.executable, "-c", "import time; time.sleep(60)"], {}),
    "another module": ([sys.executable, "-m", "http.server", "0", "--bind", "127.0.0.1"], {}),
    "what the interpreter heeds": (WAITS, {"PYTHONDEVMODE": "1"}),
}


@pytest.mark.parametrize("what", NOT_FORKED)
def test_what_a_fork_cannot_be_takes_an_interpreter(what: str, folder: Path) -> None:
    command, environment = NOT_FORKED[what]
    with subprocess.Popen(
        command,
        cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL,
        env={**os.environ, "MX": "127.0.0.1", **environment},
    ) as process:  # fmt: skip
        assert not is_forked(process.pid)
        process.kill()


@pytest.mark.fresh
def test_a_test_may_ask_for_interpreters(folder: Path) -> None:
    with subprocess.Popen(
        WAITS, cwd=folder, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, "MX": "127.0.0.1"}
    ) as process:
        assert not is_forked(process.pid)
        process.kill()


async def test_the_worker_of_a_relay_that_was_forked_is_started_again(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=1)
        async with RelayProcess(config) as relay:
            for number in (1, 2):

                async def is_ready(number: int = number) -> bool:
                    return relay.stderr.count("event=worker_ready") == number

                await until(is_ready)
                (worker,) = workers(relay.pid)
                assert is_forked(relay.pid)
                async with Talk(relay.smtp) as app:
                    await app.submit(letter(), BULK, "user@example.net")
                await upstream.wait_for(number)
                os.kill(worker, signal.SIGKILL)
            assert await relay.terminate() == 0


def is_forked(pid: int) -> bool:
    deadline = time.monotonic() + 5
    # It is empty for a moment behind exec(2), and for good once the process has ended.
    while not (words := Path(f"/proc/{pid}/cmdline").read_bytes()):
        assert time.monotonic() < deadline, "it has ended: its command line is gone"
        time.sleep(0.001)
    return b"forks_server" in words
