"""Keys from outside: what waits is in clear nowhere, and nothing starts without the key that it needs."""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.processes import children
from tests.support.relay import RelayProcess, command, time_line, until, until_logged, write_config
from tests.support.spool import have_come_in
from tests.support.upstream import Upstream

DEAD: dict[str, Any] = {"host": "127.0.0.1", "port": 9, "tls": "none"}


def holding(folder: Path, text: str) -> list[str]:
    """The files below it that hold the text."""
    return [path.name for path in folder.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]


def said_of(pid: int) -> str:
    """A process's arguments and environment, and its children's."""
    files = [f"/proc/{one}/{what}" for one in (pid, *children(pid)) for what in ("cmdline", "environ")]
    return "".join(Path(file).read_text(errors="replace") for file in files)


@pytest.mark.fresh
async def test_an_operator_moves_from_the_stores_own_key_to_one_of_his_own_while_mail_waits(tmp_path: Path) -> None:
    """The worker's file has the relay's keys."""
    texts = {sender: f"secret {os.urandom(8).hex()}" for sender in (OTP, BULK)}
    async with RelayProcess(write_config(tmp_path, {"up": DEAD}, workers=1)) as relay, Talk(relay.smtp) as app:
        for sender, text in texts.items():
            message_id = await app.submit(letter(text, sender=sender), sender, "user@example.net")
            await time_line(relay, message_id, "deferred")
        own = (tmp_path / "relay.db.key").read_text().strip()
        assert own not in said_of(relay.pid) + relay.stderr
    assert (await command("store", "key", "--out", tmp_path / "key")).code == 0
    (tmp_path / "relay.db.key").rename(tmp_path / "elsewhere")
    refused = await command("run", "-c", write_config(tmp_path, {"up": DEAD}))
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert f"{tmp_path}/relay.db.key is missing" in refused.err
    (tmp_path / "elsewhere").rename(tmp_path / "relay.db.key")
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"up": upstream}, store_key_file="key")):
        await upstream.wait_for(2)
        assert all(any(text.encode() in one.content for one in upstream.messages) for text in texts.values())


@pytest.mark.fresh
@pytest.mark.parametrize("sender", [OTP, BULK])
async def test_what_waits_is_encrypted_and_goes_out_with_its_key_only(tmp_path: Path, sender: str) -> None:
    """A code waits in the main file, bulk mail in a worker's."""
    key, other, text = tmp_path / "key", tmp_path / "other", f"secret {os.urandom(8).hex()}"
    for path in (key, other):
        assert (await command("store", "key", "--out", path)).code == 0
    async with RelayProcess(write_config(tmp_path, {"up": DEAD}, store_key_file="key", workers=1)) as relay:
        await until_logged(relay, "event=worker_ready")
        async with Talk(relay.smtp) as app:
            message_id = await app.submit(letter(text, sender=sender), sender, "user@example.net")
        await time_line(relay, message_id, "deferred")
        assert holding(tmp_path, text) == []
        assert key.read_text().strip() not in said_of(relay.pid) + relay.stderr
    for keys in ({}, {"store_key_file": "other"}):  # without one: the store has no key of its own either
        refused = await command("run", "-c", write_config(tmp_path, {"up": DEAD}, **keys))
        assert (refused.code, refused.err.count("\n")) == (1, 1)
        assert "waiting mail is encrypted with key " in refused.err
    key.write_text(other.read_text() + key.read_text())
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"up": upstream}, store_key_file="key")):
        await upstream.wait_for(1)
        assert text.encode() in upstream.messages[0].content


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_large_content_comes_in_by_a_sealed_file(tmp_path: Path, workers: int) -> None:
    text, spool = f"secret {os.urandom(8).hex()}", tmp_path / "relay-spool"
    content = letter((text + "\r\n") * 40_000, sender=BULK)
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=workers)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:

            async def come_in() -> bool:
                return have_come_in(spool, len(content))

            await app.envelope(BULK, "user@example.net")
            app.send(content)
            await until(come_in)
            assert holding(tmp_path, text) == []
            app.send(b".\r\n")
            assert (await app.reply()).startswith("250")
            assert list(spool.iterdir()) == []
            await upstream.wait_for(1)
            assert upstream.messages[0].content.endswith(content[-1_000_000:])
            assert text not in said_of(relay.pid) + relay.stderr


@pytest.mark.fresh
async def test_contents_that_come_in_take_little_memory(tmp_path: Path) -> None:
    size, clients = 8_000_000, 10
    line = b"x" * 998 + b"\r\n"
    config = write_config(tmp_path, {"up": DEAD}, workers=0)
    async with RelayProcess(config) as relay, AsyncExitStack() as stack:
        before = rss_bytes(relay.pid)
        for _ in range(clients):
            app = await stack.enter_async_context(Talk(relay.smtp))
            await app.envelope(BULK, "user@example.net")
            app.send(line * (size // len(line)))

        async def come_in() -> bool:
            return have_come_in(tmp_path / "relay-spool", size, clients)

        await until(come_in)
        assert rss_bytes(relay.pid) - before < size * clients // 3


def rss_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
