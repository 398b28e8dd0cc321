"""What an operator sees of the sessions that a running relay keeps open for codes."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.support.app import OTP, Talk, letter
from tests.support.relay import RelayProcess, command, get, metrics, until, until_logged, write_config
from tests.support.upstream import Close, Upstream, Wait

CODES = 5


async def health(relay: RelayProcess) -> Any:
    return (await get(relay, "/readyz")).document["lanes"]["otp"]["upstreams"]["esp"]


async def shown(config_file: Path) -> tuple[Any, Any]:
    """The doctor's finding about the sessions, and what `explain` has about the upstream."""
    doctor = await command("doctor", "-c", config_file, "--json")
    (finding,) = [one for one in doctor.document["findings"] if one["text"].startswith("sessions: ")]
    explained = await command("explain", "-c", config_file, "--json", "-", given=letter(sender=OTP))
    return finding, explained.document["warm"]["esp"]["running"]


async def test_after_a_burst_as_many_sessions_are_shown_as_are_open(tmp_path: Path) -> None:
    release = asyncio.Event()
    async with Upstream(script={"dot": lambda _: Wait(release)}) as upstream:
        config_file = write_config(tmp_path, {"esp": upstream}, workers=0)
        async with RelayProcess(config_file) as relay, Talk(relay.smtp) as app:
            assert (await health(relay))["warm"]["sessions"] == 2
            for number in range(CODES):
                await app.submit(letter(sender=OTP), OTP, f"u{number}@example.net")

            async def all_are_under_way() -> bool:
                return bool((await health(relay))["warm"]["sessions"] == CODES + 1)

            async def so_many_are_open() -> bool:
                return bool((await health(relay))["sessions"]["idle"] > CODES)

            await until(all_are_under_way)
            release.set()
            await upstream.wait_for(CODES)
            await until(so_many_are_open)
            reason = "auto: recent bursts needed 5 at once, and 1 is ahead"
            assert (await health(relay))["warm"] == {"sessions": CODES + 1, "reason": reason}
            found = await metrics(relay)
            assert found.value("relay_upstream_warm_sessions", lane="otp", upstream="esp") == CODES + 1


async def test_an_upstream_that_closes_idle_sessions_at_once_is_shown_as_such(tmp_path: Path) -> None:
    async with Upstream(script={"idle": Close()}, idle_s=0.05) as upstream:
        config_file = write_config(tmp_path, {"esp": upstream}, workers=0)
        async with RelayProcess(config_file) as relay:

            async def none_is_kept() -> bool:
                return bool((await health(relay))["warm"]["sessions"] == 0)

            await until(none_is_kept)
            seen = await health(relay)
            assert seen["warm"]["reason"].startswith("on demand: the upstream closed idle sessions after ")
            assert seen["state"] == "up"
            found = await metrics(relay)
            assert {"lane": "otp", "upstream": "esp"} in found.labels("relay_upstream_warm_sessions")
            assert found.value("relay_upstream_warm_sessions", lane="otp", upstream="esp") == 0
            assert " lane=otp upstream=esp closed_after=" in await until_logged(relay, "event=sessions_on_demand")
            assert relay.stderr.count("event=sessions_on_demand") == 1
            # The commands find the relay by the address in the file.
            write_config(tmp_path, {"esp": upstream}, http={"address": relay.http_address})
            finding, running = await shown(config_file)
            assert running == seen["warm"]
            assert finding["status"] == "warn"
            assert finding["text"].endswith(f"; the running relay 0 ({seen['warm']['reason']})")
