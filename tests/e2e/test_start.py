"""What keeps the relay from starting is one clear line and an exit code, never a traceback, and touches nothing."""

from __future__ import annotations

import asyncio
import os
import re
import socket
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.app import BULK, Talk, letter
from tests.support.relay import RelayProcess, Said, command, get, time_line, write_config
from tests.support.upstream import Upstream

NOWHERE: dict[str, object] = {"host": "127.0.0.1", "port": 9, "tls": "none"}


def failed_with_one_line(said: Said, code: int) -> str:
    """The line, the log's own lines left out."""
    assert "Traceback" not in said.err
    assert said.out == ""
    lines = [line for line in said.err.splitlines() if " event=" not in line]
    assert len(lines) == 1, said.err
    assert said.code == code, said.err
    return lines[0]


def text_file(path: Path) -> None:
    path.write_text("not a database, but somebody's notes\n" * 100)


def another_database(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE message (id TEXT)")
        connection.execute("INSERT INTO message VALUES ('mine')")
        connection.commit()


def folder(path: Path) -> None:
    path.mkdir()


def cut_short(path: Path) -> None:
    """A store that lost its end."""
    asyncio.run(_fill(path))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])


async def _fill(path: Path) -> None:
    async with Upstream(script={"mail": "451 4.3.0 later"}) as upstream:
        config = write_config(path.parent, {"one": upstream}, workers=0)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                for _ in range(20):
                    await app.submit(letter("x" * 4000), BULK, "user@example.net")
            await relay.terminate()


STORES: dict[str, tuple[Callable[[Path], None], str]] = {
    "a text file": (text_file, "not a store of otp-relay"),
    "another program's database": (another_database, "not a store of otp-relay"),
    "a folder": (folder, "not a file"),
    "cut short": (cut_short, "damaged"),
}


@pytest.mark.parametrize("what", STORES)
def test_a_store_that_is_none_is_named_and_left_untouched(tmp_path: Path, what: str) -> None:
    make, reason = STORES[what]
    store = tmp_path / "relay.db"
    make(store)
    there = {path.name for path in tmp_path.iterdir()}
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.is_file() and path.suffix != ".yaml"}
    config = write_config(tmp_path, {"one": NOWHERE}, workers=0)
    line = failed_with_one_line(asyncio.run(command("run", "-c", config)), 1)
    assert str(store) in line
    assert reason in line
    after = {name: (tmp_path / name).read_bytes() for name in before if not name.endswith(".lock")}
    assert after == {name: content for name, content in before.items() if not name.endswith(".lock")}
    assert {path.name for path in tmp_path.iterdir()} - there <= {"relay.db", "relay.db.lock", "relay.yaml"}


@pytest.mark.parametrize("store", ["/proc/relay.db", "notes/relay.db"])
def test_a_store_that_cannot_be_made_is_named(tmp_path: Path, store: str) -> None:
    (tmp_path / "notes").write_text("a file where a folder is wanted")
    config = write_config(tmp_path, {"one": NOWHERE}, store=store, workers=0)
    line = failed_with_one_line(asyncio.run(command("run", "-c", config)), 1)
    assert re.match(rf"otp-relay: {config}:[0-9]+:[0-9]+: store: ", line)
    assert str(tmp_path / store).removesuffix("/relay.db") in line or "/proc" in line


def test_a_store_whose_mail_needs_another_key_is_told_with_the_place_of_the_key(tmp_path: Path) -> None:
    for name in ("old", "new"):
        (tmp_path / name).write_text(f"{os.urandom(32).hex()}\n")
        (tmp_path / name).chmod(0o600)

    async def leave_mail() -> None:
        async with Upstream(script={"mail": "451 4.3.0 later"}) as upstream:
            config = write_config(tmp_path, {"one": upstream}, store_key_file="old", workers=0)
            async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
                await app.submit(letter(), BULK, "user@example.net")

    asyncio.run(leave_mail())
    config = write_config(tmp_path, {"one": NOWHERE}, store_key_file="new", workers=0)
    line = failed_with_one_line(asyncio.run(command("run", "-c", config)), 1)
    assert re.match(rf"otp-relay: {config}:[0-9]+:[0-9]+: store_key_file: ", line)


async def test_a_store_that_another_relay_has_is_refused_and_that_relay_goes_on(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=0)
        async with RelayProcess(config) as relay:
            line = failed_with_one_line(await command("run", "-c", config), 1)
            assert str(tmp_path / "relay.db") in line
            assert str(relay.pid) in line
            async with Talk(relay.smtp) as app:
                message_id = await app.submit(letter(), BULK, "user@example.net")
            await time_line(relay, message_id, "sent")


