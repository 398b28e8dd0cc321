"""An upstream that turns our account away is left alone by all; one that says so of a single message is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.delivery.harness import Bench, config, delivering, outcomes, until, warm
from tests.support.upstream import Upstream

BAD = {"bad*@*": "530 5.7.0 authentication required", "poor@*": "538 5.7.11 encryption required"}
ON_RCPT: Any = {"rcpt": BAD}


def circuit(bench: Bench) -> str:
    return bench.delivery.lane("otp").upstreams[0].circuit.state


async def tried(bench: Bench, *to: str) -> None:
    """One round for a message to `to`: it ends, or is put off."""
    await bench.ended(await bench.send(*to, sender=""), "sent", "deferred")


async def test_one_message_that_is_turned_away_stops_no_other_however_often_it_is_tried(tmp_path: Path) -> None:
    async with (
        Upstream(script=ON_RCPT) as one,
        delivering(tmp_path, config({"one": one}, retry=(0.02,))) as bench,
    ):
        await until(lambda: warm(bench))
        id_ = await bench.send("bad@example.net", sender="")
        await until(lambda: sum(" ".join(each.verbs).count("RCPT") for each in one.sessions) >= 4)
        assert circuit(bench) == "closed"
        await tried(bench, "good@example.net")
        assert len(one.messages) == 1
        assert {outcome for _, outcome in outcomes(await bench.view(id_))} == {"refused"}


async def test_a_message_of_which_some_recipients_are_taken_says_nothing_of_our_account(tmp_path: Path) -> None:
    async with Upstream(script=ON_RCPT) as one, delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench:
        await until(lambda: warm(bench))
        for _ in range(3):
            await tried(bench, "bad@example.net", "good@example.net")
        assert circuit(bench) == "closed"


@pytest.mark.parametrize(
    "script", [ON_RCPT, {"data": ["530 5.7.0 no", "535 5.7.8 no"]}, {"dot": "535 5.7.8 no"}], ids=str
)
async def test_the_second_message_in_a_row_that_is_turned_away_opens_the_circuit(tmp_path: Path, script: Any) -> None:
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench:
        await until(lambda: warm(bench))
        await tried(bench, "bad1@example.net")
        assert circuit(bench) == "closed"
        await tried(bench, "bad2@example.net")
        assert circuit(bench) == "open"


async def test_one_that_is_taken_between_two_that_are_turned_away_shows_that_our_account_is_good(
    tmp_path: Path,
) -> None:
    async with Upstream(script=ON_RCPT) as one, delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench:
        await until(lambda: warm(bench))
        for to in ("bad1@example.net", "good@example.net", "poor@example.net", "good@example.net", "bad2@example.net"):
            await tried(bench, to)
        assert circuit(bench) == "closed"


async def test_a_mail_command_that_is_turned_away_opens_the_circuit_at_once(tmp_path: Path) -> None:
    script: Any = {"mail": "530 5.7.0 authentication required"}
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one}, retry=(20.0,))) as bench:
        await until(lambda: warm(bench))
        await tried(bench, "u@example.net")
        assert circuit(bench) == "open"
