"""Mail by HTTP through a real relay: what an app posts arrives, durable before 202; what can't be sent is refused."""

from __future__ import annotations

import email
import email.policy
from email.message import EmailMessage
from pathlib import Path

from tests.support.app import OTP
from tests.support.relay import RelayProcess, time_line, write_config
from tests.support.sending import send
from tests.support.upstream import Upstream

TO = "someone@example.net"
SIMPLE = {"from": OTP, "to": TO, "subject": "hi", "text": "Your code is 123456"}


def parsed(content: bytes) -> EmailMessage:
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(message, EmailMessage)
    assert not message.defects
    return message


async def test_a_document_arrives_as_the_message_that_it_describes(tmp_path: Path) -> None:
    async with Upstream() as upstream, RelayProcess(write_config(tmp_path, {"one": upstream})) as relay:
        place = relay.http_address
        answer = await send(place, SIMPLE)
        assert (answer.status, set(answer.document)) == (202, {"id"})
        await time_line(relay, answer.id, "sent")
        assert parsed(upstream.messages[0].content).get_content() == "Your code is 123456\r\n"
