"""The demo in a terminal (a pty): its picture, its keys, and how it leaves the terminal."""

from __future__ import annotations

import asyncio
import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from relay.demo.terminal import ENTER, LEAVE, can_show_picture

SEEN_WITHIN_S = 30.0
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Terminal:
    """A terminal of its own with the demo in it."""

    def __init__(self, columns: int, rows: int) -> None:
        self.fd, self.other_fd = pty.openpty()
        self.resize(columns, rows)
        self.attributes: list[Any] = termios.tcgetattr(self.other_fd)
        self.output = ""
        self.process: asyncio.subprocess.Process

    async def start(self, *arguments: str, **environment: str) -> None:
        """As a shell does: a session of its own, whose controlling terminal this is."""
        program = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, sys.executable, "-m", "relay", "demo", *arguments,
            stdin=self.other_fd, stdout=self.other_fd, stderr=self.other_fd, start_new_session=True,
            env={**os.environ, "TERM": "xterm", "LANG": "C.UTF-8", **environment},
        )  # fmt: skip
        asyncio.get_running_loop().add_reader(self.fd, self._read)

    def _read(self) -> None:
        self.output += os.read(self.fd, 65_536).decode("utf-8", "replace")

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.other_fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    async def sees(self, pattern: str, since: int = 0) -> int:
        """Wait until it was shown. Returns how much was shown by then."""
        async with asyncio.timeout(SEEN_WITHIN_S):
            while not re.search(pattern, CONTROL.sub("", self.output[since:])):
                assert self.process.returncode is None, self.output
                await asyncio.sleep(0.02)
        return len(self.output)

    async def end(self) -> str:
        """What was shown after the picture, once the demo has ended well and has left the terminal as it was."""
        assert await asyncio.wait_for(self.process.wait(), SEEN_WITHIN_S) == 0
        await asyncio.sleep(0)
        assert termios.tcgetattr(self.other_fd) == self.attributes
        before, entered, shown = self.output.partition(ENTER)
        assert entered
        assert "console: http://127.0.0.1:" in before
        _, left, after = shown.rpartition(LEAVE)
        assert left
        return after

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.fd)
        os.close(self.fd)
        os.close(self.other_fd)


MakeTerminal = Callable[..., Awaitable[Terminal]]


@pytest.fixture
async def terminal() -> AsyncIterator[MakeTerminal]:
    made: list[Terminal] = []

    async def make(*arguments: str, columns: int = 80, rows: int = 24, **environment: str) -> Terminal:
        one = Terminal(columns, rows)
        made.append(one)
        await one.start(*arguments, **environment)
        return one

    yield make
    for one in made:
        if one.process.returncode is None:
            one.process.kill()
            await one.process.wait()
        one.close()


async def test_keys_send_a_burst_and_kill_and_revive_the_fast_upstream(terminal: MakeTerminal) -> None:
    shown = await terminal()
    await shown.sees(r"k kill fast +b burst of 50 codes +q quit")
    await shown.sees(r"fast +up +\d+\.[1-9] codes/s")
    shown.type("b")
    await shown.sees(r"burst: 50 codes are sent, each within \d+ to \d+ ms")
    at = len(shown.output)
    shown.type("k")
    at = await shown.sees(r"fast +DOWN .*fast is down: codes go by slow", at)
    await shown.sees(r"k revive fast")
    at = await shown.sees(r"slow +\w+ +(0\.[1-9]|[1-9]\d*\.\d) codes/s", at)
    shown.type("K")
    await shown.sees(r"fast is back: codes go by fast again", at)
    shown.type("q")
    assert " bulk messages sent and " in await shown.end()
    assert "\x1b[32;1m●" in shown.output


async def test_the_end_by_ctrl_c_and_by_a_signal_leaves_the_terminal_as_it_was(terminal: MakeTerminal) -> None:
    async def ended_by(end: Callable[[Terminal], None]) -> None:
        shown = await terminal(columns=60, rows=20, NO_COLOR="1", LC_ALL="C")
        await shown.sees("k kill fast .* q quit")
        shown.resize(40, 10)
        shown.process.send_signal(signal.SIGWINCH)
        await shown.sees("k kill fast .* q qu(?!i)")
        await suspend(shown)
        end(shown)
        after = await shown.end()
        assert after.splitlines()[-1].endswith(" still waiting.")
        assert shown.output.isascii()
        assert not re.search(r"\x1b\[[\d;]*m", shown.output)

    await asyncio.gather(
        ended_by(lambda shown: shown.type("\x03")),
        ended_by(lambda shown: shown.process.terminate()),
    )


async def suspend(shown: Terminal) -> None:
    """Ctrl-Z gives the terminal back until the demo goes on."""
    shown.type("\x1a")
    async with asyncio.timeout(SEEN_WITHIN_S):
        while not shown.output.endswith(LEAVE) or termios.tcgetattr(shown.other_fd) != shown.attributes:
            await asyncio.sleep(0.02)
    at = len(shown.output)
    shown.process.send_signal(signal.SIGCONT)
    await shown.sees("k kill fast", at)


@pytest.mark.parametrize(
    ("term", "answer"), [("xterm", True), ("linux", True), ("dumb", False), ("", False), (None, False)]
)
def test_the_picture_is_for_terminals_that_understand_it(
    monkeypatch: pytest.MonkeyPatch, term: str | None, answer: bool
) -> None:
    fd, other_fd = pty.openpty()
    with open(fd, "rb"), open(other_fd, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert can_show_picture({} if term is None else {"TERM": term}) is answer


def test_a_pipe_gets_no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    fd, other_fd = os.pipe()
    with open(fd, "rb"), open(other_fd, "w") as stdout:
        monkeypatch.setattr(sys, "stdout", stdout)
        assert not can_show_picture({"TERM": "xterm"})
