"""Suppressed addresses through a real relay: at the final dot, before a try, in workers, over a restart, erased."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import aiohttp

from tests.support.app import BULK, OTP, Talk, letter, stuffed
from tests.support.relay import RelayProcess, Said, command, until, until_logged, write_config
from tests.support.upstream import Upstream

SCRIPT: Any = {
    "rcpt": {
        "gone*": "550 5.1.1 no such user here",
        "policy*": "550 5.7.1 not today",
        "later*": "450 4.2.1 later",
    }
}


def configured(folder: Path, upstream: Upstream) -> Path:
    lanes = {
        "otp": {"upstreams": ["one"], "retry": ["1h"], "expires": "50m"},
        "bulk": {"upstreams": ["one"], "retry": ["1h"], "expires": "2d"},
    }
    # The commands find a running relay by the configuration, so its HTTP address is a path.
    http = {"address": f"unix:{folder}/http.sock"}
    return write_config(folder, {"one": upstream}, lanes=lanes, http=http, workers=1)


async def say(relay: RelayProcess, sender: str, *recipients: str) -> str:
    """The reply to the final dot."""
    async with Talk(relay.smtp) as app:
        await app.envelope(sender, *recipients)
        app.send(stuffed(letter(sender=sender)) + b".\r\n")
        return await app.reply()


async def send(relay: RelayProcess, sender: str, *recipients: str) -> str:
    return (await say(relay, sender, *recipients)).removeprefix("250 2.0.0 queued as ")


async def api(relay: RelayProcess, path: str, method: str = "GET", **asked: Any) -> Any:
    connector = aiohttp.UnixConnector(relay.http_address.removeprefix("unix:"))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=20)) as session,
        session.request(method, f"http://relay{path}", **asked) as answer,
    ):
        assert answer.status == 200, await answer.text()
        return await answer.json() if answer.content_type == "application/json" else await answer.text()


async def settled(relay: RelayProcess, message_id: str, *states: str) -> list[Any]:
    """The message's recipients, once each is in the state given for it."""
    found: list[Any] = []

    async def are_there() -> bool:
        found[:] = (await api(relay, f"/api/messages/{message_id}"))["recipients"]
        return [one["state"] for one in found] == list(states)

    await until(are_there)
    return found


async def listed(relay: RelayProcess, *addresses: str) -> list[Any]:
    """The suppressions, newest first, once these addresses are there."""
    found: list[Any] = []

    async def are_there() -> bool:
        found[:] = await api(relay, "/api/suppressions")
        return [one["address"] for one in found] == list(addresses)

    await until(are_there)
    return found


async def run(config: Path, *words: str) -> Said:
    return await command(*words, "-c", config)


async def ready(relay: RelayProcess) -> None:
    await until_logged(relay, "event=worker_ready")


async def test_a_bad_address_gets_no_more_mail_of_any_lane(tmp_path: Path) -> None:
    async with Upstream(script=SCRIPT) as upstream:
        async with RelayProcess(configured(tmp_path, upstream)) as relay:
            await ready(relay)
            await settled(relay, await send(relay, OTP, "policy@example.net"), "bounced")
            await settled(relay, await send(relay, OTP, "Gone@example.net"), "bounced")
            (entry,) = await listed(relay, "Gone@example.net")
            assert (entry["cause"], entry["reason"], entry["upstream"]) == ("bounce", "5.1.1", "one")
            assert entry["until"] is not None
            day = entry["at"][:10]
            refused = f"550 5.7.1 suppressed: bounced permanently on {day} (5.1.1)"
            assert await say(relay, OTP, "gone@EXAMPLE.net") == refused
            assert await say(relay, BULK, "gone@example.net") == refused

            # A worker's upstream refuses another; then a message of each lane has one good recipient.
            await settled(relay, await send(relay, BULK, "gone2@example.net"), "bounced")
            bulk, _ = await listed(relay, "gone2@example.net", "Gone@example.net")
            assert bulk["until"] is None
            for sender in (OTP, BULK):
                some = await send(relay, sender, "gone@example.net", "good@example.net", "gone2@example.net")
                first, _, _ = await settled(relay, some, "suppressed", "sent", "suppressed")
                assert first["reply"] == refused
                assert [event["kind"] for event in first["events"]] == ["accepted", "suppressed"]
                assert first["attempts"] == []
            text = await api(relay, "/metrics")
            assert 'relay_messages_rejected_total{reason="suppressed"} 2.0' in text
            assert 'relay_suppressed_total{lane="otp"} 3.0' in text
            assert 'relay_suppressed_total{lane="bulk"} 3.0' in text
            assert "gone" not in relay.stderr.lower()
        asked = [one.recipients for one in upstream.messages]
        assert asked.count(("good@example.net",)) == 2
        assert not any(one.startswith("gone") for each in asked for one in each)


