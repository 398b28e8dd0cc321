"""`store_key_file` from outside: what waits is in clear nowhere, and nothing starts without the key it needs."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.processes import children
from tests.support.relay import RelayProcess, command, time_line, until, write_config
from tests.support.upstream import Upstream

DEAD: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "tls": "none"}


def holding(folder: Path, text: str) -> list[str]:
    """The files below it that hold the text."""
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def said_of(pid: int) -> str:
    """A process's arguments and environment, and its children's."""
    files = [f"/proc/{one}/{what}" for one in (pid, *children(pid)) for what in ("cmdline", "environ")]
    return "".join(Path(file).read_text(errors="replace") for file in files)


@pytest.mark.parametrize("sender", [OTP, BULK])
async def test_what_waits_is_encrypted_and_goes_out_with_its_key_only(tmp_path: Path, sender: str) -> None:
    """A code waits in the main file, bulk mail in a worker's."""
    key, other, text = tmp_path / "key", tmp_path / "other", f"secret {os.urandom(8).hex()}"
    for path in (key, other):
        assert (await command("store", "key", "--out", path)).code == 0
    async with RelayProcess(write_config(tmp_path, {"up": DEAD}, store_key_file="key", workers=1)) as relay:

        async def worker_ready() -> bool:
            return "event=worker_ready" in relay.stderr

        await until(worker_ready)
        async with Talk(relay.smtp) as app:
            message_id = await app.submit(letter(text, sender=sender), sender, "user@example.net")
        await time_line(relay, message_id, "deferred")
        assert holding(tmp_path, text) == []
        assert key.read_text().strip() not in said_of(relay.pid) + relay.stderr
    for keys in ({}, {"store_key_file": "other"}):
        refused = await command("run", "-c", write_config(tmp_path, {"up": DEAD}, **keys))
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "waiting mail is encrypted with key " in refused.err
    key.write_text(other.read_text() + key.read_text())
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"up": upstream}, store_key_file="key")):
        await upstream.wait_for(1)
        assert text.encode() in upstream.messages[0].content


@pytest.mark.parametrize(("keys", "files"), [({}, 1), ({"store_key_file": "key"}, 0)])
async def test_a_large_content_that_is_still_coming_in_is_on_the_disk_only_without_a_key(
    tmp_path: Path, keys: dict[str, object], files: int
) -> None:
    assert (await command("store", "key", "--out", tmp_path / "key")).code == 0
    text = f"secret {os.urandom(8).hex()}"
    async with RelayProcess(write_config(tmp_path, {"up": DEAD}, **keys)) as relay, Talk(relay.smtp) as app:
        await app.envelope(BULK, "user@example.net")
        app.send(letter((text + "\r\n") * 40_000, sender=BULK))
        async with asyncio.timeout(10):
            await app.writer.drain()
        # A reply on another connection: by then the relay has read what came in on the first.
        async with Talk(relay.smtp) as another:
            await another.ask("NOOP")
        if files:
            async with asyncio.timeout(10):
                while not holding(tmp_path, text):
                    await asyncio.sleep(0.02)
        else:
            await asyncio.sleep(0.3)
            assert holding(tmp_path, text) == []
