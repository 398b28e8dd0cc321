"""A relay with mail in every state that the console shows, between scripted upstreams."""

from __future__ import annotations

import base64
import email
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import aiohttp

from tests.support.app import BULK, OTP, Talk, letter
from tests.support.relay import RelayProcess, time_line, upstream_keys, write_config
from tests.support.script import Script
from tests.support.upstream import Upstream

SECRET = "hook-s3cret-of-postmark"
DEAD = "offers@dead.example.com"
SUBJECT = "Your verification code: 482913"
_SCRIPT: Script = {"rcpt": {"bounce@*": "550 5.1.1 no such user", "later@*": "451 4.2.0 mailbox busy", "slow@*": None}}
_CODES: Script = {
    "rcpt": {
        "bounce@*": "550 5.1.1 no such user",
        "later@*": "451 4.2.0 mailbox busy",
        "failover@*": "451 4.7.1 too many connections",
    }
}


@dataclass
class Scene:
    relay: RelayProcess
    codes: Upstream
    ids: dict[str, str] = field(default_factory=dict)
    """of the messages that were sent at first, by their recipient's mailbox"""

    @property
    def url(self) -> str:
        return f"http://{self.relay.http_address}"

    async def send(self, to: str, *state: str, sender: str = OTP, subject: str = SUBJECT) -> str:
        """Submit a mail, and wait until its recipients are in one of these states. Returns its id."""
        async with Talk(self.relay.smtp) as app:
            message_id = await app.submit(letter(sender=sender, subject=subject), sender, *to.split())
        if state:
            await time_line(self.relay, message_id, *state)
        return message_id

    async def delivered(self, address: str) -> None:
        """The ESP reports that the mail to this address is in its mailbox."""
        received = next(one for one in self.codes.messages if address in one.recipients)
        fields = email.message_from_bytes(received.content)
        event = {
            "RecordType": "Delivery",
            "MessageID": "00000000-0000-0000-0000-000000000001",
            "Metadata": {"relay-id": fields["X-PM-Metadata-relay-id"]},
            "Recipient": address,
            "DeliveredAt": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        }
        url = f"{self.url}/webhooks/postmark"
        proof = "Basic " + base64.b64encode(f"hook:{SECRET}".encode()).decode()
        headers = {"Authorization": proof, "Content-Type": "application/json"}
        async with (
            aiohttp.ClientSession() as session,
            session.post(url, data=json.dumps(event).encode(), headers=headers) as answer,
        ):
            assert answer.status == 200, await answer.text()


def configured(folder: Path, codes: Upstream, bulk: Upstream, dead: Upstream) -> Path:
    webhook = {"kind": "postmark", "secret": f"hook:{SECRET}"}
    upstreams = {
        "postmark": upstream_keys(codes, webhook=webhook),
        "ses": upstream_keys(bulk),
        "spare": upstream_keys(dead),
    }
    hour = {"retry": ["1h"], "expires": "2d"}
    lanes = {
        "otp": {
            "upstreams": ["postmark", "ses"],
            "retry": ["1h"],
            "expires": "50m",
            "objective": {"within": "10s", "share": "99%"},
            "limits": {"per_recipient": ["2/10m"], "action": "log"},
        },
        "bulk": {"upstreams": ["ses"], **hour},
        "offers": {"upstreams": ["spare"], **hour},
    }
    rules = [
        {"name": "auth-sender", "match": {"sender": "*@auth.example.com"}, "lane": "otp"},
        {"name": "offers", "match": {"sender": DEAD}, "lane": "offers"},
    ]
    return write_config(folder, upstreams, lanes=lanes, rules=rules, workers=1)


@asynccontextmanager
async def play(folder: Path) -> AsyncIterator[Scene]:
    refusing = Upstream(script={"greeting": "554 5.3.2 this server is closed"})
    async with (
        Upstream(script=_CODES, latency_s=0.006) as codes,
        Upstream(script=_SCRIPT, latency_s=0.02) as bulk,
        refusing as dead,
        RelayProcess(configured(folder, codes, bulk, dead)) as relay,
    ):
        scene = Scene(relay, codes)
        for to, state in (("ann@gmail.com", "sent"), ("bounce@example.org", "bounced"), ("later@gmx.de", "deferred")):
            scene.ids[to.partition("@")[0]] = await scene.send(to, state)
        scene.ids["failover"] = await scene.send("failover@yahoo.com", "sent")
        scene.ids["two"] = await scene.send("bob@outlook.com later@web.de", "sent", "deferred")
        for n in range(3):
            scene.ids[f"news{n}"] = await scene.send(
                f"news{n}@example.net", "sent", sender=BULK, subject=f"News, number {n}"
            )
        await scene.delivered("ann@gmail.com")
        yield scene
