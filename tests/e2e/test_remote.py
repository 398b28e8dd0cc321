"""The commands against a relay elsewhere: by its URL, with a token, without its configuration or its store."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from relay.demo.process import RelayProcess
from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import Said, command, until_logged, write_config
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

ALL, READS = "may-do-everything", "may-read"
Ask = Callable[..., Coroutine[Any, Any, Said]]


@pytest.fixture
async def relay(tmp_path: Path) -> AsyncIterator[RelayProcess]:
    async with Upstream() as upstream:
        http = {"address": "127.0.0.1:0", "token": ALL, "read_token": READS}
        config = write_config(tmp_path, {"up": upstream}, workers=1, http=http)
        async with RelayProcess(config) as running:
            yield running


@pytest.fixture
def ask(relay: RelayProcess, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """A command in an empty folder, with the relay's URL in the environment."""
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")

    async def asked(*words: str, token: str = READS) -> Said:
        return await command(*words, environment={"OTP_RELAY_URL": url(relay), "OTP_RELAY_TOKEN": token})

    return asked


def url(relay: RelayProcess) -> str:
    return f"http://{relay.http_address}"


async def send(relay: RelayProcess) -> tuple[str, str]:
    async with Talk(relay.smtp) as talk:
        code = await talk.submit(letter(), OTP, "anna@example.net")
        news = await talk.submit(letter(), BULK, "bob@example.org")
    for one in (code, news):
        await until_logged(relay, f"event=sent id={one}")
    return code, news


async def test_a_relay_elsewhere_shows_its_mail_by_every_filter(relay: RelayProcess, ask: Ask) -> None:
    code, news = await send(relay)
    for words, ids in (
        ((), [news, code]),
        (("--to", "ANNA"), [code]),
        (("--to", "*@example.org"), [news]),
        (("--lane", "otp", "--since", "1h"), [code]),
        (("--from", "auth.example.com", "--until", "0.001s"), [code]),
        (("--limit", "1"), [news]),
    ):
        listed = await ask("log", *words, "--json")
        assert [one["id"] for one in listed.objects] == ids, listed.err
    assert (await ask("log", "--failed")).err == "otp-relay: no message found\n"
    for begin in (code, code.lower()[:22]):
        shown = await ask("log", begin)
        assert shown.out.startswith(f"{code}  otp (rule auth-sender)\n  accepted by up "), shown.err
    several = await ask("log", code[:5])
    assert several.err == f"otp-relay: several ids begin with {code[:5]}: {news}, {code}\n"
    assert (await ask("log", "01NOTHING")).code == 1
    assert "verdict" in json.loads((await ask("log", code, "--json")).out)
    report = await ask("report")
    assert report.out.splitlines()[0].split()[:3] == ["LANE", "UPSTREAM", "PROVIDER"]
    assert [one["kind"] for one in (await ask("events", "--to", "anna@example.net", "--json")).objects] == [
        "accepted", "sent"
    ]  # fmt: skip
    assert (await ask("queue")).out == "nothing waits\n"


async def test_what_happens_elsewhere_is_followed(relay: RelayProcess, ask: Ask, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{READS}\n")
    follower = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "relay", "log", "--follow", "--json", "--to", "*@example.net"),
        *("--url", url(relay), "--token-file", str(token)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert follower.stdout is not None
    async with asyncio.timeout(20):
        # Its stream has begun once a message is shown: each is sent until then.
        shown: Any = None
        reading = asyncio.create_task(follower.stdout.readline())
        while not reading.done():
            code, _ = await send(relay)
            await asyncio.wait((reading,), timeout=0.2)
        while shown is None or (shown["id"], shown["recipients"][0]["state"]) != (code, "sent"):
            shown = json.loads(await (reading if shown is None else follower.stdout.readline()))
            assert shown["recipients"][0]["address"] == "anna@example.net"
        follower.send_signal(signal.SIGINT)
        assert await follower.wait() == 0


async def test_a_change_elsewhere_needs_the_token_for_everything(relay: RelayProcess, ask: Ask) -> None:
    added = await ask("suppress", "add", "eve@example.net", "--reason", "left us", token=ALL)
    assert (added.code, added.out) == (0, "eve@example.net\n")
    assert (await ask("suppress", "list", "--json")).objects[0]["address"] == "eve@example.net"
    assert (await ask("suppress", "export")).out == "eve@example.net,left us\n"
    refused = await ask("suppress", "remove", "eve@example.net")
    assert (refused.code, "403 this token may read, and change nothing" in refused.err) == (1, True)
    refused = await ask("queue", "drop", "--all")
    assert (refused.code, "403 " in refused.err) == (1, True)
    nothing = await ask("queue", "drop", "--all", token=ALL)
    assert (nothing.code, nothing.err) == (1, "otp-relay: nothing changed\n")
    wrong = await ask("log", token="wrong")
    assert wrong.err.startswith(f"otp-relay: {url(relay)}: 401 this token isn't known")
    assert "OTP_RELAY_TOKEN" in wrong.err
    assert "wrong" not in wrong.err


async def test_what_is_no_relay_is_one_line(ask: Ask, certificates: Certificates) -> None:
    for words, reason in (
        (("--url", "http://127.0.0.1:1"), "http://127.0.0.1:1: nothing listens there"),
        (("--url", "ftp://x"), "--url: expected a URL such as https://relay.example.com:8025"),
        (
            ("--url", "https://user:hunter2@x"),
            "--url: a URL with credentials; the token goes into a file or a variable",
        ),
    ):
        said = await ask("log", *words)
        assert (said.out, said.err) == ("", f"otp-relay: {reason}\n")
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0, ssl=certificates.self_signed.server_context())
    async with server:
        port = server.sockets[0].getsockname()[1]
        said = await ask("log", "--url", f"https://127.0.0.1:{port}")
    assert said.code == 1
    assert "certificate verify failed" in said.err
