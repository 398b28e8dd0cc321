from __future__ import annotations

import asyncio
import os
import random
import re
import signal
import smtplib
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from relay.demo import scene, traffic
from relay.demo.process import RelayFailed, RelayProcess
from relay.demo.standin import Behaviour, Hiccups, StandIn
from tests.support.processes import children


def send(port: int, count: int) -> list[int]:
    """The reply codes to `count` messages on one connection, by the standard library's client."""
    said = []
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        for _ in range(count):
            try:
                client.sendmail("a@example.com", ["b@example.net"], "Subject: hi\n\n.dots\n..\n")
                said.append(250)
            except smtplib.SMTPDataError as error:
                said.append(error.smtp_code)
    return said


async def test_a_stand_in_takes_mail_and_refuses_its_share() -> None:
    async with StandIn("slow", Behaviour(latency_s=(0.0, 0.001), refusals=0.5), seed=3) as standin:
        said = await asyncio.to_thread(send, standin.port, 40)
    assert set(said) == {250, 451}
    assert (standin.accepted, standin.refused) == (said.count(250), said.count(451))


async def test_a_stand_in_answers_a_pipelined_batch_in_order() -> None:
    async with StandIn("fast", Behaviour(latency_s=(0.0, 0.001))) as standin:
        reader, writer = await asyncio.open_connection("127.0.0.1", standin.port)
        writer.write(b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nWHAT\r\nQUIT\r\n")
        answer = (await asyncio.wait_for(reader.read(), 10)).decode().splitlines()
        writer.close()
    finals = [line[:3] for line in answer if line[3] == " "]
    assert finals == ["220", "250", "250", "250", "354", "250", "500", "221"]


async def test_a_stand_in_outlives_a_client_that_leaves_inside_data() -> None:
    async with StandIn("fast", Behaviour(latency_s=(0.0, 0.001))) as standin:
        _, writer = await asyncio.open_connection("127.0.0.1", standin.port)
        writer.write(b"EHLO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nhalf a mes")
        await writer.drain()
        writer.close()
        assert await asyncio.to_thread(send, standin.port, 1) == [250]
        assert standin.accepted == 1


async def test_a_stand_in_refuses_the_mail_of_one_sender_while_it_has_a_hiccup() -> None:
    def behaviour(sender: str) -> Behaviour:
        return Behaviour(latency_s=(0.0, 0.001), hiccups=Hiccups(sender, first_s=0.0, every_s=1e6, last_s=1e5))

    async with StandIn("a", behaviour("a@example.com")) as one, StandIn("b", behaviour("else@example.com")) as other:
        assert one.is_in_hiccup
        assert await asyncio.to_thread(send, one.port, 2) == [451, 451]
        assert await asyncio.to_thread(send, other.port, 2) == [250, 250]


def test_hiccups_come_again_and_again() -> None:
    hiccups = Hiccups("a@example.com", first_s=10.0, every_s=20.0, last_s=4.0)
    assert [second for second in range(60) if hiccups.covers(second)] == [
        10,
        11,
        12,
        13,
        30,
        31,
        32,
        33,
        50,
        51,
        52,
        53,
    ]


async def test_a_killed_stand_in_drops_its_connections_and_comes_back_on_its_port() -> None:
    async with StandIn("fast", Behaviour(latency_s=(0.0, 0.001))) as standin:
        port = standin.port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await asyncio.wait_for(reader.readline(), 10)
        assert standin.kill() == 1
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()
        assert not standin.is_alive
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)
        await standin.revive()
        assert standin.port == port
        assert await asyncio.to_thread(send, port, 1) == [250]


@pytest.mark.parametrize("compose", [traffic.code, traffic.news])
def test_the_apps_mail_is_whole_and_has_crlf_line_ends_only(compose: Callable[..., traffic.Mail]) -> None:
    sender, to, content = compose(random.Random(1), 0)
    head, _, body = content.partition(b"\r\n\r\n")
    assert sender.encode() in head
    assert to.encode() in head
    assert body
    assert b"\n" not in content.replace(b"\r\n", b"")


def test_the_scene_is_a_key_of_its_own_that_only_the_owner_reads(tmp_path: Path) -> None:
    scene.write(tmp_path, fast_port=1, slow_port=2)
    assert (tmp_path / "demo.pem").stat().st_mode & 0o777 == 0o600


async def test_a_relay_that_does_not_start_fails_with_its_reason(tmp_path: Path) -> None:
    config_file = tmp_path / "relay.yaml"
    config_file.write_text("lanes: 7\n")
    with pytest.raises(RelayFailed, match="exit 2"):
        await RelayProcess(config_file).start()


StartDemo = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start_demo() -> AsyncIterator[StartDemo]:
    started = []

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "relay", "demo", *arguments,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def end_of_demo(process: asyncio.subprocess.Process) -> str:
    output, errors = await asyncio.wait_for(process.communicate(), 40)
    assert process.returncode == 0, errors.decode()
    assert errors == b""
    return output.decode()


