"""Two relays behind HAProxy, with the configurations of docs/two-relays.md on loopback."""

from __future__ import annotations

import asyncio
import re
import shutil
import smtplib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, marked
from tests.docs.configs import fragments
from tests.support.relay import RelayProcess, get, until, write_config
from tests.support.upstream import Upstream

BLOCKS = marked(ROOT / "docs/two-relays.md")
TOKEN = {"Authorization": "Bearer value-of-the-token"}


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def relay_config(directory: Path, upstream: Upstream) -> Path:
    """The page's, on loopback instead of its networks."""
    (fragment,) = fragments(
        re.sub(r"10\.0\.0\.\d+(/24)?(:\d+)?", lambda found: "127.0.0.1" + (":0" if found[2] else ""),
               BLOCKS["behind-haproxy"].text)
    )  # fmt: skip
    directory.mkdir()
    return write_config(directory, {"ses": upstream}, **fragment, workers=0)


def haproxy_config(port: int, relays: list[RelayProcess]) -> str:
    text = BLOCKS["haproxy"].text.replace("10.0.0.10:2525", f"127.0.0.1:{port}")
    for number, relay in enumerate(relays, 1):
        smtp, http = relay.smtp_addresses[0], relay.http_address.rpartition(":")[2]
        text = text.replace(f"10.0.0.{number}:2525 port 8025", f"{smtp} port {http}")
    assert "10.0.0." not in text
    return text


@asynccontextmanager
async def haproxy(file: Path) -> AsyncIterator[None]:
    path = shutil.which("haproxy", path="/usr/sbin:/usr/bin")
    assert path is not None
    process = await asyncio.create_subprocess_exec(path, "-db", "-f", str(file))
    try:
        yield
    finally:
        process.terminate()
        await asyncio.wait_for(process.wait(), 10)


def submit(port: int, to: str) -> None:
    with smtplib.SMTP("127.0.0.1", port, timeout=10) as client:
        client.sendmail("no-reply@auth.example.com", [to], f"To: {to}\nSubject: hi\n\nhi\n")


@pytest.mark.real
async def test_haproxy_hands_mail_to_the_relay_that_is_ready(tmp_path: Path) -> None:
    if shutil.which("haproxy", path="/usr/sbin:/usr/bin") is None:
        pytest.skip("no haproxy")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(Upstream())
        environment = {"RELAY_HTTP_TOKEN": "value-of-the-token"}
        relays = [
            await stack.enter_async_context(RelayProcess(relay_config(tmp_path / name, upstream), environment))
            for name in ("a", "b")
        ]
        port = free_port()
        file = tmp_path / "haproxy.cfg"
        file.write_text(haproxy_config(port, relays))
        await stack.enter_async_context(haproxy(file))

        async def is_taken(to: str) -> bool:
            try:
                await asyncio.to_thread(submit, port, to)
            except (OSError, smtplib.SMTPException):
                return False
            return True

        await until(lambda: is_taken("one@example.net"))
        await upstream.wait_for(1)
        (message,) = (await get(relays[0], "/api/messages", headers=TOKEN)).document
        assert message["client"] == "127.0.0.1"
        await relays[0].kill()
        await until(lambda: is_taken("two@example.net"))
        await upstream.wait_for(2)
        assert len((await get(relays[1], "/api/messages", headers=TOKEN)).document) == 1
