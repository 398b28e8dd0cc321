"""The whole way of a code: app, relay, ESP, webhook, time line, the app's own receiver."""

from __future__ import annotations

import asyncio
import base64
import email
import json
import secrets
import signal
import sys
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from standardwebhooks import Webhook as StandardWebhook

from tests.support.app import Talk, stuffed
from tests.support.relay import RelayProcess, command, get, metrics, time_line, until, upstream_keys, write_config
from tests.support.upstream import Received, Upstream

SECRET = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
BASIC = "Basic " + base64.b64encode(b"hook:s3cret").decode()


class App:
    """A receiver of events that verifies them with a library of its own."""

    def __init__(self) -> None:
        self.events: list[dict[str, Any]] = []
        self.came = asyncio.Event()

    async def post(self, request: web.Request) -> web.Response:
        body = await request.read()
        StandardWebhook(SECRET).verify(body, dict(request.headers))
        self.events.append(json.loads(body))
        self.came.set()
        return web.Response()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(15):
            while not holds():
                self.came.clear()
                await self.came.wait()

    def kinds(self, message_id: str) -> list[str]:
        return [one["type"] for one in self.events if one["data"]["message"] == message_id]


@pytest.fixture
async def app() -> AsyncIterator[tuple[App, str]]:
    receiver = App()
    served = web.Application()
    served.add_routes([web.post("/hooks", receiver.post)])
    runner = web.AppRunner(served)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    yield receiver, f"http://127.0.0.1:{port}/hooks"
    await runner.cleanup()


CONTENT = (
    b"From: login@auth.example.com\r\nTo: ann@example.org\r\nSubject: Your code\r\n"
    b"X-PM-Metadata-user: 42\r\n\r\nYour code is 493871\r\n"
)


async def submit(relay: RelayProcess, *to: str, sender: str = "login@auth.example.com") -> str:
    async with Talk(relay.smtp) as talk:
        return await talk.submit(CONTENT, sender, *to)


def echoed(received: Received) -> dict[str, str]:
    """The metadata that Postmark would send back: its header fields."""
    fields = email.message_from_bytes(received.content)
    prefix = "X-PM-Metadata-"
    return {name[len(prefix) :]: str(value) for name, value in fields.items() if name.startswith(prefix)}


def event(kind: str, received: Received, address: str, **more: object) -> bytes:
    document = {"RecordType": kind, "MessageID": "00000000-0000-0000-0000-000000000001", "Metadata": echoed(received)}
    key = "Recipient" if kind == "Delivery" else "Email"
    return json.dumps({**document, key: address, **more}).encode()


async def post_event(relay: RelayProcess, body: bytes, authorization: str = BASIC) -> int:
    url = f"http://{relay.http_address}/webhooks/postmark"
    headers = {"Authorization": authorization, "Content-Type": "application/json"}
    async with aiohttp.ClientSession() as session, session.post(url, data=body, headers=headers) as answer:
        return answer.status


def configured(directory: Path, esp: Upstream, url: str, **keys: object) -> Path:
    webhook = {"kind": "postmark", "secret": "hook:s3cret"}
    events = [{"url": url, "secret": SECRET}]
    return write_config(directory, {"postmark": upstream_keys(esp, webhook=webhook)}, events=events, **keys)


async def test_a_code_is_followed_from_the_app_to_the_mailbox_and_back(tmp_path: Path, app: tuple[App, str]) -> None:
    receiver, url = app
    async with Upstream() as esp, RelayProcess(configured(tmp_path, esp, url)) as relay:
        message_id = await submit(relay, "ann@example.org")
        (received,) = await esp.wait_for(1)
        assert echoed(received) == {"user": "42", "relay-id": message_id}
        await time_line(relay, message_id, "sent")
        at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
        assert await post_event(relay, event("Delivery", received, "ann@example.org", DeliveredAt=at)) == 200
        line = await time_line(relay, message_id, "sent")
        (recipient,) = line["recipients"]
        assert [one["kind"] for one in recipient["events"]] == ["accepted", "sent", "delivered"]
        assert recipient["delivered_at"] == recipient["events"][2]["at"]
        await receiver.until(lambda: receiver.kinds(message_id) == ["accepted", "sent", "delivered"])
        assert receiver.events[-1]["data"] == recipient["events"][2]
        listed = (await get(relay, "/api/events")).document
        shown = [*listed, *recipient["events"], *(one["data"] for one in receiver.events)]
        assert {one["message_id"] for one in shown} == {line["message_id"]}
        seen = await metrics(relay)
        assert seen.value("relay_events_total", upstream="postmark", kind="delivered") == 1
        assert seen.value("relay_inbox_seconds_count", lane="otp", provider="other") == 1


async def test_a_late_bounce_ends_what_was_sent(tmp_path: Path, app: tuple[App, str]) -> None:
    _, url = app
    async with Upstream() as esp, RelayProcess(configured(tmp_path, esp, url)) as relay:
        message_id = await submit(relay, "ann@example.org", "bob@example.org")
        received = await esp.wait_for(1)
        await time_line(relay, message_id, "sent", "sent")
        bounce = event("Bounce", received[-1], "bob@example.org", Type="HardBounce", ID=7, Description="no such user")
        assert await post_event(relay, bounce) == 200
        line = await time_line(relay, message_id, "sent", "bounced")
        assert [one["kind"] for one in line["recipients"][1]["events"]] == ["accepted", "sent", "bounced"]