@pytest.mark.fresh
async def test_the_demo_sends_codes_beside_a_growing_backlog_and_ends_by_itself(start_demo: StartDemo) -> None:
    lines = (await end_of_demo(await start_demo("--seconds", "4"))).splitlines()
    assert lines[0].startswith("console: http://127.0.0.1:")
    assert " | otp: " in lines[1]
    assert " | one queue for all would have taken " in "".join(lines[1:-2])
    assert lines[-2].startswith("In one queue for all, the median code would have taken ")
    assert "\x1b" not in "".join(lines)
    found = re.match(r"(\d+) codes reached their upstream \(p50 \d+ ms.* beside (\d+) bulk .* (\d+) still", lines[-1])
    assert found is not None, lines
    codes, _, waiting = map(int, found.groups())
    assert codes > 0
    assert waiting > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_ends_the_demo_with_exit_0(start_demo: StartDemo, number: signal.Signals) -> None:
    process = await start_demo()
    assert process.stdout is not None
    begin = await asyncio.wait_for(process.stdout.readline(), 30)
    assert begin.startswith(b"console: ")
    process.send_signal(number)
    output = begin.decode() + await end_of_demo(process)
    assert " still waiting." in output.splitlines()[-1]
    port = int(output.splitlines()[0].rstrip("/").rpartition(":")[2])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)


@pytest.mark.fresh
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_at_any_moment_ends_the_demo(start_demo: StartDemo, number: signal.Signals) -> None:
    chance = random.Random(number)
    for _ in range(3):
        process = await start_demo()
        await asyncio.sleep(chance.uniform(0.1, 2.5))
        process.send_signal(number)
        await asyncio.wait_for(process.communicate(), 40)
        # Python itself comes up first; what it makes of a signal is its own.
        assert process.returncode in (0, 1, 130, -number)


SWALLOWS = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "aiohttp":
            try:
                os.kill(os.getpid(), signal.SIGINT)
                for _ in range(1000): pass
            except BaseException:
                pass

sys.meta_path.insert(0, Finder())
from relay.__main__ import main
sys.exit(main(["demo", "--seconds", "30"]))
"""


def test_a_signal_that_an_import_swallows_ends_the_demo_before_it_begins() -> None:
    done = subprocess.run([sys.executable, "-c", SWALLOWS], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


NEVER_READY = """
import functools, sys
from relay.demo import process, run
process.RelayProcess.start.__defaults__ = (600.0,)
relay = (sys.executable, "-c", "import time; time.sleep(600)")
run.RelayProcess = functools.partial(process.RelayProcess, program=relay)
from relay.__main__ import main
sys.exit(main(["demo"]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_a_signal_while_its_relay_starts_ends_the_demo_and_the_relay(number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", NEVER_READY, stderr=asyncio.subprocess.PIPE)
    async with asyncio.timeout(60):
        while not (theirs := children(process.pid)):
            await asyncio.sleep(0.02)
        process.send_signal(number)
        _, errors = await process.communicate()
    assert (process.returncode, errors) == (0, b"")
    assert not any(map(runs, theirs))


def runs(pid: int) -> bool:
    """Neither gone nor a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def test_a_killed_demo_takes_its_relay_with_it(start_demo: StartDemo) -> None:
    process = await start_demo()
    assert process.stdout is not None
    assert (await asyncio.wait_for(process.stdout.readline(), 30)).startswith(b"console: ")
    (relay,) = children(process.pid)
    theirs = [relay, *children(relay)]
    assert all(map(runs, theirs))
    process.kill()
    async with asyncio.timeout(30):
        while any(map(runs, theirs)):
            await asyncio.sleep(0.05)


class Stubborn(traffic.App):
    """An app that submits nothing, and loses its first cancellations."""

    lost = 0

    async def run(self) -> None:
        while True:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.lost += 1
                if self.lost == 3:
                    raise


async def test_an_app_is_cancelled_until_it_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traffic, "CANCEL_EVERY_S", 0.01)
    app = Stubborn("127.0.0.1", 1, traffic.code, 1.0)
    app.start()
    await asyncio.sleep(0)
    await asyncio.wait_for(app.end(), 20)
    assert app.lost == 3


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon", "1e9"])
async def test_a_senseless_duration_is_a_usage_error(start_demo: StartDemo, value: str) -> None:
    process = await start_demo(f"--seconds={value}")
    _, errors = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert b"expected seconds, more than 0 and at most 86400 (a day), got '" in errors
    assert b"Traceback" not in errors


async def test_a_reader_that_leaves_ends_the_demo_without_an_error(start_demo: StartDemo) -> None:
    read, write = os.pipe()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "relay", "demo", "--seconds", "30", stdout=write, stderr=asyncio.subprocess.PIPE
    )
    os.close(write)
    with open(read, "rb") as reader:
        assert (await asyncio.to_thread(reader.readline)).startswith(b"console: ")
    _, errors = await asyncio.wait_for(process.communicate(), 40)
    assert (process.returncode, errors) == (0, b"")
