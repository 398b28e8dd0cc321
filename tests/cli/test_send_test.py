"""The command `send-test`: a code through the running relay, with all that is said of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from relay.__main__ import main
from tests.cli.test_ready import free_port
from tests.config.keyfiles import write_keys
from tests.support.relay import RelayProcess, command, write_config
from tests.support.upstream import Upstream

TO = "user@example.net"


def a_code_in(content: bytes) -> str:
    """The code of the mail that an upstream got."""
    found = re.search(rb"Your verification code is ([0-9]{6})\.", content)
    assert found is not None
    return found[1].decode()


async def test_a_code_is_sent_and_its_time_line_shown(tmp_path: Path) -> None:
    write_keys(tmp_path / "keys")
    dkim = [{"domain": "auth.example.com", "keys": [{"selector": "s1", "key_file": "keys/rsa2048.pem"}]}]
    async with Upstream() as upstream:
        config = write_config(
            tmp_path, {"fast": upstream}, http={"address": f"127.0.0.1:{free_port()}", "token": "hunter2"}, dkim=dkim
        )
        async with RelayProcess(config):
            said = await command("send-test", TO, "-c", config)
            logged = await command("log", "--to", TO, "-c", config)
    assert (said.code, said.err) == (0, "")
    (delivered,) = upstream.messages
    assert delivered.mail_from.startswith("FROM:<otp-relay@auth.example.com>")
    code = a_code_in(delivered.content)
    assert code not in said.out + logged.out
    assert "hunter2" not in said.out
    assert "(rule auth-sender)" in said.out
    assert "signed by s1" in said.out
    assert f"to {TO}: sent via fast" in said.out


async def test_two_codes_are_never_the_same(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"fast": upstream}, http={"address": f"127.0.0.1:{free_port()}"})
        async with RelayProcess(config):
            for _ in range(2):
                said = await command("send-test", TO, "--lane", "otp", "--json", "-c", config)
                assert said.code == 0
    assert said.document["lane"] == "otp"
    assert said.document["sender"] == "otp-relay@relay.example.com"
    assert said.document["recipients"][0]["state"] == "sent"
    first, second = (a_code_in(one.content) for one in upstream.messages)
    assert first != second
    assert not re.search(rf"{first}|{second}", said.out)


async def test_mail_that_an_upstream_refuses_is_exit_1_with_its_reply(tmp_path: Path) -> None:
    async with Upstream(script={"rcpt": "550 5.1.1 no such user"}) as upstream:
        config = write_config(tmp_path, {"fast": upstream}, http={"address": f"127.0.0.1:{free_port()}"})
        async with RelayProcess(config):
            said = await command("send-test", TO, "--from", "a@example.org", "-c", config)
    assert said.code == 1
    assert said.err == f"otp-relay: not sent: {TO} is bounced: 550 5.1.1 no such user\n"
    assert "a@example.org" in said.out


async def test_mail_that_waits_is_exit_1_when_the_time_is_over(tmp_path: Path) -> None:
    async with Upstream(script={"rcpt": "450 4.2.1 later"}) as upstream:
        config = write_config(tmp_path, {"fast": upstream}, http={"address": f"127.0.0.1:{free_port()}"})
        async with RelayProcess(config):
            said = await command("send-test", TO, "--lane", "otp", "--wait", "500ms", "-c", config)
    assert said.code == 1
    assert re.fullmatch(rf"otp-relay: not sent after 500ms: {TO} is \w+: 450 4.2.1 later\n", said.err)


async def test_what_the_relay_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"fast": upstream}, http={"address": f"127.0.0.1:{free_port()}"})
        async with RelayProcess(config):
            no_lane = await command("send-test", TO, "--lane", "opt", "-c", config)
            no_address = await command("send-test", "nobody", "-c", config)
    assert (no_lane.code, no_address.code) == (1, 1)
    assert no_lane.err == "otp-relay: the relay refuses the mail: 422 lane: there is no lane of that name\n"
    assert no_address.err.startswith("otp-relay: the relay refuses the mail: 422 to: ")
    assert not upstream.messages


async def test_a_wrong_token_is_named_with_its_place(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        http = {"address": f"127.0.0.1:{free_port()}", "token": "hunter2"}
        config = write_config(tmp_path, {"fast": upstream}, http=http)
        async with RelayProcess(config):
            other = tmp_path / "other.yaml"
            other.write_text(config.read_text().replace("hunter2", "hunter3"))
            said = await command("send-test", TO, "-c", other)
    assert said.code == 1
    assert "401" in said.err
    assert "other.yaml" in said.err
    assert "hunter" not in said.err


async def test_the_token_may_be_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("hunter2\n")
    async with Upstream() as upstream:
        http = {"address": f"127.0.0.1:{free_port()}", "token_file": "token"}
        config = write_config(tmp_path, {"fast": upstream}, http=http)
        async with RelayProcess(config):
            said = await command("send-test", TO, "-c", config)
    assert (said.code, said.err) == (0, "")


@pytest.mark.parametrize("with_store", [False, True])
def test_without_a_relay_it_says_so_in_one_line(
    with_store: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = free_port()
    dead = {"mx": {"host": "127.0.0.1", "port": 1, "tls": "none"}}
    config = write_config(tmp_path, dead, http={"address": f"127.0.0.1:{port}"})
    if with_store:
        (tmp_path / "relay.db").touch()
    assert main(["send-test", TO, "-c", str(config)]) == 1
    assert capsys.readouterr().err == (
        f"otp-relay: no relay answers at 127.0.0.1:{port}: start it with `otp-relay run`\n"
    )
