"""What is logged of deliveries, as `relay.delivery.events` makes it of real ones."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest

from relay.delivery.events import DeliveryEvents
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from tests.delivery.harness import config, delivering
from tests.support.upstream import Close, Upstream

LINES: dict[str, tuple[Any, str, tuple[str, ...], str | None]] = {
    "deferred": ({"rcpt": "452 4.2.2 full"}, "deferred", ("attempted", "deferred"), "452"),
    "bounced": ({"rcpt": "550 5.1.1 no such user"}, "bounced", ("attempted", "bounced"), "550"),
    "connection lost": ({"dot": Close()}, "deferred", ("attempted", "deferred"), None),
}


@pytest.mark.parametrize("name", LINES)
async def test_a_code_is_what_an_upstream_answered(tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str) -> None:
    script, state, events, code = LINES[name]
    caplog.set_level(logging.DEBUG, "relay.mail")
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench:
        log = DeliveryEvents(MailLog(Metrics(), Recent()), bench.clock)
        object.__setattr__(bench.delivery.lane("otp")._services, "events", log)
        await bench.ended(await bench.send("u@example.net", sender=""), state)  # no bounce of it
    lines = [record.getMessage() for record in caplog.records]
    for event in events:
        (line,) = (line for line in lines if line.startswith(f"event={event} "))
        assert (f" code={code}" in line) if code else ("code=" not in line)
