"""Limits and idempotency keys through a real relay: over sockets, at once, over a restart, in a worker."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.app import BULK, OTP, Talk, letter, stuffed
from tests.support.relay import RelayProcess, command, metrics, time_line, until_logged, write_config
from tests.support.upstream import Upstream

QUEUED = "250 2.0.0 queued as "
TO = "someone@example.net"


def configured(folder: Path, upstream: Upstream, limits: Mapping[str, object], **keys: object) -> Path:
    lanes = {
        "otp": {"upstreams": ["one"], "retry": ["1h"], "expires": "50m", "supersede": True, "limits": limits},
        "bulk": {"upstreams": ["one"], "retry": ["1h"], "expires": "2d"},
    }
    return write_config(folder, {"one": upstream}, lanes=lanes, **keys)


async def say(relay: RelayProcess, *recipients: str, sender: str = OTP, extra: str = "", text: str = "hello") -> str:
    """The reply to the final dot."""
    async with Talk(relay.smtp) as app:
        await app.envelope(sender, *(recipients or (TO,)))
        app.send(stuffed(letter(text, sender=sender, extra=extra)) + b".\r\n")
        return await app.reply()


async def worker_ready(relay: RelayProcess) -> None:
    await until_logged(relay, "event=worker_ready")


def refused(limit: str, seconds: str = r"\d+") -> re.Pattern[str]:
    return re.compile(rf"450 4\.7\.1 limit {limit} of lane otp: try again in {seconds} s")


async def test_of_fifty_at_once_exactly_as_many_pass_as_may_and_a_restart_forgets_none(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = configured(tmp_path, upstream, {"per_recipient": "7/1h", "fold_tags": True})
        async with RelayProcess(config) as relay:
            spelled = [f"Some.one+{n}@{'Example' if n % 2 else 'example'}.net" for n in range(50)]
            replies = await asyncio.gather(*(say(relay, one) for one in spelled))
            passed = [reply for reply in replies if reply.startswith(QUEUED)]
            assert len(passed) == 7
            assert all(refused("per_recipient", r"3(5\d\d|600)").fullmatch(one) for one in set(replies) - set(passed))
            # One recipient over the limit refuses the whole message, which counts for no other.
            assert refused("per_recipient").fullmatch(await say(relay, "other@example.net", "some.one@example.net"))
            seen = await metrics(relay)
            assert seen.value("relay_limited_total", lane="otp", limit="per_recipient", action="reject") == 44
            assert seen.value("relay_messages_rejected_total", reason="limit") == 44
            assert seen.value("relay_resends_total", lane="otp") == 6
            assert "some.one" not in relay.stderr.lower()
        eml = tmp_path / "mail.eml"
        eml.write_bytes(letter(sender=OTP))
        asked = ("explain", eml, "--to", "some.one@example.net", "--json", "-c", config)
        explained = (await command(*asked)).document
        (counter,) = explained["limits"]["counters"]
        assert counter["windows"] == [{"count": 7, "period_ms": 3_600_000, "used": 7}]
        assert 3_400_000 < counter["wait_ms"] <= 3_600_000
        assert refused("per_recipient").fullmatch(explained["refused"][0])
        async with RelayProcess(config) as relay:
            assert refused("per_recipient").fullmatch(await say(relay, "some.one+x@example.net"))
            for _ in range(7):
                assert (await say(relay, "other@example.net")).startswith(QUEUED)
            assert refused("per_recipient").fullmatch(await say(relay, "other@example.net"))
        await upstream.wait_for(8)


async def test_each_limit_is_named_and_the_longest_wait_counts(tmp_path: Path) -> None:
    limits = {"per_client": "2/1h", "per_sender": "4/2h", "resend_after": ["10m", "20m"]}
    async with Upstream() as upstream, RelayProcess(configured(tmp_path, upstream, limits)) as relay:
        ann = "X-Relay-Client: ann\r\n"
        assert (await say(relay, "a@example.net", extra=ann)).startswith(QUEUED)
        assert refused("resend_after", r"(59\d|600)").fullmatch(await say(relay, "a@example.net", extra=ann))
        assert (await say(relay, "b@example.net", extra=ann)).startswith(QUEUED)
        assert refused("per_client").fullmatch(await say(relay, "c@example.net", extra=ann))
        assert refused("per_client").fullmatch(await say(relay, "a@example.net", extra=ann))
        # Without the field the client is the address.
        assert (await say(relay, "c@example.net")).startswith(QUEUED)
        assert (await say(relay, "d@example.net")).startswith(QUEUED)
        assert refused("per_sender", r"7\d\d\d").fullmatch(await say(relay, "e@example.net"))
        received = await upstream.wait_for(4)
        assert not any(b"X-Relay" in one.content for one in received)


async def test_a_delayed_code_leaves_when_it_may_and_a_newer_one_takes_its_place(tmp_path: Path) -> None:
    limits = {"per_recipient": ["2/3s"], "action": "delay"}
    async with Upstream() as upstream, RelayProcess(configured(tmp_path, upstream, limits)) as relay:
        ids = [(await say(relay, text=f"code {n}")).removeprefix(QUEUED) for n in range(4)]
        # The third was delayed, and the fourth supersedes it at the same moment: there is one place.
        third = await time_line(relay, ids[2], "superseded")
        fourth = await time_line(relay, ids[3], "sent")
        kinds = [event["kind"] for event in fourth["recipients"][0]["events"]]
        assert kinds == ["accepted", "limited", "sent"]
        assert re.fullmatch(
            r"per_recipient of lane otp: delayed for [1-3] s", fourth["recipients"][0]["events"][1]["reason"]
        )
        assert third["recipients"][0]["attempts"] == []
        first = await time_line(relay, ids[0], "sent")
        assert fourth["timings_ms"]["total"] > 1500 > first["timings_ms"]["total"]
        assert len(upstream.messages) == 3
        seen = await metrics(relay)
        assert seen.value("relay_limited_total", lane="otp", limit="per_recipient", action="delay") == 2


async def test_demoted_mail_goes_by_the_default_lane_and_its_time_line_says_why(tmp_path: Path) -> None:
    limits = {
        "per_recipient": "1/1h", "action": "demote", "express_budget": "3/h", "look_alikes": "1/1h",
    }  # fmt: skip
    async with Upstream() as upstream:
        config = configured(tmp_path, upstream, limits, workers=1)
        async with RelayProcess(config) as relay:
            await worker_ready(relay)

            async def lane_and_reason(*recipients: str, **said: Any) -> tuple[str, str | None]:
                message_id = (await say(relay, *recipients, **said)).removeprefix(QUEUED)
                found = await time_line(relay, message_id, "sent")
                reasons = [one["reason"] for one in found["recipients"][0]["events"] if one["kind"] == "limited"]
                return found["lane"], reasons[0] if reasons else None

            assert await lane_and_reason("a@example.net", text="Your code is 123456") == ("otp", None)
            because = "{} of lane otp: demoted to lane bulk".format
            assert await lane_and_reason("a@example.net", text="Your code is 234567") == (
                "bulk",
                because("per_recipient"),
            )
            listed = "List-Unsubscribe: <https://example.com/u>\r\n"
            assert await lane_and_reason("b@example.net", extra=listed) == ("bulk", because("list_unsubscribe"))
            news = "Dear {},\r\nall our shoes are much cheaper this week\r\nand so are the hats and coats"
            assert await lane_and_reason("c@example.net", text=news.format("Ann")) == ("otp", None)
            assert await lane_and_reason("d@example.net", text=news.format("Bo")) == ("bulk", because("look_alikes"))
            code = "Dear {},\r\nyour code for this week of cheap shoes is {}\r\nand so on and on it goes"
            assert await lane_and_reason("e@example.net", text=code.format("Ann", 345678)) == ("otp", None)
            assert await lane_and_reason("f@example.net", text=code.format("Bo", 456789)) == (
                "bulk", because("express_budget"),
            )  # fmt: skip
            seen = await metrics(relay)
            for limit in ("per_recipient", "list_unsubscribe", "look_alikes", "express_budget"):
                assert seen.value("relay_limited_total", lane="otp", limit=limit, action="demote") == 1


async def test_a_repeated_request_gets_the_same_answer_and_sends_nothing(tmp_path: Path) -> None:
    async with Upstream() as upstream:
        config = configured(tmp_path, upstream, {"per_recipient": "2/1h"}, workers=1)
        key, other = "X-Relay-Idempotency-Key: order-1\r\n", "X-Relay-Idempotency-Key: order-2\r\n"
        big = "y" * 76 + "\r\n"
        async with RelayProcess(config) as relay:
            await worker_ready(relay)
            first = await say(relay, extra=key)
            large = await say(relay, sender=BULK, extra=other, text=big * 5000)
            assert first.startswith(QUEUED)
            assert large.startswith(QUEUED)
            assert await say(relay, extra=key) == first
            # What a program makes anew when it tries again is no other request.
            assert await say(relay, extra=key + "X-Mailer: another\r\n") == first
            assert await say(relay, sender=BULK, extra=other, text=big * 5000) == large
            for again in (
                await say(relay, extra=key, text="another"),
                await say(relay, "x@example.net", extra=key),
                await say(relay, sender=BULK, extra=other, text=big * 5001),
            ):
                assert again == "554 5.6.0 this idempotency key was used for another message"
            assert (await say(relay, extra="X-Relay-Idempotency-Key: \r\n")).startswith("554 5.6.0 expected")
        async with RelayProcess(config) as relay:
            await worker_ready(relay)
            assert await say(relay, extra=key) == first
            assert await say(relay, sender=BULK, extra=other, text=big * 5000) == large
            # The limit has counted one message.
            assert (await say(relay)).startswith(QUEUED)
            assert refused("per_recipient").fullmatch(await say(relay))
            seen = await metrics(relay)
            assert seen.value("relay_messages_accepted_total", lane="otp", rule="auth-sender") == 1
        assert len(await upstream.wait_for(3)) == 3
