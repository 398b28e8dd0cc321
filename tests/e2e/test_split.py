"""A message whose recipients take different routes, through a real relay: it is sent in parts, and shown as one."""

from __future__ import annotations

import asyncio
import base64
import email
import json
import random
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.support.api import ApiServer
from tests.support.app import BULK, Talk, Unexpected, letter, stuffed
from tests.support.esps import VENDORS, Esp
from tests.support.relay import (
    RelayProcess,
    command,
    get,
    metrics,
    post,
    time_line,
    until,
    until_logged,
    upstream_keys,
    write_config,
)
from tests.support.script import Script
from tests.support.sending import send
from tests.support.upstream import Received, Upstream

USER, LIST, OTHER = "ann@users.example.net", "all@list.example.com", "bob@users.example.net"
TO = (LIST, USER, "news@list.example.com", OTHER)
"""The bulk part has the first recipient, so the entry isn't simply the first part."""
REFUSED: Script = {"rcpt": "451 4.3.0 later"}
RULES = [{"name": "users", "match": {"recipient": "*@users.example.net"}, "lane": "otp"}]


def configured(
    folder: Path,
    codes: Upstream | Mapping[str, object],
    bulk: Upstream,
    otp: Mapping[str, object] | None = None,
    more: Mapping[str, object] | None = None,
    **keys: object,
) -> Path:
    """`otp`, `more`: further keys of the lanes `otp` and `bulk`."""
    lanes = {
        "otp": {"upstreams": ["codes"], "retry": ["1h"], "expires": "50m", **(otp or {})},
        "bulk": {"upstreams": ["bulk"], "retry": ["1h"], "expires": "2d", **(more or {})},
    }
    return write_config(folder, {"codes": codes, "bulk": bulk}, **{"lanes": lanes, "rules": RULES, **keys})


async def submit(relay: RelayProcess, *to: str, sender: str = BULK, extra: str = "") -> str:
    async with Talk(relay.smtp) as app:
        return await app.submit(letter(sender=sender, extra=extra), sender, *(to or TO))


async def reply_to(relay: RelayProcess, *to: str, extra: str = "") -> str:
    """The reply to the final dot."""
    async with Talk(relay.smtp) as app:
        await app.envelope(BULK, *(to or TO))
        app.send(stuffed(letter(extra=extra)) + b".\r\n")
        return await app.reply()


def recipients(received: Received) -> list[str]:
    return sorted(received.recipients)


def column(line: Any, name: str) -> list[Any]:
    return [one[name] for one in line["recipients"]]


async def bulk_is_ready(relay: RelayProcess, workers: int) -> None:
    if workers:
        await until_logged(relay, "event=worker_ready")