async def test_waiting_mail_ends_at_its_next_try_also_after_a_restart_and_in_a_worker(tmp_path: Path) -> None:
    async with Upstream(script=SCRIPT) as upstream:
        config = configured(tmp_path, upstream)
        async with RelayProcess(config) as relay:
            await ready(relay)
            ids = {}
            for lane, sender in (("otp", OTP), ("bulk", BULK)):
                ids[lane] = await send(relay, sender, f"later@{lane}.example")
                await settled(relay, ids[lane], "deferred")
            for lane in ids:
                added = await run(config, "suppress", "add", f"later@{lane}.example", "--reason", "asked us not to")
                assert (added.code, added.out) == (0, f"later@{lane}.example\n")
        async with RelayProcess(config) as relay:
            await ready(relay)
            assert await say(relay, OTP, "later@bulk.example") == "550 5.7.1 suppressed: asked us not to"
            await api(relay, "/api/queue/retry", "POST", json={"all": True})
            for message_id in ids.values():
                await settled(relay, message_id, "suppressed")
            assert (await run(config, "suppress", "remove", "later@otp.example")).code == 0
            await settled(relay, await send(relay, OTP, "later@otp.example"), "deferred")
            await settled(
                relay, await send(relay, OTP, "later@otp.example", "later@bulk.example"), "deferred", "suppressed"
            )


def holding(folder: Path, text: str) -> list[str]:
    """Names of the store's files in which these bytes are."""
    sought = text.encode()
    return [path.name for path in sorted(folder.glob("relay*.db*")) if sought in path.read_bytes()]


async def test_an_erased_address_is_in_no_file_and_stays_suppressed(tmp_path: Path) -> None:
    gone = "gone.erased@example.net"
    async with Upstream(script=SCRIPT) as upstream:
        config = configured(tmp_path, upstream)
        async with RelayProcess(config) as relay:
            await ready(relay)
            for sender in (OTP, BULK):
                await settled(relay, await send(relay, sender, "good@example.net", gone), "sent", "bounced")
                await listed(relay, gone)
                await api(relay, f"/api/suppressions?address={gone}", "DELETE")
            await settled(relay, await send(relay, OTP, gone), "bounced")
            await listed(relay, gone)
            assert holding(tmp_path, gone)
            erased = await run(config, "log", "erase", gone.upper())
            assert (erased.code, erased.out) == (0, "3 messages, 1 suppression\n")
            assert (await run(config, "log", "erase", gone)).code == 1
            assert (await say(relay, OTP, gone)).startswith("550 5.7.1 suppressed: ")
            (entry,) = await api(relay, "/api/suppressions")
            assert entry["address"].startswith("h:")
            assert (await run(config, "log", "erase", "good@example.net")).code == 1  # beside the other: hashed with it
            assert (await run(config, "log", "--to", "nothing@example.net")).code == 1
        assert (await run(config, "store", "compact")).code == 0
        assert holding(tmp_path, gone) == []
        assert (await run(config, "log", "erase", gone)).code == 1
