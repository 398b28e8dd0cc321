"""The procedure of docs/operating.md: a backup taken under load, put into a new folder, and a relay begun on it."""

from __future__ import annotations

import asyncio
import re
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import RelayProcess, command, get, until, write_config
from tests.support.script import Script
from tests.support.upstream import Upstream

OPERATING = Path(__file__).parents[2] / "docs" / "operating.md"


async def submit(relay: RelayProcess, sender: str, acknowledged: list[str], stop: asyncio.Event) -> None:
    with suppress(OSError, EOFError, AssertionError):
        async with Talk(relay.smtp) as app:
            while not stop.is_set():
                to = f"{sender.partition('@')[0]}{len(acknowledged)}.{id(acknowledged)}@example.net"
                await app.submit(letter("x" * 3_000, sender=sender), sender, to)
                acknowledged.append(to)


@pytest.mark.fresh
async def test_a_backup_taken_under_load_begins_in_a_new_folder_with_all_that_was_acknowledged(tmp_path: Path) -> None:
    old, new, backup = tmp_path / "old", tmp_path / "new", tmp_path / "backup"
    for folder in (old, new, backup):
        folder.mkdir()
    stop = asyncio.Event()
    lists: list[list[str]] = [[], []]
    later: Script = {"rcpt": lambda moment: "451 4.3.0 later"}
    async with Upstream(script=later) as codes, Upstream(script=later) as bulk:
        lanes = {
            "otp": {"upstreams": ["codes"], "retry": ["500ms"], "expires": "50m"},
            "bulk": {"upstreams": ["bulk"], "retry": ["500ms"], "expires": "2d"},
        }
        config = write_config(old, {"codes": codes, "bulk": bulk}, lanes=lanes, workers=1)
        async with RelayProcess(config) as relay:
            apps = [
                asyncio.create_task(submit(relay, sender, to, stop))
                for sender, to in zip((OTP, BULK), lists, strict=True)
            ]

            async def bulk_process_is_there() -> bool:
                return (old / "relay-bulk1.db").exists()

            await until(bulk_process_is_there, 30)
            await asyncio.sleep(1.0)  # mail of before the bulk process was there moves to its file meanwhile
            before = [to for each in lists for to in each]
            made = await command("store", "backup", "-c", config, backup / "monday.db")
            assert made.code == 0, made.err
            assert f"not copied: {old}/relay.db.key; a relay on the copy needs it as {backup}/monday.db.key" in made.out
            await relay.kill()
            stop.set()
            await asyncio.gather(*apps)
        assert {each.name for each in backup.iterdir()} == {"monday.db", "monday-bulk1.db"}
        assert before

        codes.set_script({})
        bulk.set_script({})
        config = write_config(new, {"codes": codes, "bulk": bulk}, lanes=lanes, workers=1)
        for name in ("monday.db", "monday-bulk1.db"):
            shutil.copy(backup / name, new / name.replace("monday", "relay"))
        shutil.copy(old / "relay.db.key", new)
        assert (await command("store", "check", "-c", config)).code == 0
        async with RelayProcess(config) as relay:

            async def is_empty() -> bool:
                return not (await get(relay, "/api/queue")).document["lanes"]

            await until(is_empty, 30)
            assert await relay.terminate() == 0
    arrived = [to for one in (*codes.messages, *bulk.messages) for to in one.recipients]
    assert set(before) <= set(arrived)
    assert len(arrived) == len(set(arrived))


def test_operating_names_the_steps_of_a_restore() -> None:
    text = OPERATING.read_text()
    section = re.search(r"^## Backup and restore\n(.*?)^## ", text, re.MULTILINE | re.DOTALL)
    assert section is not None
    commands = ("otp-relay store backup", "otp-relay store check", "systemctl stop", "systemctl start")
    for step in (*commands, "-bulk1.db", "relay.db.key"):
        assert step in section[1], step
