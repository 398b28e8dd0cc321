"""In which order the relay asks the kernel for things: what strace sees."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import strace
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.processes import workers
from tests.support.relay import RelayProcess, until_logged, write_config
from tests.support.strace import Call, Strace
from tests.support.upstream import DEFAULT_EXTENSIONS, Upstream

WRITES = {"write", "writev", "sendmsg", "sendto", "pwrite64"}


@pytest.fixture(autouse=True)
def _strace_is_there() -> None:
    if not strace.works():
        pytest.skip("strace is missing, or may not look at processes here")


def places(calls: Sequence[Call], text: str, names: set[str]) -> list[int]:
    return [at for at, call in enumerate(calls) if call.name in names and text in call.text]


@pytest.mark.parametrize("extensions", [DEFAULT_EXTENSIONS, (*DEFAULT_EXTENSIONS, "CHUNKING")], ids=["data", "bdat"])
async def test_a_commit_is_synced_before_the_250_and_before_the_content_leaves(
    tmp_path: Path, extensions: tuple[str, ...]
) -> None:
    async with Upstream(extensions) as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=0)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            await app.submit(letter(), OTP, "first@example.net")
            await upstream.wait_for(1)
            await asyncio.sleep(0.2)  # and settled
            with Strace(relay.pid, "fdatasync,fsync,pwrite64,write,writev,sendmsg,sendto") as seen:
                await app.submit(letter("the content"), OTP, "second@example.net")
                await upstream.wait_for(2)
                await asyncio.sleep(0.2)
    written = places(seen.calls, "relay.db-wal>", {"pwrite64"})
    synced = places(seen.calls, "relay.db-wal>", {"fdatasync", "fsync"})
    (answered,) = places(seen.calls, "250 2.0.0 queued as", WRITES)
    (left, *_) = places(seen.calls, "Received: from", WRITES)
    commit = max(at for at in written if at < answered)
    assert any(commit < at < min(answered, left) for at in synced), seen.said
    assert not [at for at in written if synced[0] < at < answered and at < left], "something more was written first"


async def test_a_bulk_process_syncs_its_commit_before_it_tells_of_it(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=1)
        async with RelayProcess(config) as relay:
            await until_logged(relay, "event=worker_ready")
            (worker,) = workers(relay.pid)
            async with Talk(relay.smtp) as app:
                with Strace(worker, "fdatasync,fsync,pwrite64,write,writev,sendmsg,sendto") as seen:
                    await app.submit(letter("the content"), BULK, "one@example.net")
                    await upstream.wait_for(1)
    synced = places(seen.calls, "relay-bulk1.db-wal>", {"fdatasync", "fsync"})
    written = places(seen.calls, "relay-bulk1.db-wal>", {"pwrite64"})
    (left, *_) = places(seen.calls, "Received: from", WRITES - {"pwrite64"})
    assert min(written) < min(synced) < left, seen.said
