"""`config/catcher.yaml`: works as it is with a mail catcher on port 1025; codes take their lane."""

from __future__ import annotations

import json
import smtplib
from pathlib import Path

from tests.support.relay import RelayProcess, command
from tests.support.upstream import Upstream

CATCHER = Path(__file__).parents[2] / "config/catcher.yaml"
PLACES = {"port: 1025": "port: {port}", "../data/catcher.db": "relay.db"}
ELSEWHERE = "\nlisten: [{address: 127.0.0.1:0}]\nhttp: {address: 127.0.0.1:0}\n"
MAILS = {
    "otp": "Subject: Your sign-in code\n\nYour verification code is 482913. It expires in 10 minutes.\n",
    "bulk": "Subject: Our spring news\n\nNew shoes are here, with 20 % off.\n",
}


def elsewhere(folder: Path, port: int) -> Path:
    """The same configuration on ports of this test's own: others may use 1025, 2525 and 8025 meanwhile."""
    text = CATCHER.read_text()
    for old, new in PLACES.items():
        assert text.count(old) == 1
        text = text.replace(old, new.format(port=port))
    path = folder / "catcher.yaml"
    path.write_text(text + ELSEWHERE)
    return path


def submit(host: str, port: int) -> None:
    with smtplib.SMTP(host, port, timeout=10) as client:
        for content in MAILS.values():
            client.sendmail("app@example.com", ["u@example.net"], content)


async def test_the_configuration_for_a_mail_catcher_is_valid_as_it_is() -> None:
    assert (await command("check", "-c", CATCHER)).code == 0


async def test_a_code_and_other_mail_reach_the_catcher_by_their_lanes(tmp_path: Path) -> None:
    async with Upstream() as catcher:
        config_file = elsewhere(tmp_path, catcher.port)
        async with RelayProcess(config_file) as relay:
            submit(*relay.smtp)
            await catcher.wait_for(2)
            assert await relay.terminate() == 0
    said = (await command("log", "-c", config_file, "--json")).out
    assert {one["lane"]: one["subject"] for one in map(json.loads, said.splitlines())} == {
        "otp": "Your sign-in code",
        "bulk": "Our spring news",
    }
    assert {b"482913" in one.content for one in catcher.messages} == {True, False}
