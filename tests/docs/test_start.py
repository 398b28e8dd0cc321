"""The ten-minute start, as the page says it: a code in a mail catcher, then a configuration of one's own."""

from __future__ import annotations

import asyncio
import os
import re
import smtplib
import sys
from pathlib import Path

from relay.config.load import load
from tests.docs.blocks import ROOT, marked
from tests.support.relay import RelayProcess
from tests.support.upstream import Upstream

PAGE = ROOT / "docs/start.md"
STEPS = marked(PAGE)
SHIPPED = ROOT / "config/relay.yaml"
WITHIN_S = 40.0


async def shell(directory: Path, script: str, **environment: str) -> str:
    """What a block of the page prints when it is pasted."""
    folders = [str(Path(sys.executable).parent), os.environ["PATH"]]
    process = await asyncio.create_subprocess_exec(
        "bash", "-euo", "pipefail", "-c", script,
        cwd=directory,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PATH": os.pathsep.join(folders), **environment},
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), WITHIN_S)
    assert process.returncode == 0, out.decode()
    return out.decode()


def on_free_ports(catcher: Upstream) -> str:
    """The shipped configuration, with other ports and nothing else changed."""
    text = SHIPPED.read_text()
    for port, other in (("127.0.0.1:2525", "127.0.0.1:0"), ("127.0.0.1:8025", "127.0.0.1:0")):
        assert f"address: {port} " in text
        text = text.replace(f"address: {port} ", f"address: {other} ")
    assert "port: 1025 " in text
    return text.replace("port: 1025 ", f"port: {catcher.port} ")


async def test_a_code_arrives_in_a_catcher_by_the_shipped_configuration(tmp_path: Path) -> None:
    async with Upstream() as catcher:
        config = tmp_path / "config/relay.yaml"
        config.parent.mkdir()
        config.write_text(on_free_ports(catcher))
        async with RelayProcess(config) as relay:
            out = await shell(tmp_path, STEPS["first-mail"].text, OTP_RELAY_SUBMIT=relay.smtp_addresses[0])
            await catcher.wait_for(1)
            assert b"Your code is 123456" in catcher.messages[0].content
            assert re.search(r"you@example\.com\n  \S+  otp  ", out), out
            assert "123456" not in out + relay.stderr

            # The commands ask at the address of the file.
            config.write_text(config.read_text().replace("127.0.0.1:0 ", f"{relay.http_address} "))
            out = await shell(tmp_path, STEPS["first-code"].text)
            await catcher.wait_for(2)
            assert "otp (rule by-subject)" in out
            assert "sent via local" in out
            assert b"X-Relay" not in catcher.messages[1].content

            # An app that sets nothing: what its mails say names their lanes.
            with smtplib.SMTP(*relay.smtp, timeout=WITHIN_S) as client:
                for text in ("Your verification code is 482913.", "New shoes are here, with 20 % off."):
                    client.sendmail("app@example.com", ["u@example.net"], f"Subject: Hello\n\n{text}\n")
            await catcher.wait_for(4)
            out = await shell(tmp_path, "otp-relay log --from app@example.com")
            assert sorted(line.split()[1] for line in out.splitlines()[1::2]) == ["bulk", "otp"]


async def test_init_writes_what_the_page_lists(tmp_path: Path) -> None:
    (tmp_path / "postmark.token").write_text("hunter2-token\n")
    script = STEPS["init"].text.rstrip() + " --no-doctor\n" + STEPS["check"].text
    out = await shell(tmp_path, script)
    assert "hunter2" not in out
    folder = tmp_path / "otp-relay"
    listed = re.findall(r"^\| `([\w./-]+)`(?: or `[\w.]+`)? \|", PAGE.read_text().split("## 4.")[0], re.MULTILINE)
    written = {"relay.yaml", "keys/", "secrets/", "dns.txt", "otp-relay.service"}
    assert written <= set(listed)
    assert all((folder / name).exists() for name in written)
    config = load(folder / "relay.yaml", {}).config
    assert [one.domain for one in config.dkim] == ["example.com"]
    assert {f"{key.selector}._domainkey" for key in config.dkim[0].keys} <= set(
        re.findall(r"\w+\._domainkey", PAGE.read_text())
    )
    assert [path.stat().st_mode & 0o777 for path in (folder / "secrets").iterdir()] == [0o600]
