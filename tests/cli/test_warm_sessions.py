"""`explain` shows how many sessions stay open: by configuration, and in the relay that runs on its store."""

from __future__ import annotations

import json
import os
from pathlib import Path

from relay.store.sqlite import files
from tests.doctor.readyz import Readyz
from tests.support.relay import command, write_config

CODE = b"From: a@auth.example.com\r\nTo: u@example.net\r\nSubject: hi\r\n\r\nhello\r\n"
NOWHERE = {"host": "127.0.0.1", "port": 9, "tls": "none"}
READY = {"lanes": {"otp": {"upstreams": {"one": {"warm": {"sessions": 5, "reason": "auto: \x1b[2Jbursts"}}}}}}


async def test_explain_asks_the_running_relay_for_its_warm_sessions(tmp_path: Path) -> None:
    upstreams = {"one": NOWHERE, "two": {**NOWHERE, "port": 10, "sessions": {"warm": 3}}}
    async with Readyz(200, json.dumps(READY)) as port:
        config = write_config(tmp_path, upstreams, http={"address": f"127.0.0.1:{port}"})
        descriptor = files.lock(tmp_path / "relay.db")
        try:
            code = await command("explain", "-c", config, "--json", "-", given=CODE)
            text = await command("explain", "-c", config, "-", given=CODE)
            bulk = await command("explain", "-c", config, "-", "--from", "x@example.org", given=CODE[24:])
        finally:
            os.close(descriptor)
    assert (code.document["lane"], bulk.out.splitlines()[0].split()[1]) == ("otp", "bulk")
    warm = code.document["warm"]
    assert warm["one"]["running"] == {"sessions": 5, "reason": "auto: \x1b[2Jbursts"}
    assert warm["two"] == {"least": 3, "most": 3, "reason": "warm: 3", "running": None}
    lines = [line for line in text.out.splitlines() if line.startswith("warm ")]
    assert lines[0].startswith("warm       one: 2 to 10 warm sessions (warm: auto, ")
    assert lines[0].endswith("; the running relay keeps 5 (auto: �[2Jbursts)")
    assert lines[1] == "warm       two: 3 warm sessions (warm: 3)"
    assert "warm" not in bulk.out