async def test_a_bounced_address_gets_no_more_codes_and_one_that_complained_no_bulk_mail(
    tmp_path: Path, app: tuple[App, str]
) -> None:
    _, url = app
    async with Upstream() as esp, RelayProcess(configured(tmp_path, esp, url)) as relay:
        message_id = await submit(relay, "ann@example.org", "bob@example.org")
        received = await esp.wait_for(1)
        await time_line(relay, message_id, "sent", "sent")
        when = {"BouncedAt": datetime.now(UTC).isoformat(), "ID": 7}
        bounce = event("Bounce", received[-1], "bob@example.org", Type="HardBounce", TypeCode=1, **when)
        complaint = event("SpamComplaint", received[-1], "ann@example.org", Type="SpamComplaint", TypeCode=512, **when)
        for body in (bounce, complaint, bounce):
            assert await post_event(relay, body) == 200

        async def suppressed() -> bool:
            listed = (await get(relay, "/api/suppressions")).document
            return sorted((one["address"], one["cause"], one["upstream"]) for one in listed) == [
                ("ann@example.org", "complaint", "postmark"),
                ("bob@example.org", "bounce", "postmark"),
            ]

        await until(suppressed)
        for sender, to, refused in (
            ("login@auth.example.com", "bob@example.org", "bounced permanently on "),
            ("news@example.com", "bob@example.org", "bounced permanently on "),
            ("news@example.com", "ann@example.org", "complained on "),
        ):
            async with Talk(relay.smtp) as talk:
                await talk.envelope(sender, to)
                talk.send(CONTENT.replace(b"login@auth.example.com", sender.encode()) + b".\r\n")
                assert (await talk.reply()).startswith(f"550 5.7.1 suppressed: {refused}")
        await submit(relay, "ann@example.org")  # a code


async def test_what_is_not_proved_or_not_ours_leaves_nothing(tmp_path: Path, app: tuple[App, str]) -> None:
    _, url = app
    async with Upstream() as esp, RelayProcess(configured(tmp_path, esp, url)) as relay:
        message_id = await submit(relay, "ann@example.org")
        (received,) = await esp.wait_for(1)
        right = event("Delivery", received, "ann@example.org", DeliveredAt="2026-11-01T00:00:00Z")
        assert await post_event(relay, right, "Basic bm9ib2R5Om5v") == 401
        assert await post_event(relay, right.replace(message_id.encode(), b"01UNKNOWN0000000000000000X")) == 200
        assert await post_event(relay, right.replace(b"ann@", b"eve@")) == 200
        assert await post_event(relay, b"{") == 400
        assert (await get(relay, "/webhooks/postmark")).status == 405
        line = await time_line(relay, message_id, "sent")
        assert [one["kind"] for one in line["recipients"][0]["events"]] == ["accepted", "sent"]


async def test_a_bounce_of_bulk_mail_ends_it_in_its_worker_and_is_remembered(
    tmp_path: Path, app: tuple[App, str]
) -> None:
    receiver, url = app
    async with Upstream() as esp, RelayProcess(configured(tmp_path, esp, url)) as relay:
        message_id = await submit(relay, "gone@example.org", sender="news@example.com")
        (received,) = await esp.wait_for(1)
        await time_line(relay, message_id, "sent")
        bounce = event("Bounce", received, "gone@example.org", Type="HardBounce", ID=9, Details="550 5.1.1 unknown")
        assert await post_event(relay, bounce) == 200
        line = await time_line(relay, message_id, "bounced")
        assert [one["kind"] for one in line["recipients"][0]["events"]] == ["accepted", "sent", "bounced"]
        await receiver.until(lambda: receiver.kinds(message_id) == ["accepted", "sent", "bounced"])
        listed = (await command("suppress", "list", "-c", tmp_path / "relay.yaml", "--json")).objects
        assert [(one["address"], one["cause"]) for one in listed] == [("gone@example.org", "bounce")]
        for sender in ("news@example.com", "login@auth.example.com"):
            async with Talk(relay.smtp) as talk:
                await talk.envelope(sender, "gone@example.org")
                talk.send(stuffed(CONTENT) + b".\r\n")
                assert (await talk.reply()).startswith("550 5.7.1 suppressed: ")


async def test_events_are_followed_on_the_command_line(tmp_path: Path, app: tuple[App, str]) -> None:
    _, url = app
    async with Upstream() as esp, RelayProcess(configured(tmp_path, esp, url)) as relay:
        first = await submit(relay, "ann@example.org")
        await time_line(relay, first, "sent")
        arguments = ("-m", "relay", "events", "--follow", "--json", "-c", str(tmp_path / "relay.yaml"))
        following = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=asyncio.subprocess.PIPE)
        assert following.stdout is not None
        async with asyncio.timeout(30):
            seen = [json.loads(await following.stdout.readline()) for _ in range(2)]
            second = await submit(relay, "bob@example.org")
            seen += [json.loads(await following.stdout.readline()) for _ in range(2)]
            following.send_signal(signal.SIGINT)
            assert await following.wait() == 0
        header_ids = [(await time_line(relay, each, "sent"))["message_id"] for each in (first, second)]
        assert [one["message_id"] for one in seen] == [each for each in header_ids for _ in range(2)]
        assert [(one["kind"], one["message"]) for one in seen] == [
            (kind, message_id) for message_id in (first, second) for kind in ("accepted", "sent")
        ]