@pytest.mark.parametrize("workers", [0, 2])
async def test_each_recipient_goes_by_its_own_lane_and_the_log_has_one_message(tmp_path: Path, workers: int) -> None:
    async with Upstream() as codes, Upstream() as bulk:
        config = configured(tmp_path, codes, bulk, workers=workers)
        async with RelayProcess(config) as relay:
            await bulk_is_ready(relay, workers)
            entry = await submit(relay)
            line = await time_line(relay, entry, "sent")
            (of_users,), (of_lists,) = codes.messages, bulk.messages
            assert (recipients(of_users), recipients(of_lists)) == ([USER, OTHER], [LIST, TO[2]])
            assert of_users.content == of_lists.content
            assert f"id {entry};".encode() in of_users.content
            assert (line["id"], line["lane"], line["rule"]) == (entry, "otp", "users")
            assert column(line, "address") == list(TO)
            assert column(line, "lane") == ["bulk", "otp", "bulk", "otp"]
            assert column(line, "rule") == [None, "users", None, "users"]
            assert column(line, "upstream") == ["bulk", "codes", "bulk", "codes"]
            other = line["recipients"][0]["part"]
            assert column(line, "part") == [other, entry, other, entry]
            assert {one["message"] for each in column(line, "events") for one in each} == {entry}
            kinds = [[one["kind"] for one in each] for each in column(line, "events")]
            assert kinds == [["accepted", "sent"]] * 4
            # By the id of any part, by the command and by the API, and in no listing twice.
            assert (await get(relay, f"/api/messages/{other}")).document == line
            assert (await command("log", other, "--json", "-c", config)).document == line
            text = " ".join((await command("log", entry, "-c", config)).out.split())
            assert f"to {LIST}: sent via bulk [bulk (default lane), part {other}" in text
            for given in ((), ("--lane", "bulk"), ("--lane", "otp"), ("--to", LIST), ("--to", USER)):
                (listed,) = (await command("log", *given, "--json", "-c", config)).objects
                assert (listed["id"], column(listed, "address")) == (entry, list(TO)), given
            lines = (await command("log", "-c", config)).out.splitlines()
            assert lines[0] == f"{entry}  4 sent      {LIST} (+3)"
            assert "  bulk, otp  bulk, codes  " in lines[1]
            events = (await get(relay, "/api/events")).document
            assert [one["message"] for one in events] == [entry] * 8
            accepted = [one for one in relay.stderr.splitlines() if "event=accepted" in one]
            assert len(accepted) == 1
            assert f"id={entry} " in accepted[0]
            assert "recipients=4" in accepted[0]
            assert "parts=2" in accepted[0]
            assert f"event=part id={other} part_of={entry} lane=bulk" in relay.stderr
            seen = await metrics(relay)
            assert seen.value("relay_messages_accepted_total", lane="otp", rule="users") == 1
            assert seen.value("relay_messages_accepted_total", lane="bulk", rule="default") == 1


