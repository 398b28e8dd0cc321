"""How a worker's process begins: forked at first, later with a new interpreter."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from relay.workers import entry
from tests.support.app import BULK, Talk, letter
from tests.support.processes import workers
from tests.support.relay import RelayProcess, until, write_config
from tests.support.upstream import Upstream


def words_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


@pytest.mark.fresh
async def test_the_first_processes_of_workers_are_forked_and_the_next_ones_are_new_interpreters(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=2)
        async with RelayProcess(config) as relay:
            for lives in (1, 2):

                async def are_ready(lives: int = lives) -> bool:
                    return relay.stderr.count("event=worker_ready") == 2 * lives

                await until(are_ready)
                pids = workers(relay.pid)
                assert {Path(f"/proc/{pid}/comm").read_text() for pid in pids} == {"worker 1\n", "worker 2\n"}
                assert [entry.__name__ in words_of(pid) for pid in pids] == [lives == 2] * 2
                for pid in pids:
                    assert os.getpriority(os.PRIO_PROCESS, pid) == entry.NICENESS
                async with Talk(relay.smtp) as app:
                    for _ in range(10):  # both get some
                        await app.submit(letter(), BULK, "user@example.net")
                await upstream.wait_for(10 * lives)
                if lives == 1:
                    for pid in pids:
                        os.kill(pid, signal.SIGKILL)
            assert await relay.terminate() == 0


async def test_forked_workers_end_with_a_relay_that_cannot_start_and_with_one_that_is_killed(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"up": upstream}, workers=1)) as relay:
        (worker,) = workers(relay.pid)
        taken = {"listen": [{"address": f"127.0.0.1:{relay.smtp[1]}"}], "store": "other.db"}
        (tmp_path / "other").mkdir()
        other = RelayProcess(write_config(tmp_path / "other", {"up": upstream}, workers=1, **taken))
        with pytest.raises(Exception, match="exit 1"):
            await other.start()
        relay.send(signal.SIGKILL)

        async def has_ended() -> bool:
            return not Path(f"/proc/{worker}").exists()

        await until(has_ended)
