"""A header section just within the limits: accepted, delivered, bounced; only the beginning of its texts is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.app import OTP, Talk
from tests.support.relay import RelayProcess, time_line, write_config
from tests.support.script import Script
from tests.support.upstream import Upstream

LIMIT_BYTES = 262_144
TO = "user@example.net"


def content(size_bytes: int) -> bytes:
    """With a header section of that size."""
    head = f"From: {OTP}\r\nTo: {TO}\r\nMessage-ID: <".encode().ljust(9_000, b"i") + b"@a>\r\nSubject: "
    head += b"word " * 3_000 + b"\r\n"
    while len(head) < size_bytes:
        left = size_bytes - len(head)
        head += b"X-Filler: ".ljust((left if left <= 3_000 else 2_000) - 2, b"x") + b"\r\n"
    return head + b"\r\nhello\r\n"


@pytest.mark.parametrize("refuses", [False, True], ids=["delivered", "refused and bounced"])
async def test_a_header_section_just_below_the_limit_comes_to_its_end(tmp_path: Path, refuses: bool) -> None:
    script: Script = {"rcpt": {TO: "550 5.1.1 no such user 482931"}} if refuses else {}
    async with Upstream(script=script) as upstream, RelayProcess(write_config(tmp_path, {"one": upstream})) as relay:
        async with Talk(relay.smtp) as app:
            id_ = await app.submit(content(LIMIT_BYTES), OTP, TO)
            # Another recipient: the first one may be suppressed by now.
            await app.envelope(OTP, "other@example.net")
            app.send(content(LIMIT_BYTES + 1) + b".\r\n")
            assert (await app.reply()).startswith("554 5.6.0 ")
        view = await time_line(relay, id_, "bounced" if refuses else "sent")
        assert len(view["subject"]) <= 1_000
        assert len(view["message_id"]) <= 1_000
        if refuses:
            await upstream.wait_until(lambda: bool(upstream.messages))
            assert upstream.messages[0].recipients == (OTP,)
        else:
            assert upstream.messages[0].content.endswith(content(LIMIT_BYTES))
