"""What is in memory, keys and mail, is never written into a core file, whatever the machine is set to."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.processes import children
from tests.support.relay import RelayProcess, command, until_logged, write_config

ABORTING = """
import os, resource, sys
resource.setrlimit(resource.RLIMIT_CORE, resource.getrlimit(resource.RLIMIT_CORE)[1:] * 2)
resource.setrlimit = lambda *_: None  # a core that goes to a program knows no limit
if "undumpable" in sys.argv:
    from relay.prctl import undumpable
    undumpable()
if "forked" in sys.argv and (child := os.fork()):
    sys.exit(os.WCOREDUMP(os.waitpid(child, 0)[1]))
os.abort()
"""


def dumps(directory: Path, *arguments: str) -> bool:
    """Does a process that ends by a fault leave a core?"""
    with subprocess.Popen([sys.executable, "-c", ABORTING, *arguments], cwd=directory) as process:
        _, status = os.waitpid(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return bool(process.returncode) if "forked" in arguments else os.WCOREDUMP(status)


@pytest.mark.parametrize("where", [(), ("forked",)], ids=["itself", "forked"])
def test_a_process_that_may_not_be_dumped_leaves_no_core(tmp_path: Path, where: tuple[str, ...]) -> None:
    if not dumps(tmp_path, *where):
        pytest.skip("this machine writes no core files")
    assert not dumps(tmp_path, "undumpable", *where)


async def test_each_process_of_the_relay_asks_for_it(tmp_path: Path) -> None:
    if resource.getrlimit(resource.RLIMIT_CORE)[1] == 0:
        pytest.skip("it is so already")
    made = await command("keygen", "auth.example.com", "e1", "--out", tmp_path, "--ed25519")
    assert made.code == 0
    keys = [{"selector": "e1", "key_file": str(tmp_path / "auth.example.com.e1.pem")}]
    dkim = [{"domain": "auth.example.com", "keys": keys}]
    config = write_config(tmp_path, {"up": {"host": "127.0.0.1", "port": 9, "tls": "none"}}, dkim=dkim, workers=1)
    async with RelayProcess(config) as relay:
        await until_logged(relay, "event=worker_ready")
        below = children(relay.pid)
        below += [grandchild for child in below for grandchild in children(child)]
        assert len(below) == 3  # two that sign, and the worker
        for pid in (*below, relay.pid):
            assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
