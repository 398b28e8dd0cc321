"""Codes, bodies and credentials: in nothing that the relay says (`test_byte_search`: and in none of its files)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import pytest_asyncio

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.processes import children
from tests.support.relay import RelayProcess, command, get, post, time_line, upstream_keys, write_config
from tests.support.script import Script
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

pytestmark = pytest.mark.asyncio(loop_scope="module")

_codes = itertools.count(739_154, 1_117)
PASSWORD = "upstream-password-Zq8rT5vW"
APP_PASSWORD = "app-password-Jx3kM9pL"
TOKEN = "http-token-Vb7nC2sD"
STATES = ("sent", "bounced", "deferred", "expired")


@dataclass
class World:
    relay: RelayProcess
    config: Path
    directory: Path
    upstream: Upstream
    secrets: list[str] = field(default_factory=lambda: [PASSWORD, APP_PASSWORD, TOKEN])

    async def send(self, sender: str, to: str) -> tuple[str, str, str]:
        """A message with a code and a text like no other: its id, the code, the text."""
        code = str(next(_codes))
        text = f"secret text {os.urandom(8).hex()}"
        content = letter(f"Your code is {code}.\r\n{text}", sender=sender, subject=f"{code} is your code")
        async with Talk(self.relay.smtp) as app:
            credentials = base64.b64encode(f"\0app\0{APP_PASSWORD}".encode()).decode()
            await app.ask(f"AUTH PLAIN {credentials}")
            message_id = await app.submit(content, sender, to)
        self.secrets += [code, text, credentials]
        return message_id, code, text


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def world(tmp_path_factory: pytest.TempPathFactory, certificates: Certificates) -> AsyncIterator[World]:
    directory = tmp_path_factory.mktemp("secrets")
    script = {
        "rcpt": {"bounce@*": "550 5.2.1 mailbox disabled", "later@*": "451 4.2.0 later"},
        "mail": {"locked@*": f"535 5.7.8 {base64.b64encode(PASSWORD.encode()).decode()} is wrong"},
    }
    upstream = Upstream(script=script, tls="starttls", certificate=certificates.good, auth={"u": PASSWORD})  # type: ignore[arg-type]
    async with upstream:
        lane = {"upstreams": ["one"], "retry": ["200ms"], "expires": "10m"}
        config = write_config(
            directory,
            {"one": upstream_keys(upstream, certificates, host="localhost")},
            listen=[{"address": "127.0.0.1:0", "auth": "any"}],
            http={"address": "127.0.0.1:0", "token": "${HTTP_TOKEN}"},
            lanes={"otp": lane, "bulk": {**lane, "express": False}},
            workers=1,
        )
        environment = {"HTTP_TOKEN": TOKEN}
        async with RelayProcess(config, environment, ["--log-level", "debug"]) as relay:
            yield World(relay, config, directory, upstream)


async def settled(world: World, message_id: str) -> None:
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with asyncio.timeout(15):
        while True:
            answer = await get(world.relay, f"/api/messages/{message_id}", headers=headers)
            if answer.status == 200 and all(one["state"] in STATES for one in answer.document["recipients"]):
                return
            await asyncio.sleep(0.03)


def found(secrets: list[str], text: str) -> list[str]:
    return [secret for secret in secrets if secret in text]


@pytest.mark.fresh
async def test_no_secret_is_in_anything_that_the_relay_says(world: World) -> None:
    ids = []
    for sender, to in itertools.product((OTP, BULK), ("user@example.net", "bounce@example.net", "later@example.net")):
        message_id, _, _ = await world.send(sender, to)
        await settled(world, message_id)
        ids.append(message_id)
    async with Talk(world.relay.smtp) as app:
        for line in (f"AUTH PLAIN {APP_PASSWORD}", APP_PASSWORD, f"MAIL FROM:<{APP_PASSWORD}>", f"AUTH {APP_PASSWORD}"):
            await app.ask(line)
    said = {"stderr": world.relay.stderr}
    headers = {"Authorization": f"Bearer {TOKEN}"}
    paths = ["/metrics", "/readyz", "/healthz", "/api/messages", "/api/queue", "/api/report", "/api/live", "/"]
    for path in [*paths, *(f"/api/messages/{message_id}" for message_id in ids)]:
        answer = await get(world.relay, path, headers=headers)
        assert answer.status == 200, path
        said[path] = answer.body + str(answer.headers)
    environment = {"HTTP_TOKEN": TOKEN}
    for arguments in (["log", "--json"], ["log", ids[2]], ["queue"], ["report"]):
        ended = await command(*arguments, "-c", world.config, environment=environment)
        assert ended.code == 0, ended.err
        said[" ".join(arguments)] = ended.out + ended.err
    said["a wrong token"] = (await get(world.relay, "/api/queue", headers={"Authorization": f"Bearer {TOKEN}x"})).body
    said["a bad request"] = (await post(world.relay, f"/api/queue/{TOKEN}x", {"a": 1}, headers=headers)).body[:0]
    assert {where: secrets for where, text in said.items() if (secrets := found(world.secrets, text))} == {}
    assert "event=sent" in said["stderr"]


@pytest.mark.fresh
async def test_no_secret_is_in_the_process_list(world: World) -> None:
    await world.send(OTP, "user@example.net")
    pids = [world.relay.pid, *children(world.relay.pid)]
    assert len(pids) == 2
    for pid in pids:
        words = Path(f"/proc/{pid}/cmdline").read_text()
        assert "relay" in words
        assert "forks_server" not in words
        assert found(world.secrets, words) == []


@pytest.mark.parametrize("key", ["password", "http.token"])
async def test_no_secret_is_in_a_configuration_error(tmp_path: Path, key: str) -> None:
    one: dict[str, object] = {"host": "mx.example.com", "username": "u", "password": PASSWORD, "pasword": PASSWORD}
    http: dict[str, object] = {"address": "127.0.0.1:0", "token": [TOKEN]}
    if key == "http.token":
        one = {"host": "mx.example.com", "username": "u", "password": [PASSWORD]}
        http = {"address": "127.0.0.1:0", "tokn": TOKEN}
    config = write_config(tmp_path, {"one": one}, http=http, workers=0)
    said = await command("run", "-c", config)
    assert said.code == 2
    assert found([PASSWORD, TOKEN], said.err) == []


def remains(directory: Path, secrets: list[str]) -> dict[str, list[str]]:
    found_in = {}
    for path in directory.rglob("*"):
        if path.is_file() and path.suffix != ".yaml":
            try:
                content = path.read_bytes()
            except FileNotFoundError:
                continue
            if inside := [secret for secret in secrets if secret.encode() in content]:
                found_in[path.name] = inside
    return found_in


@pytest.mark.parametrize(("reply", "state"), [("554 5.7.1 spam", "bounced"), ("451 4.7.1 greylisted", "deferred")])
async def test_a_code_that_an_upstream_quotes_in_its_refusal_is_not_kept(
    tmp_path: Path, reply: str, state: str
) -> None:
    content = letter("918273 it is", sender=OTP, subject="918273 is your code")
    # The notice of a bounce isn't quoted: it waits.
    script: Script = {"rcpt": {OTP: "451 4.2.0 later"}, "dot": f"{reply}: '918273 is your code'"}
    async with Upstream(script=script) as upstream:
        config = write_config(tmp_path, {"one": upstream}, workers=0)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                message_id = await app.submit(content, OTP, "user@example.net")
            shown = await time_line(relay, message_id, state)
            assert "918273" not in str(shown)
            assert shown["recipients"][0]["reply"].startswith(reply)
            assert "918273" not in relay.stderr
            assert remains(tmp_path, ["918273"]) == {}
