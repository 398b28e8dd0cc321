"""A lane that prefers the fastest upstream: begun with what the events file has, and changed by what is delivered."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime
from pathlib import Path

import yaml

from relay.delivery.fastest import LEAST
from relay.store.events import MailEvent, Recording
from relay.store.sqlite.events_file import open_events
from tests.e2e.test_feedback import CONTENT, event, post_event, submit
from tests.support.relay import RelayProcess, command, get, metrics, time_line, until, upstream_keys, write_config
from tests.support.upstream import Upstream

CODE = CONTENT.replace(b"ann@example.org", b"ann@gmail.com")


async def delivered_before(path: Path, **after_s: float) -> None:
    """As many deliveries to gmail as are needed, by upstream, a minute ago."""
    events, at = await open_events(path), time.time() - 60
    for upstream, seconds in after_s.items():
        for number in range(LEAST):
            one = MailEvent(f"evt_{upstream}{number}", f"01{upstream}{number}", 0, at, "delivered", "esp", upstream)
            await events.record([Recording(one, "otp", "gmail", at - seconds)])
    await events.close()


async def test_a_domain_whose_provider_is_known_by_mx_has_it_from_the_start(tmp_path: Path) -> None:
    events = await open_events(tmp_path / "relay-events.db")
    await events.save_mx("firm.org", "gmail", time.time() + 60)
    await events.close()
    async with Upstream() as one, RelayProcess(write_config(tmp_path, {"one": one})) as relay:
        line = await time_line(relay, await submit(relay, "ann@Firm.org"), "sent")
        assert line["recipients"][0]["provider"] == "gmail"


async def first(relay: RelayProcess, config: Path) -> str:
    """What `explain` expects a code to gmail to be handed to."""
    document = yaml.safe_load(config.read_text())
    listening = config.with_name("listening.yaml")  # the port that the relay was given
    listening.write_text(yaml.safe_dump({**document, "http": {"address": relay.http_address}}))
    explained = await command("explain", "-c", listening, "--json", "-", given=CODE)
    assert explained.document["prefer"]["why"] == "fastest"
    return str(explained.document["prefer"]["order"][0])


async def sent_line(relay: RelayProcess, message_id: str) -> str:
    def lines() -> list[str]:
        return [line for line in relay.stderr.splitlines() if f"event=sent id={message_id}" in line]

    async def written() -> bool:
        return bool(lines())

    await until(written)
    return lines()[0]


async def test_the_fastest_upstream_is_known_at_the_start_and_follows_the_delivered_events(tmp_path: Path) -> None:
    async with Upstream() as one, Upstream() as two:
        webhook = {"kind": "postmark", "secret": "hook:s3cret"}
        otp = {"upstreams": ["one", "postmark"], "retry": ["1s"], "expires": "10m", "prefer": "fastest"}
        lanes = {
            "otp": {**otp, "objective": {"within": "60s", "share": "99%"}},
            "bulk": {"upstreams": ["one"], "retry": ["1m"], "expires": "2d"},
        }
        upstreams = {"one": upstream_keys(one, webhook=webhook), "postmark": upstream_keys(two, webhook=webhook)}
        config = write_config(tmp_path, upstreams, lanes=lanes)
        await delivered_before(tmp_path / "relay-events.db", one=9.0, postmark=2.0)
        async with RelayProcess(config) as relay:
            assert await first(relay, config) == "postmark"
            while not two.messages:  # one of twenty explores the other upstream
                message_id = await submit(relay, "ann@gmail.com")
                sent = (await time_line(relay, message_id, "sent"))["recipients"][0]
                line = await sent_line(relay, message_id)
                assert f" upstream={sent['upstream']} " in line
                assert f" preferred={sent['upstream']} " in line
                assert any(f" because={why}" in line for why in ("fastest", "explored"))
            (received,) = two.messages
            at = datetime.fromtimestamp(time.time() + 100, UTC).isoformat()  # the ESP says that it took so long
            body = event("Delivery", received, "ann@gmail.com", DeliveredAt=at)
            assert json.loads(body)["DeliveredAt"] == at
            assert await post_event(relay, body) == 200

            async def is_counted() -> bool:  # the feedback process answers first, then tells the main process
                return (await metrics(relay)).value("relay_inbox_seconds_count", lane="otp", provider="gmail") == 1

            await until(is_counted)
            seen = await metrics(relay)
            counted = [seen.value(f"relay_objective_{name}", lane="otp") for name in ("total", "good_total")]
            assert counted == [1, 0]
            (lane,) = (await get(relay, "/api/report")).document["lanes"]
            assert lane["inbox"]["delivered"] == 2 * LEAST + 1
            assert lane["inbox"]["p99_ms"] > 90_000
            # What went to the other upstream has no event: there the relay's own time decides.
            good, total = len(one.messages), len(one.messages) + 1
            wanted = {"within_ms": 60_000.0, "wanted_share": 0.99}
            assert lane["objective"] == {**wanted, "good": good, "total": total, "share": good / total, "met": False}
            assert await first(relay, config) == "one"
