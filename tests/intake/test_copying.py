"""Copies for an archive, where storing them goes wrong."""

from __future__ import annotations

from pathlib import Path

from relay.store.base import StoreError
from tests.intake.test_accept import CONFIG, Relay, configured


def copies(relay: Relay, result: str) -> float | None:
    return relay.metrics.registry.get_sample_value("relay_copies_total", {"lane": "otp", "result": result})


async def test_a_copy_that_is_not_stored_costs_the_app_nothing_and_is_logged_and_counted(
    tmp_path: Path,
) -> None:
    text = CONFIG.replace("otp: {", "otp: {copy_to: archive@example.com, ")
    assert text != CONFIG
    relay = Relay(configured(tmp_path, text))
    calls = 0

    async def second_fails() -> None:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise StoreError("disk I/O error")

    relay.target.before = second_fails
    receipt = await relay.accept(relay.submission())
    assert [message.id for message, _ in relay.target.submitted] == [receipt.id]
    assert (copies(relay, "failed"), copies(relay, "stored")) == (1, None)
    await relay.accept(relay.submission())
    copy = relay.target.submitted[-1][0]
    assert (copy.rule, copy.lane, copy.envelope.recipients[0].address) == ("copy", "bulk", "archive@example.com")
    assert (copy.subject, b"123456" in copy.content) == ("Your code is ••••••", False)
    assert (copies(relay, "failed"), copies(relay, "stored")) == (1, 1)
    assert copy.content.startswith(b"Received: ")