async def test_without_a_rule_that_parts_them_recipients_stay_together(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk, RelayProcess(configured(tmp_path, codes, bulk)) as relay:
        line = await time_line(relay, await submit(relay, USER, OTHER), "sent")
        assert (line["lane"], recipients(codes.messages[0])) == ("otp", [USER, OTHER])
        assert "part" not in line["recipients"][0]
        # A lane that the request names is for all recipients.
        answer = await send(relay.http_address, {"from": BULK, "to": list(TO), "text": "hi", "lane": "otp"})
        line = await time_line(relay, answer.id, "sent")
        assert (line["lane"], len(codes.messages), bulk.messages) == ("otp", 2, [])


async def test_a_large_message_and_one_by_http_are_split_too(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk, RelayProcess(configured(tmp_path, codes, bulk)) as relay:
        async with Talk(relay.smtp) as app:
            entry = await app.submit(letter("\r\n".join(["y" * 900] * 2_000)), BULK, *TO)
        line = await time_line(relay, entry, "sent")
        assert column(line, "lane") == ["bulk", "otp", "bulk", "otp"]
        assert codes.messages[0].content == bulk.messages[0].content
        assert len(codes.messages[0].content) > 1_800_000
        answer = await send(relay.http_address, {"from": BULK, "to": list(TO), "subject": "s", "text": "hi"})
        line = await time_line(relay, answer.id, "sent")
        assert column(line, "upstream") == ["bulk", "codes", "bulk", "codes"]


@pytest.mark.parametrize("workers", [0, 1])
async def test_what_was_answered_250_is_sent_by_both_lanes_after_a_kill(tmp_path: Path, workers: int) -> None:
    async with Upstream(script=REFUSED) as codes, Upstream(script=REFUSED) as bulk:
        config = configured(tmp_path, codes, bulk, otp={"retry": ["1s"]}, more={"retry": ["1s"]}, workers=workers)
        async with RelayProcess(config) as relay:
            entry = await submit(relay)
            await relay.kill()
        codes.set_script({})
        bulk.set_script({})
        async with RelayProcess(config) as relay:
            line = await time_line(relay, entry, "sent")
            assert column(line, "upstream") == ["bulk", "codes", "bulk", "codes"]
            assert (len(codes.messages), len(bulk.messages)) == (1, 1)


@pytest.mark.parametrize("seed", range(3))
async def test_a_kill_in_the_middle_leaves_each_message_whole_or_nothing_of_it(tmp_path: Path, seed: int) -> None:
    acknowledged: list[str] = []

    async def submit_until_killed(relay: RelayProcess) -> None:
        with suppress(OSError, EOFError, Unexpected, asyncio.IncompleteReadError):
            while True:
                acknowledged.append(await submit(relay))

    async with Upstream(script=REFUSED) as codes, Upstream(script=REFUSED) as bulk:
        config = configured(tmp_path, codes, bulk, otp={"retry": ["1s"]}, more={"retry": ["1s"]}, workers=1)
        async with RelayProcess(config) as relay:
            tasks = [asyncio.create_task(submit_until_killed(relay)) for _ in range(6)]

            async def under_way() -> bool:
                return len(acknowledged) >= 10

            await until(under_way)
            await asyncio.sleep(random.Random(seed).random() * 0.2)
            await relay.kill()
            await asyncio.gather(*tasks)
        codes.set_script({})
        bulk.set_script({})
        async with RelayProcess(config) as relay:
            for entry in acknowledged:
                line = await time_line(relay, entry, "sent", within_s=30)
                assert column(line, "address") == list(TO)

            async def all_sent() -> bool:
                listed = (await get(relay, "/api/messages?limit=1000")).document
                return all(set(column(one, "state")) == {"sent"} for one in listed)

            await until(all_sent, within_s=30)
            listed = (await get(relay, "/api/messages?limit=1000")).document
            assert {one["id"] for one in listed} >= set(acknowledged)
            assert all(column(one, "address") == list(TO) for one in listed)
            assert len(codes.messages) == len(bulk.messages) == len(listed)


async def test_where_one_part_is_over_a_limit_all_are_refused_and_nothing_counts(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk:
        limits = {"limits": {"per_recipient": "1/1h"}}
        config = configured(tmp_path, codes, bulk, otp=limits, more=limits)
        async with RelayProcess(config) as relay:
            assert (await reply_to(relay, LIST)).startswith("250")
            assert (await reply_to(relay, USER, LIST)).startswith("450 4.7.1 limit per_recipient of lane bulk")
            assert (await reply_to(relay, LIST, USER)).startswith("450 4.7.1 limit per_recipient of lane bulk")
            # The other part of the refused one wasn't counted.
            assert (await reply_to(relay, USER)).startswith("250")
            assert (await reply_to(relay, USER)).startswith("450 4.7.1 limit per_recipient of lane otp")
            await codes.wait_for(1)
            await bulk.wait_for(1)
            assert (len(codes.messages), len(bulk.messages)) == (1, 1)
            assert len((await command("log", "--json", "-c", config)).objects) == 2


async def test_a_repeated_request_is_answered_with_the_entry_and_sends_nothing(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk, RelayProcess(configured(tmp_path, codes, bulk)) as relay:
        key = "X-Relay-Idempotency-Key: one\r\n"
        first = await reply_to(relay, extra=key)
        assert await reply_to(relay, extra=key) == first
        await time_line(relay, first.rpartition(" ")[2], "sent")
        assert (len(codes.messages), len(bulk.messages)) == (1, 1)


async def test_suppressed_recipients_end_their_part_only_and_all_of_them_refuse_the_message(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk, RelayProcess(configured(tmp_path, codes, bulk)) as relay:
        assert (await post(relay, "/api/suppressions", {"address": USER})).status == 200
        line = await time_line(relay, await submit(relay, USER, LIST), "suppressed", "sent")
        assert column(line, "state") == ["suppressed", "sent"]
        assert (await post(relay, "/api/suppressions", {"address": LIST})).status == 200
        assert (await reply_to(relay, USER, LIST)).startswith("550 5.7.1 suppressed")
        assert codes.messages == []
        # The other mail is the report that USER got nothing.
        assert sorted(map(recipients, await bulk.wait_for(2))) == [[LIST], [BULK]]


@pytest.mark.parametrize("workers", [0, 1])
async def test_a_part_with_one_recipient_supersedes_what_waits_for_it(tmp_path: Path, workers: int) -> None:
    async with Upstream() as codes, Upstream(script=REFUSED) as bulk:
        config = configured(tmp_path, codes, bulk, more={"supersede": True}, workers=workers)
        async with RelayProcess(config) as relay:
            await bulk_is_ready(relay, workers)
            older = await submit(relay, LIST)
            await time_line(relay, older, "deferred")
            entry = await submit(relay, LIST, USER)
            line = await time_line(relay, older, "superseded")
            part = (await get(relay, f"/api/messages/{entry}")).document["recipients"][0]["part"]
            assert column(line, "reply") == [f"superseded by {part}"]


@pytest.mark.parametrize("workers", [0, 1])
async def test_an_operator_acts_on_all_parts_by_the_id_of_any(tmp_path: Path, workers: int) -> None:
    async with Upstream(script=REFUSED) as codes, Upstream(script=REFUSED) as bulk:
        config = configured(tmp_path, codes, bulk, workers=workers)
        async with RelayProcess(config) as relay:
            await bulk_is_ready(relay, workers)
            entry = await submit(relay)
            line = await time_line(relay, entry, "deferred")
            part = line["recipients"][0]["part"]
            (waiting,) = (await command("queue", "--json", "-c", config)).objects
            assert (waiting["id"], column(waiting, "lane")) == (entry, ["bulk", "otp", "bulk", "otp"])
            for action, state in (("hold", "held"), ("release", "deferred"), ("drop", "bounced")):
                answer = await post(relay, f"/api/queue/{action}", {"ids": [part]})
                assert (answer.document["changed"], answer.document["unknown"]) == ([entry], [])
                await time_line(relay, entry, state)
            assert (codes.messages, bulk.messages) == ([], [])
        # Without a relay, too.
        async with RelayProcess(config) as relay:
            entry = await submit(relay)
            await time_line(relay, entry, "deferred")
        assert (await command("queue", "drop", entry, "-c", config)).out.split() == [entry]
        shown = (await command("log", entry, "--json", "-c", config)).document
        assert column(shown, "state") == ["bounced"] * 4


class Receiver:
    """An app that gets events."""

    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []

    async def post(self, request: web.Request) -> web.Response:
        self.data.append(json.loads(await request.read())["data"])
        return web.Response()


@pytest.fixture
async def receiver() -> AsyncIterator[tuple[Receiver, str]]:
    receiver, served = Receiver(), web.Application()
    served.add_routes([web.post("/hooks", receiver.post)])
    runner = web.AppRunner(served)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    yield receiver, f"http://127.0.0.1:{runner.addresses[0][1]}/hooks"
    await runner.cleanup()


async def test_an_event_about_a_part_names_the_entry_wherever_it_is_told(
    tmp_path: Path, receiver: tuple[Receiver, str]
) -> None:
    told, url = receiver
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    async with Upstream() as codes, Upstream() as bulk:
        webhook = {"kind": "postmark", "secret": "hook:s3cret"}
        upstreams = {"codes": upstream_keys(codes), "bulk": upstream_keys(bulk, webhook=webhook)}
        lanes = {
            "otp": {"upstreams": ["codes"], "expires": "10m"},
            "bulk": {"upstreams": ["bulk"], "expires": "2d"},
        }
        events = [{"url": url, "secret": secret}]
        config = write_config(tmp_path, upstreams, lanes=lanes, rules=RULES, events=events)
        async with RelayProcess(config) as relay:
            entry = await submit(relay, USER, LIST)
            line = await time_line(relay, entry, "sent")
            (received,) = bulk.messages
            fields = email.message_from_bytes(received.content)
            metadata = {"relay-id": str(fields["X-PM-Metadata-relay-id"])}
            assert metadata["relay-id"] == line["recipients"][1]["part"] != entry
            now = datetime.now(UTC).isoformat().replace("+00:00", "Z")
            document = {"RecordType": "Delivery", "MessageID": "00000000-0000-0000-0000-000000000001"}
            body = json.dumps({**document, "Metadata": metadata, "Recipient": LIST, "DeliveredAt": now})
            headers = {
                "Authorization": "Basic " + base64.b64encode(b"hook:s3cret").decode(),
                "Content-Type": "application/json",
            }
            where = f"http://{relay.http_address}/webhooks/bulk"
            async with aiohttp.ClientSession() as session, session.post(where, data=body, headers=headers) as answer:
                assert answer.status == 200
            line = await time_line(relay, entry, "sent")
            assert [one["kind"] for one in line["recipients"][1]["events"]] == ["accepted", "sent", "delivered"]
            assert line["recipients"][1]["delivered_at"] is not None
            bounce = {"RecordType": "Bounce", "Type": "HardBounce", "ID": 7, "Description": "no such user"}
            body = json.dumps({**document, **bounce, "Metadata": metadata, "Email": LIST})
            async with aiohttp.ClientSession() as session, session.post(where, data=body, headers=headers) as answer:
                assert answer.status == 200

            async def ended() -> bool:
                return column((await get(relay, f"/api/messages/{entry}")).document, "state") == ["sent", "bounced"]

            await until(ended)

            async def all_told() -> bool:
                return len(told.data) == 6

            await until(all_told)
            listed = (await get(relay, "/api/events")).document
            assert {one["message"] for one in [*told.data, *listed]} == {entry}
            assert (await command("events", "--kind", "delivered", "--json", "-c", config)).document["message"] == entry


async def test_an_archive_gets_one_copy_of_a_split_message(tmp_path: Path) -> None:
    copy = {"copy_to": "archive@example.org"}
    async with Upstream() as codes, Upstream() as bulk:
        config = configured(tmp_path, codes, bulk, otp=copy, more=copy)
        async with RelayProcess(config) as relay:
            await time_line(relay, await submit(relay), "sent")
            await bulk.wait_for(2)
            assert [recipients(one) for one in codes.messages] == [[USER, OTHER]]
            assert sorted(recipients(one) for one in bulk.messages) == [[LIST, TO[2]], ["archive@example.org"]]


async def test_many_at_once_are_all_sent_whole(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk:
        config = configured(tmp_path, codes, bulk, workers=1)
        async with RelayProcess(config) as relay:
            await bulk_is_ready(relay, 1)
            entries = await asyncio.gather(*(submit(relay) for _ in range(30)))
            accepted_at = {entry: (await time_line(relay, entry, "sent"))["accepted_at"] for entry in entries}
            assert (len(codes.messages), len(bulk.messages)) == (30, 30)
            listed = (await command("log", "--limit", "20", "--json", "-c", config)).objects
            ids = [one["id"] for one in listed]
            assert len(set(ids)) == 20
            # Messages that come together may have their ids in another order than their final dots.
            assert [accepted_at[id_] for id_ in ids] == sorted(accepted_at.values(), reverse=True)[:20]
            assert all(len(one["recipients"]) == 4 for one in listed)


async def test_a_part_by_an_api_shows_none_that_the_api_would_send_it_to(tmp_path: Path) -> None:
    async with ApiServer(esp := Esp("resend")) as server, Upstream() as bulk:
        codes = {"via": "api", "api": {"kind": "resend", "url": server.url, "key": VENDORS["resend"].KEY}}
        async with RelayProcess(configured(tmp_path, codes, bulk)) as relay, Talk(relay.smtp) as app:
            head = f"To: {LIST}\r\nCc: {USER}\r\n".encode()
            mail = letter().replace(b"To: someone@example.net\r\n", head)
            assert head in mail
            entry = await app.submit(mail, BULK, LIST, USER)
            await time_line(relay, entry, "sent")
        assert [one.recipients for one in esp.mails] == [(USER,)]
        assert [recipients(one) for one in bulk.messages] == [[LIST]]
        assert head in bulk.messages[0].content
