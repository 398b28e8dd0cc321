"""What systemd hears of the relay, what it hands over, and that none of it reaches the workers: real sockets, the real
process."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

import aiohttp
import pytest

import relay
from relay.service.sdnotify import ServiceManager
from tests.support.app import BULK, Talk, letter
from tests.support.processes import workers
from tests.support.relay import RelayProcess, until, until_logged, write_config
from tests.support.upstream import Upstream

SD_LISTEN_FDS_START = 3
ACTIVATED = f"""
import os, sys
fds = [os.dup2(int(fd), {SD_LISTEN_FDS_START} + n) for n, fd in enumerate(os.environ["PASS"].split())]
os.environ |= {{"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(fds))}}
os.execv(sys.executable, [sys.executable, "-m", "relay", *sys.argv[1:]])
"""
"""starts a command as systemd starts a service: the sockets from 3 on, under its own process id"""


class Manager:
    """NOTIFY_SOCKET's other end."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(name if name.startswith("/") else f"\0{name[1:]}")
        self._socket.setblocking(False)

    async def heard(self, within_s: float = 15.0) -> dict[str, str]:
        """The next datagram."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(within_s):
            said = await loop.run_in_executor(None, self._wait, within_s)
        return dict(line.split("=", 1) for line in said.decode().split("\n"))

    async def silent(self, for_s: float) -> None:
        """Returns when nothing was heard for so long."""
        with contextlib.suppress(TimeoutError):
            while True:
                await self.heard(for_s)

    def _wait(self, within_s: float) -> bytes:
        self._socket.settimeout(within_s)
        return self._socket.recv(4096)

    def close(self) -> None:
        self._socket.close()


@pytest.fixture(params=["path", "abstract"])
async def manager(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Manager]:
    one = Manager(str(tmp_path / "notify") if request.param == "path" else f"@otp-relay-test-{os.getpid()}")
    yield one
    one.close()


async def test_systemd_hears_of_the_start_of_reloads_good_and_bad_and_of_the_drain(
    tmp_path: Path, manager: Manager
) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0)
        async with RelayProcess(config, {"NOTIFY_SOCKET": manager.name}) as relay:
            ready = await manager.heard()
            assert ready == {"READY": "1", "STATUS": f"takes mail on {relay.smtp_addresses[0]}"}
            good = config.read_text()
            for text, status in ((good, ready["STATUS"]), ("lanes: [", f"{ready['STATUS']}; a reload was refused")):
                config.write_text(text)
                before_us = time.monotonic_ns() // 1000
                relay.send(signal.SIGHUP)
                began = await manager.heard()
                assert began["RELOADING"] == "1"
                assert before_us < int(began["MONOTONIC_USEC"]) < time.monotonic_ns() // 1000
                assert await manager.heard() == {"READY": "1", "STATUS": status}
            relay.send(signal.SIGTERM)
            assert await manager.heard() == {"STOPPING": "1", "STATUS": "draining"}
            assert await relay.wait() == 0
            assert "Traceback" not in relay.stderr


async def test_a_start_that_fails_never_says_ready(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
        listen = [{"address": f"127.0.0.1:{taken.getsockname()[1]}"}]
        relay = RelayProcess(
            write_config(tmp_path, {"up": keys}, listen=listen, workers=0), {"NOTIFY_SOCKET": manager.name}
        )
        with pytest.raises(Exception, match="exit 1"):
            await relay.start()
    with pytest.raises(TimeoutError):
        await manager.heard(0.05)
    manager.close()


async def test_the_watchdog_hears_the_loop_until_it_hangs(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    environment = {"NOTIFY_SOCKET": manager.name, "WATCHDOG_USEC": "400000"}
    async with RelayProcess(write_config(tmp_path, {"up": keys}, workers=0), environment) as relay:
        assert (await manager.heard())["READY"] == "1"
        for _ in range(3):
            assert await manager.heard() == {"WATCHDOG": "1"}
        relay.send(signal.SIGSTOP)
        await manager.silent(1.0)
        relay.send(signal.SIGCONT)
        assert await manager.heard() == {"WATCHDOG": "1"}
    manager.close()


@pytest.mark.parametrize(
    ("environment", "fed"),
    [
        ({"WATCHDOG_USEC": "20000"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "7"}, True),
        ({"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "8"}, False),
        ({"WATCHDOG_USEC": "0"}, False),
        ({"WATCHDOG_USEC": "soon"}, False),
        ({"WATCHDOG_USEC": "\N{SUPERSCRIPT TWO}"}, False),
        ({}, False),
    ],
)
async def test_only_a_watchdog_of_this_process_is_fed(
    tmp_path: Path, environment: Mapping[str, str], fed: bool
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    ours = ServiceManager.of({"NOTIFY_SOCKET": manager.name, **environment}, pid=7)
    ours.ready("is up")
    assert await manager.heard() == {"READY": "1", "STATUS": "is up"}
    if fed:
        assert [await manager.heard() for _ in range(3)] == [{"WATCHDOG": "1"}] * 3
    else:
        with pytest.raises(TimeoutError):
            await manager.heard(0.1)
    ours.close()
    manager.close()


async def test_what_a_busy_manager_cant_take_now_it_hears_later_and_nobody_waits(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    ours = ServiceManager(manager.name)
    for n in range(1000):  # far more than a socket's queue holds (net.unix.max_dgram_qlen)
        ours.ready(str(n))
    for n in range(1000):
        assert (await manager.heard())["STATUS"] == str(n)
    ours.close()
    manager.close()


@pytest.mark.parametrize("address", ["vsock:2:1234", "relative", "/no/such/folder/notify", f"@{'x' * 200}"])
async def test_a_manager_that_cant_be_told_is_no_reason_to_fail(address: str, caplog: pytest.LogCaptureFixture) -> None:
    ours = ServiceManager.of({"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "20000"}, os.getpid())
    ours.ready("is up")
    ours.stopping()
    ours.close()
    assert "where=notify" in caplog.text


async def test_sockets_of_systemds_serve_mail_and_http_and_stay_out_of_the_workers(tmp_path: Path) -> None:
    manager = Manager(str(tmp_path / "notify"))
    async with Upstream() as upstream:
        config = write_config(
            tmp_path,
            {"up": upstream},
            listen=[{"address": "systemd:smtp"}],
            http={"address": "systemd:http", "token": "a-token-of-some-length"},
            workers=1,
        )
        with (
            socket.create_server(("127.0.0.1", 0)) as smtp,
            socket.create_server(("127.0.0.1", 0)) as http,
            socket.socket(socket.AF_UNIX) as more,
        ):
            more.bind(f"{tmp_path}/http.sock")
            more.listen()
            passed = [smtp, http, more]
            # Out of the way of the numbers that they are moved to.
            fds = [os.dup(each.fileno()) for each in passed for _ in range(2)][1::2]
            environment = {
                "PASS": " ".join(map(str, fds)),
                "LISTEN_FDNAMES": "smtp:http:http",
                "NOTIFY_SOCKET": manager.name,
                "WATCHDOG_USEC": "60000000",
            }
            program = (sys.executable, "-c", ACTIVATED)
            async with RelayProcess(config, environment, program=program, pass_fds=fds) as relay:
                assert relay.smtp == smtp.getsockname()
                assert relay.http_address == f"127.0.0.1:{http.getsockname()[1]}"
                headers = {"Authorization": "Bearer a-token-of-some-length"}
                for connector, base in (
                    (aiohttp.TCPConnector(), f"http://{relay.http_address}"),
                    (aiohttp.UnixConnector(f"{tmp_path}/http.sock"), "http://relay"),
                ):
                    async with aiohttp.ClientSession(connector=connector) as client:
                        async with client.get(f"{base}/metrics") as answer:
                            assert answer.status == 401
                        async with client.get(f"{base}/metrics", headers=headers) as answer:
                            assert answer.status == 200
                await until_logged(relay, "event=worker_ready")
                async with Talk(relay.smtp) as app:
                    await app.submit(letter(), BULK, "user@example.net")
                await upstream.wait_for(1)
                (worker,) = workers(relay.pid)
                # It would keep the port busy when the relay is gone. (The relay itself has each twice here.)
                inodes = {os.fstat(each.fileno()).st_ino for each in passed}
                assert not inodes & {
                    os.stat(one).st_ino for one in Path(f"/proc/{worker}/fd").iterdir() if one.exists()
                }
                assert await relay.terminate() == 0
            for fd in set(fds):
                os.close(fd)
    manager.close()


async def test_a_worker_has_its_modules_from_where_the_relay_has_them(tmp_path: Path) -> None:
    """Not from the working directory, which may be anybody's."""
    for name in ("relay.py", "socket.py"):
        (tmp_path / name).write_text("raise SystemExit('the wrong module')")
    keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    config = write_config(tmp_path, {"up": keys}, workers=1)
    here = f"import os, sys; os.chdir({str(tmp_path)!r}); from relay.__main__ import main; sys.exit(main())"
    environment = {"PYTHONPATH": str(Path(relay.__file__).parents[1])}
    async with RelayProcess(config, environment, program=(sys.executable, "-P", "-c", here)) as one:
        await until(_working(one))


async def test_a_relay_that_was_imported_from_the_working_directory_has_workers(tmp_path: Path) -> None:
    config = write_config(tmp_path, {"up": {"host": "127.0.0.1", "port": 9, "tls": "none"}}, workers=1)
    # As `python -c` in a checkout has it; an installed relay would be found anyway.
    root = str(Path(relay.__file__).parents[1])
    here = (
        f"import os, sys; os.chdir({root!r});"
        f" sys.path[:] = ['', *(one for one in sys.path if one and one != {root!r})];"
        " sys.meta_path[:] = [one for one in sys.meta_path if 'editable' not in repr(one)];"
        " from relay.__main__ import main; sys.exit(main())"
    )
    async with RelayProcess(config, program=(sys.executable, "-c", here)) as one:
        await until(_working(one))


def _working(one: RelayProcess) -> Callable[[], Awaitable[bool]]:
    async def working() -> bool:
        return "event=worker_ready" in one.stderr

    return working


async def test_a_socket_that_systemd_didnt_pass_is_named(tmp_path: Path) -> None:
    keys = {"host": "127.0.0.1", "port": 9, "tls": "none"}
    http = {"address": "systemd:http", "token": "a-token-of-some-length"}
    with pytest.raises(Exception, match=r"systemd passed no socket of that name") as failed:
        await RelayProcess(write_config(tmp_path, {"up": keys}, http=http, workers=0)).start()
    assert "http.address: cannot listen on systemd:http" in str(failed.value)
    assert "Traceback" not in str(failed.value)


async def test_the_watchdog_goes_on_when_there_is_no_descriptor_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manager = Manager(str(tmp_path / "notify"))
    fed = ServiceManager(manager.name, watchdog_s=0.02)
    whole, left = socket.socket, [OSError(24, "Too many open files")] * 2

    def short(*arguments: int) -> socket.socket:
        if left:
            raise left.pop()
        return whole(*arguments)

    monkeypatch.setattr(socket, "socket", short)
    try:
        fed.ready("takes mail")
        assert await manager.heard() == {"WATCHDOG": "1"}
        assert await manager.heard() == {"WATCHDOG": "1"}
    finally:
        fed.close()
        manager.close()