@pytest.mark.parametrize("key", ["listen", "http"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, key: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        section: Any = {"address": address}
        keys = {key: [{"address": "127.0.0.1:0"}, section] if key == "listen" else section}
        config = write_config(tmp_path, {"one": NOWHERE}, **keys, workers=0)
        line = failed_with_one_line(asyncio.run(command("run", "-c", config)), 1)
    named = {"listen": "listen[1].address", "http": "http.address"}[key]
    place = next(number for number, text in enumerate(config.read_text().splitlines(), 1) if address in text)
    assert re.match(rf"otp-relay: {config}:{place}:[0-9]+: {re.escape(named)}: cannot listen on {address}: ", line)
    assert "in use" in line.lower()


def test_a_socket_path_that_is_a_file_is_refused_and_left(tmp_path: Path) -> None:
    path = tmp_path / "smtp.sock"
    path.write_text("somebody's file")
    config = write_config(tmp_path, {"one": NOWHERE}, listen=[{"address": f"unix:{path}"}], workers=0)
    assert str(path) in failed_with_one_line(asyncio.run(command("run", "-c", config)), 1)
    assert path.read_text() == "somebody's file"


async def test_the_socket_of_http_is_for_every_user_and_of_one_relay(tmp_path: Path) -> None:
    path = tmp_path / "http.sock"
    http = {"address": f"unix:{path}"}
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, http=http, workers=0)
        async with RelayProcess(config) as relay:
            assert path.stat().st_mode & 0o777 == 0o666
            other = tmp_path / "other"
            other.mkdir()
            second = write_config(other, {"one": upstream}, http=http, workers=0)
            line = failed_with_one_line(await command("run", "-c", second), 1)
            assert "http.address: cannot listen on unix:" in line
            connector = aiohttp.UnixConnector(str(path))
            async with aiohttp.ClientSession(connector=connector) as client, client.get("http://a/healthz") as answer:
                assert answer.status == 200
            assert await relay.terminate() == 0
        assert not path.exists()
        path.write_text("somebody's file")
        failed_with_one_line(await command("run", "-c", config), 1)
        assert path.read_text() == "somebody's file"


CONFIGURATIONS: dict[str, tuple[dict[str, object], str]] = {
    "a key file that is not there": (
        {"dkim": [{"domain": "example.com", "keys": [{"selector": "s1", "key_file": "keys/none.pem"}]}]},
        "keys/none.pem",
    ),
    "an unknown key": ({"default_lanes": "bulk"}, "default_lane"),
    "a lane that is not there": ({"default_lane": "bluk"}, "bulk"),
    "a variable that is not set": ({"hostname": "${NO_SUCH_VARIABLE}"}, "NO_SUCH_VARIABLE"),
}


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_a_configuration_error_names_its_place_and_ends_with_2(tmp_path: Path, what: str) -> None:
    keys, named = CONFIGURATIONS[what]
    config = write_config(tmp_path, {"one": NOWHERE}, **keys, workers=0)
    said = asyncio.run(command("run", "-c", config))
    assert said.code == 2
    assert "Traceback" not in said.err
    lines = said.err.splitlines()
    assert any(named in line for line in lines)
    assert all(line.startswith(f"{config}:") for line in lines), said.err
    assert not (tmp_path / "relay.db").exists()


@pytest.mark.parametrize("verb", ["run", "log"])
def test_a_configuration_that_is_not_there_is_one_line_and_2(tmp_path: Path, verb: str) -> None:
    line = failed_with_one_line(asyncio.run(command(verb, "-c", tmp_path / "none.yaml")), 2)
    assert str(tmp_path / "none.yaml") in line


@pytest.mark.fresh
async def test_the_ready_line_names_every_address_and_files_are_for_the_owner_only(tmp_path: Path) -> None:
    listen = [{"address": "127.0.0.1:0"}, {"address": "[::1]:0"}, {"address": f"unix:{tmp_path}/smtp.sock"}]
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, listen=listen, workers=0)
        async with RelayProcess(config) as relay:
            ready = [line for line in relay.stderr.splitlines() if line.startswith("ready ")]
            smtp = ",".join(relay.smtp_addresses)
            assert ready == [f"ready smtp={smtp} http={relay.http_address}"]
            assert [one.partition(":")[0] for one in relay.smtp_addresses] == ["127.0.0.1", "[", "unix"]
            async with Talk(("::1", int(relay.smtp_addresses[1].rpartition(":")[2]))) as app:
                message_id = await app.submit(letter(), BULK, "user@example.net")
            assert (await time_line(relay, message_id, "sent"))["client"] == "::1"
            stores = list(tmp_path.glob("*.db*"))
            assert stores
            assert {path.stat().st_mode & 0o777 for path in stores} == {0o600}
            assert await relay.terminate() == 0
        assert not (tmp_path / "smtp.sock").exists()


async def test_a_restart_goes_on_with_what_waited(tmp_path: Path) -> None:
    async with Upstream(script={"mail": "451 4.3.0 later"}) as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=0)
        ids = []
        for _ in range(2):
            async with RelayProcess(config) as relay:
                async with Talk(relay.smtp) as app:
                    ids.append(await app.submit(letter(), BULK, "user@example.net"))
                assert await relay.terminate() == 0
        upstream.set_script({})
        async with RelayProcess(config) as relay:
            for message_id in ids:
                await time_line(relay, message_id, "sent")
            assert (await get(relay, "/api/queue")).document["messages"] == []
