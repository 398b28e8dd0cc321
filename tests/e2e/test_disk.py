"""A disk that is really full, really read-only, or has damaged a file: one of a few MB, mounted for the test."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.app import BULK, OTP, Talk, Unexpected, letter
from tests.support.relay import RelayProcess, command, get, time_line, until, until_logged, write_config
from tests.support.spool import have_come_in
from tests.support.upstream import Upstream, Wait

DISK_MB = 20
NOWHERE = {"host": "127.0.0.1", "port": 9, "tls": "none"}


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    try:
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "tmpfs", folder], check=True, capture_output=True
        )
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("may not mount a file system here")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def fill(disk: Path) -> Path:
    """Until one page is left, which is not little enough for `min_free`."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            file.truncate(file.tell() - 4096)
            return ballast


async def refused(relay: RelayProcess, sender: str, size: int) -> str | None:
    """What an app hears that submits this; None: it was taken."""
    async with Talk(relay.smtp) as app:
        try:
            await app.submit(
                letter("x" * 70 + ("\r\n" + "x" * 70) * (size // 72), sender=sender), sender, "u@example.net"
            )
        except Unexpected as said:
            return str(said)
    return None


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_full_disk_is_said_and_what_waits_in_memory_still_goes_out(
    disk: Path, tmp_path: Path, workers: int
) -> None:
    go_on = asyncio.Event()
    async with Upstream(script={"mail": lambda moment: Wait(go_on)}) as upstream:
        config = write_config(
            tmp_path, {"one": upstream}, store=str(disk / "relay.db"), workers=workers, queue={"min_free": "1B"}
        )
        async with RelayProcess(config) as relay:

            async def is_ready() -> bool:
                return (await get(relay, "/readyz")).status == 200

            async with Talk(relay.smtp) as app:
                code = await app.submit(letter("the code", sender=OTP), OTP, "code@example.net")
            ballast = fill(disk)
            acknowledged = 0
            for _ in range(100):
                said = await refused(relay, OTP, 100_000)
                if said is not None:
                    break
                acknowledged += 1
            assert said is not None, "the disk took it all"
            assert "452 4.3.1" in said  # at the final dot, or at MAIL once that was noticed
            unready = await get(relay, "/readyz")
            assert (unready.status, unready.document["reasons"][:1]) == (503, ["store unwritable"])
            large = await refused(relay, BULK, 2_000_000)
            assert large is not None
            assert "answered '452 4.3.1" in large, large

            go_on.set()
            await upstream.wait_until(lambda: any("code@example.net" in one.recipients for one in upstream.messages))
            ballast.unlink()
            await time_line(relay, code, "sent")
            await until(is_ready)
            assert await refused(relay, OTP, 100_000) is None
            await upstream.wait_for(acknowledged + 2)
            assert await relay.terminate() == 0
    assert (await command("store", "check", "-c", config)).code == 0
    assert len(upstream.messages) == acknowledged + 2


async def test_a_store_on_a_read_only_disk_is_named(disk: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, {"one": NOWHERE}, store=str(disk / "relay.db"), workers=0)
    async with RelayProcess(config) as relay:
        assert await relay.terminate() == 0
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    said = await command("run", "-c", config)
    assert said.code == 1
    (line,) = [line for line in said.err.splitlines() if " event=" not in line]
    assert line.startswith(f"otp-relay: {config}:")
    assert line.endswith(f": store: {disk}/relay.db.lock: Read-only file system")
    assert (await command("log", "-c", config)).code == 1  # none found; it can be read


@pytest.mark.parametrize("damage", ["overwritten", "cut off", "another program's"])
async def test_a_damaged_file_of_a_bulk_process_refuses_to_start_and_is_left_as_it_is(
    tmp_path: Path, damage: str
) -> None:
    config = write_config(tmp_path, {"one": NOWHERE}, workers=1)
    bulk = tmp_path / "relay-bulk1.db"
    async with RelayProcess(config) as relay:
        await until_logged(relay, "event=worker_ready")
        assert await relay.terminate() == 0
    match damage:
        case "overwritten":
            content = bytearray(bulk.read_bytes())
            content[5 * 4096 : 6 * 4096] = b"\xa5" * 4096
            bulk.write_bytes(content)
        case "cut off":
            os.truncate(bulk, 4 * 4096)
        case _:
            bulk.write_bytes(b"dear diary\n" * 1000)
    before = bulk.read_bytes()
    said = await command("run", "-c", config)
    assert said.code == 1
    (line,) = [line for line in said.err.splitlines() if " event=" not in line]
    assert line.startswith(f"otp-relay: {bulk}: ")
    assert line.endswith('docs/operating.md, "A damaged store", says what to do')
    assert bulk.read_bytes() == before


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_large_content_of_which_the_disk_took_a_part_is_refused(
    disk: Path, tmp_path: Path, workers: int
) -> None:
    """The store's log has its room already, so the commit would succeed."""
    line = b"x" * 70 + b"\r\n"
    async with Upstream() as upstream:
        config = write_config(
            tmp_path, {"one": upstream}, store=str(disk / "relay.db"), workers=workers, queue={"min_free": "1B"}
        )
        async with RelayProcess(config) as relay:
            spool = disk / "relay-spool"

            async def come_in() -> bool:
                return have_come_in(spool, len(begin))

            async with Talk(relay.smtp) as app:
                begin = letter(line.decode() * 4_200, sender=BULK)
                await app.envelope(BULK, "large@example.net")
                app.send(begin)
                await until(come_in)
                ballast = fill(disk)
                app.send(line * 800 + b".\r\n")
                assert (await app.reply()).startswith("452 4.3.1")
                ballast.unlink()
                assert list(spool.iterdir()) == []
            assert await refused(relay, BULK, 400_000) is None
            await upstream.wait_for(1)
            assert await relay.terminate() == 0
    assert len(upstream.messages) == 1
