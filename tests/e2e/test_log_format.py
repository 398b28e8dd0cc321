"""The lines of a whole relay on stderr: JSON from all of its processes, and journald's priorities."""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from relay import __version__
from relay.demo.process import RelayProcess
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import until_logged, write_config
from tests.support.upstream import Upstream

WITH_A_JOURNAL = (
    "import os, sys; status = os.fstat(2); os.environ['JOURNAL_STREAM'] = f'{status.st_dev}:{status.st_ino}';"
    "from relay.__main__ import main; sys.exit(main())"
)


async def test_with_json_each_line_of_each_process_is_an_object(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=1, log={"format": "json"})
        async with RelayProcess(config) as relay:
            await until_logged(relay, '"event": "worker_ready"')
            async with Talk(relay.smtp) as talk:
                code = await talk.submit(letter(), OTP, "a@example.net")
                news = await talk.submit(letter(), BULK, "b@example.net")
            await until_logged(relay, f'"event": "sent", "id": "{code}"')
            await until_logged(relay, f'"event": "sent", "id": "{news}"')
            config.write_text(config.read_text().replace("format: json", "format: logfmt"))
            os.kill(relay.pid, signal.SIGHUP)
            await until_logged(relay, '"event": "reloaded"')
            address = relay.smtp_addresses[0]
            assert await relay.terminate() == 0
        plain = [line for line in relay.stderr.splitlines() if not line.startswith("{")]
        assert [line.split()[0] for line in plain] == ["ready"]
        lines: list[Any] = [json.loads(line) for line in relay.stderr.splitlines() if line.startswith("{")]
        for line in lines:
            assert datetime.fromisoformat(line["time"]).utcoffset() is not None
            assert line["level"] in ("info", "warning", "error")
        (started,) = [line for line in lines if line["event"] == "started"]
        assert (started["version"], started["lanes"], started["waiting"]) == (__version__, "otp,bulk", 0)
        accepted, sent = (
            next(line for line in lines if line.get("id") == code and line["event"] == event)
            for event in ("accepted", "sent")
        )
        assert (accepted["lane"], accepted["client"], accepted["listener"]) == ("otp", "127.0.0.1", "127.0.0.1:0")
        assert address != accepted["listener"]
        assert (sent["upstream"], sent["code"]) == ("up", 250)
        assert isinstance(sent["total_ms"], float)
        (ignored,) = [line for line in lines if line["event"] == "reload_ignored"]
        assert (ignored["key"], ignored["level"]) == ("log.format", "warning")


async def test_where_journald_reads_stderr_each_line_has_its_priority(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        receiver = {"url": "http://127.0.0.1:1/hook", "secret": f"whsec_{'c2VjcmV0' * 4}"}
        config = write_config(tmp_path, {"up": upstream}, workers=1, events=[receiver])
        async with RelayProcess(config, program=(sys.executable, "-c", WITH_A_JOURNAL)) as relay:
            await until_logged(relay, "event=worker_ready")
            await until_logged(relay, "event=feedback_ready")
            config.write_text("lanes: [")
            os.kill(relay.pid, signal.SIGHUP)
            await until_logged(relay, "event=reload_refused")
            assert await relay.terminate() == 0
        lines = relay.stderr.splitlines()
        assert {line[:3] for line in lines} == {"<6>", "<3>"}
        assert next(line for line in lines if "event=reload_refused" in line).startswith("<3>time=")
        assert next(line for line in lines if "event=worker_ready" in line).startswith("<6>time=")
