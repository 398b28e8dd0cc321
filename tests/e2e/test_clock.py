"""A machine's clock that is put right, and a machine that was suspended, while the relay runs."""

from __future__ import annotations

import asyncio
import os
import re
import time
from email.parser import BytesParser
from email.policy import SMTP
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from relay.clock import Clock
from relay.config.load import load
from relay.service.app import App
from tests.support.app import OTP, Talk
from tests.support.relay import command, until, write_config
from tests.support.upstream import Moment, Upstream, Wait

STEP_S = 7200.0
LETTER = b"From: no-reply@auth.example.com\r\nTo: u@example.net\r\nSubject: hi\r\n\r\nhello\r\n"
LANES: dict[str, Any] = {
    "otp": {"upstreams": ["up"], "retry": ["5m"], "expires": "10m"},
    "bulk": {"upstreams": ["up"], "retry": ["1m"], "expires": "2d"},
}


class Machine:
    """Its clocks, as a test sets them."""

    def __init__(self) -> None:
        self.stepped_s = self.suspended_s = 0.0
        self._time, self._get = time.time, time.clock_gettime

    def time(self) -> float:
        return self._time() + self.stepped_s + self.suspended_s

    def clock_gettime(self, clock: int) -> float:
        return self._get(clock) + (self.suspended_s if clock == time.CLOCK_BOOTTIME else 0.0)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    one = Machine()
    monkeypatch.setattr(time, "time", one.time)
    monkeypatch.setattr(time, "clock_gettime", one.clock_gettime)
    return one


async def submit(app: App) -> str:
    host, _, port = app.smtp_addresses[0].rpartition(":")
    async with Talk((host, int(port))) as talk:
        return await talk.submit(LETTER, OTP, "u@example.net")


@pytest.mark.parametrize("step_s", [STEP_S, -STEP_S])
async def test_mail_has_the_time_of_day_as_it_is_since_the_clock_was_put_right(
    tmp_path: Path, machine: Machine, step_s: float
) -> None:
    made = await command("keygen", "auth.example.com", "e1", "--out", tmp_path, "--ed25519")
    assert made.code == 0
    key = {"selector": "e1", "key_file": str(tmp_path / "auth.example.com.e1.pem")}
    async with Upstream() as upstream:
        dkim = [{"domain": "auth.example.com", "keys": [key]}]
        config = write_config(tmp_path, {"up": upstream}, workers=0, dkim=dkim)
        async with App(load(config, os.environ)) as app:
            machine.stepped_s = step_s
            await submit(app)
            (arrived,) = await upstream.wait_for(1)
            found = BytesParser(policy=SMTP).parsebytes(arrived.content)
            received = str(found["Received"]).rpartition(";")[2]
            signed = re.search(r"\bt=(\d+)", str(found["DKIM-Signature"]))
            assert signed is not None
            now = time.time()
            for said in (str(found["Date"]), received):
                assert abs(parsedate_to_datetime(said.strip()).timestamp() - now) < 300
            assert abs(int(signed[1]) - now) < 300


async def test_a_clock_that_jumps_moves_no_retry_and_expires_no_code(tmp_path: Path, machine: Machine) -> None:
    async with Upstream(script={"rcpt": ["451 4.3.0 later", None]}) as upstream:
        lanes = {**LANES, "otp": {**LANES["otp"], "retry": ["200ms"]}}
        config = write_config(tmp_path, {"up": upstream}, workers=0, lanes=lanes)
        async with App(load(config, os.environ)) as app:
            id_ = await submit(app)
            machine.stepped_s = STEP_S
            await until(lambda: state_is(app, id_, "sent"))


async def test_a_code_expires_while_the_machine_is_suspended(tmp_path: Path, machine: Machine) -> None:
    """Its next try is five minutes off by the event loop's clock, which stood still."""
    async with Upstream(script={"rcpt": "451 4.3.0 later"}) as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0, lanes=LANES)
        async with App(load(config, os.environ)) as app:
            id_ = await submit(app)
            await until(lambda: state_is(app, id_, "deferred"))
            machine.suspended_s = 3600.0
            await until(lambda: state_is(app, id_, "expired"))


async def test_a_code_whose_envelope_was_under_way_is_not_sent_after_a_suspension(
    tmp_path: Path, machine: Machine
) -> None:
    asked, goes_on = asyncio.Event(), asyncio.Event()

    def rcpt(_: Moment) -> Wait:
        asked.set()
        return Wait(goes_on)

    async with Upstream(script={"rcpt": rcpt}) as upstream:
        config = write_config(tmp_path, {"up": upstream}, workers=0, lanes=LANES)
        async with App(load(config, os.environ)) as app:
            id_ = await submit(app)
            async with asyncio.timeout(10):
                await asked.wait()
            machine.suspended_s = 3600.0
            goes_on.set()
            await until(lambda: state_is(app, id_, "expired"))
            assert all(OTP not in message.mail_from for message in upstream.messages)


def test_a_clock_says_what_the_time_of_day_would_have_been(machine: Machine) -> None:
    clock = Clock()
    then = clock.now()
    machine.stepped_s = STEP_S
    assert abs(clock.now() - then) < 60
    assert abs(clock.of_day(then) - (then + STEP_S)) < 60
    assert abs(clock.epoch(time.monotonic()) - clock.now()) < 1
    machine.suspended_s = 1000.0
    assert clock.now() - then >= 1000.0
    assert clock.steady(then + 500.0) < time.clock_gettime(time.CLOCK_BOOTTIME)


async def state_is(app: App, id_: str, state: str) -> bool:
    found: Any = await app.parts.engine.store.get(id_)
    return all(one["state"] == state for one in found["recipients"])
