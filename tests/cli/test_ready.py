"""The command `ready`: a health check, and a way to wait for the relay."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path

import pytest

from relay.__main__ import main
from tests.cli.test_imports import COSTLY, loaded_by, run
from tests.support.relay import RelayProcess, command, write_config
from tests.support.upstream import Upstream

DEAD = {"mx": {"host": "127.0.0.1", "port": 1, "tls": "none"}}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_a_relay_is_ready_even_while_its_upstream_is_dead(tmp_path: Path) -> None:
    config = write_config(tmp_path, DEAD, http={"address": f"127.0.0.1:{free_port()}"})
    async with RelayProcess(config):
        said = await command("ready", "-c", config)
    assert (said.code, said.out, said.err) == (0, "ready\n", "")


async def test_it_asks_over_a_unix_socket_and_needs_no_token(tmp_path: Path) -> None:
    config = write_config(tmp_path, DEAD, http={"address": "unix:http.sock", "token": "hunter2"})
    async with RelayProcess(config):
        said = await command("ready", "-c", config)
    assert (said.code, said.out) == (0, "ready\n")


async def test_a_relay_that_takes_no_mail_says_why(tmp_path: Path) -> None:
    http = {"address": f"127.0.0.1:{free_port()}"}
    config = write_config(tmp_path, DEAD, http=http, queue={"min_free": "1024GiB"})
    async with RelayProcess(config):
        said = await command("ready", "-c", config)
    assert said.code == 1
    assert said.err.startswith("otp-relay: not ready: ")
    assert said.err.endswith(": queue full: min_free\n")
    assert said.err.count("\n") == 1


async def test_without_a_relay_it_says_so_in_one_line(tmp_path: Path) -> None:
    port = free_port()
    config = write_config(tmp_path, DEAD, http={"address": f"127.0.0.1:{port}"})
    said = await command("ready", "-c", config)
    assert (said.code, said.out) == (1, "")
    assert said.err == f"otp-relay: not ready: no relay answers at 127.0.0.1:{port}\n"


async def test_wait_ends_once_the_relay_is_there(tmp_path: Path) -> None:
    config = write_config(tmp_path, DEAD, http={"address": f"127.0.0.1:{free_port()}"})
    waiting = asyncio.create_task(command("ready", "--wait", "30s", "-c", config))
    await asyncio.sleep(0)
    async with RelayProcess(config):
        said = await waiting
    assert (said.code, said.out) == (0, "ready\n")


def test_wait_ends_after_its_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(f"http: {{address: '127.0.0.1:{free_port()}'}}\n")
    assert main(["ready", "--wait", "300ms", "-c", str(config)]) == 1
    assert capsys.readouterr().err.endswith("(waited 300ms)\n")


def test_it_reads_nothing_but_the_address(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text("http: {address: '127.0.0.1:1'}\nlanes: {otp: {upstreams: '${UNSET_HERE}'}}\nnonsense: 1\n")
    assert main(["ready", "-c", str(config)]) == 1
    assert "no relay answers at 127.0.0.1:1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("http: {address: systemd:http}\n", "systemd:http isn't known here"),
        ("http: {address: 8025}\n", "expected an address"),
        ("http: [\n", "not a mapping"),
    ],
)
def test_an_address_that_cant_be_asked_is_named(
    text: str, why: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text(text)
    assert main(["ready", "-c", str(config)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("otp-relay: not ready: ")
    assert why in said


async def test_what_else_listens_there_is_no_relay(tmp_path: Path) -> None:
    async with Upstream() as other:
        config = tmp_path / "relay.yaml"
        config.write_text(f"http: {{address: '127.0.0.1:{other.port}'}}\n")
        said = await command("ready", "-c", config)
    assert said.code == 1
    assert "no proper answer" in said.err


def test_it_loads_little(tmp_path: Path) -> None:
    config = tmp_path / "relay.yaml"
    config.write_text("http: {address: '127.0.0.1:1'}\n")
    loaded = loaded_by(run("ready", "-c", str(config)), dict(os.environ))
    assert loaded & COSTLY == {"dataclasses", "email", "http", "ssl", "yaml"}
