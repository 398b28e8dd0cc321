"""The sender hears of a delay once (RFC 2852 by-mode N, RFC 3461 NOTIFY=DELAY)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from relay.mail.envelope import DeliverBy, Recipient
from tests.delivery.harness import config, delivering
from tests.support.upstream import Upstream


@pytest.mark.parametrize(
    ("recipient", "envelope"),
    [
        (Recipient("u@example.net"), {"deliver_by": DeliverBy(0, "N")}),
        (Recipient("u@example.net", frozenset({"DELAY"})), {"deliver_by": DeliverBy(-1, "N")}),
    ],
    ids=["BY=0;N", "BY=-1;N NOTIFY=DELAY"],
)
async def test_mail_that_is_past_its_by_time_goes_on_and_its_sender_hears_of_the_delay_once(
    tmp_path: Path, recipient: Recipient, envelope: dict[str, Any]
) -> None:
    script: Any = {"rcpt": {"u@example.net": ["451 4.2.1 later"] * 3}}
    async with (
        Upstream(("PIPELINING",), script=script) as one,
        delivering(tmp_path, config({"one": one})) as bench,
    ):
        view = await bench.ended(await bench.send(recipient, sender="app@example.com", **envelope), "sent")
        assert len(view["recipients"][0]["attempts"]) == 4
        await one.wait_for(2)
        notices = [message for message in one.messages if message.sender == ""]
        assert [message.recipients for message in notices] == [("app@example.com",)]
        assert b"Action: delayed" in notices[0].content
