"""`copy_to`: an archive gets a copy of each message of a lane; of codes only where `copy_codes` says so."""

from __future__ import annotations

import email
import email.policy
import re
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from tests.support.app import OTP, Talk, letter
from tests.support.relay import RelayProcess, command, metrics, time_line, until, until_logged, write_config
from tests.support.upstream import Hang, Received, Upstream

ARCHIVE = "archive@example.com"
CODE = "481516"
NEWS = "news@example.com"


def two_lanes(**otp: Any) -> dict[str, Any]:
    return {
        "lanes": {
            "otp": {"upstreams": ["codes"], "expires": "5m", "copy_to": ARCHIVE, **otp},
            "bulk": {"upstreams": ["bulk"], "expires": "1d", "copy_to": ARCHIVE},
        },
        "rules": [{"name": "codes", "match": {"sender": OTP}, "lane": "otp"}],
    }


def without_trace(content: bytes) -> bytes:
    return re.sub(rb"\AReceived: [^\r\n]*\r\n(?:[ \t][^\r\n]*\r\n)*", b"", content)


def copies(upstream: Upstream) -> list[Received]:
    return [one for one in upstream.messages if one.recipients == (ARCHIVE,)]


def masked_text(content: bytes) -> str:
    found = email.message_from_bytes(content, policy=email.policy.default)
    assert isinstance(found, EmailMessage)
    return f"{found['Subject']}\n{found.get_content()}"


async def copied(relay: RelayProcess, number: int, result: str = "stored") -> None:
    async def counted() -> bool:
        found = await metrics(relay)
        lanes = [labels["lane"] for labels in found.labels("relay_copies_total") if labels["result"] == result]
        return sum(found.value("relay_copies_total", lane=lane, result=result) for lane in lanes) == number

    await until(counted)


@pytest.mark.parametrize("workers", [0, 1])
async def test_bulk_mail_is_copied_byte_for_byte_and_codes_are_masked(tmp_path: Path, workers: int) -> None:
    large = letter("\r\n".join(["y" * 900] * 3_000), sender=NEWS)
    big_code = letter(f"{CODE}\r\n" * 400_000, sender=OTP, subject=f"{CODE} is your code")
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, workers=workers, **two_lanes())
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                code = await app.submit(
                    letter(f"Your code is {CODE}.", sender=OTP, subject=f"{CODE} is your code"), OTP, "a@example.net"
                )
                await app.submit(big_code, OTP, "big@example.net")
                await app.submit(letter("from 9 to 5", sender=NEWS), NEWS, "b@example.net", "c@example.net")
                await app.submit(large, NEWS, "d@example.net")
                await app.submit(letter("once", sender=NEWS), NEWS, "e@example.net", ARCHIVE.upper())
            await copied(relay, 4)
            await bulk.wait_for(7)
            await codes.wait_for(2)
            assert [one.recipients for one in codes.messages] == [("a@example.net",), ("big@example.net",)]
            assert all(CODE.encode() in one.content for one in codes.messages)
            originals = [without_trace(one.content) for one in bulk.messages if one.recipients != (ARCHIVE,)]
            got = [without_trace(one.content) for one in copies(bulk)]
            assert len(got) == 4
            of_codes = [one for one in got if OTP.encode() in one]
            assert len(of_codes) == 2
            assert [one for one in of_codes if CODE.encode() in one] == []
            assert any(
                "Your code is •••••• .".replace(" .", ".").encode() in one or b"=E2=80=A2" in one for one in of_codes
            )
            for one in got:
                assert one in originals or one in of_codes
            line = await until_logged(relay, f"event=copied id={code}")
            copy = await time_line(relay, line.rpartition("copy=")[2].split()[0], "sent")
            assert (copy["lane"], copy["rule"], copy["sender"]) == ("bulk", "copy", OTP)
            assert CODE not in str(copy)
            assert CODE not in relay.stderr


async def test_whole_codes_go_to_the_archive_only_where_the_configuration_says_so(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream(script={"dot": "550 5.1.1 no archive"}) as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **two_lanes(copy_codes=True))
        checked = await command("check", "-c", config)
        assert f"lanes.otp.copy_codes: codes go to {ARCHIVE}, too" in checked.out
        (tmp_path / "m.eml").write_bytes(letter(sender=OTP))
        explained = await command("explain", str(tmp_path / "m.eml"), "--to", "a@example.net", "-c", config)
        assert f"copy       to {ARCHIVE}, whole" in explained.out
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                await app.submit(letter(f"Your code is {CODE}.", sender=OTP), OTP, "a@example.net")
            await codes.wait_for(1)
            await bulk.wait_until(lambda: len(bulk.transfers) == 1)
            assert without_trace(bulk.transfers[0].content) == without_trace(codes.messages[0].content)
            # No sender gets a report about a refused copy: the next message is the only other one.
            async with Talk(relay.smtp) as app:
                await app.submit(letter("last", sender=NEWS), "", "z@example.net")
            await bulk.wait_until(lambda: len(bulk.transfers) == 3)
            assert sorted(one.recipients for one in bulk.transfers[1:]) == [(ARCHIVE,), ("z@example.net",)]


async def test_a_demoted_code_is_copied_as_its_own_lane_says(tmp_path: Path) -> None:
    keys = two_lanes(limits={"per_recipient": "1/1h", "action": "demote"})
    keys["lanes"]["bulk"].pop("copy_to")
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **keys)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                for _ in range(2):
                    id_ = await app.submit(letter(f"Your code is {CODE}.", sender=OTP), OTP, "a@example.net")
            await copied(relay, 2)
            await bulk.wait_for(3)
            assert len(copies(bulk)) == 2
            assert not [one for one in copies(bulk) if CODE.encode() in one.content]
            shown = await command("log", id_, "-c", config)
            assert "  limited     per_recipient of lane otp: demoted to lane bulk" in shown.out


async def test_an_archive_that_refuses_is_never_suppressed(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream(script={"rcpt": "550 5.1.1 no such user"}) as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **two_lanes(), workers=0)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                for _ in range(3):
                    await app.submit(letter(f"Your code is {CODE}.", sender=OTP), OTP, "a@example.net")

            async def bounced() -> bool:
                return relay.stderr.count("event=bounced") == 3

            await until(bounced)
            assert (await command("suppress", "list", "-c", config)).out.count(ARCHIVE) == 0


async def test_a_code_leaves_and_the_app_gets_its_250_while_the_archive_hangs(tmp_path: Path) -> None:
    async with (
        Upstream() as codes,
        Upstream(script={"mail": Hang()}) as bulk,
        RelayProcess(write_config(tmp_path, {"codes": codes, "bulk": bulk}, **two_lanes())) as relay,
    ):
        async with Talk(relay.smtp) as app:
            for number in range(3):
                await app.submit(letter(f"Your code is {CODE}.", sender=OTP), OTP, f"a{number}@example.net")
        await codes.wait_for(3)


async def test_the_copy_is_stored_before_the_250(tmp_path: Path) -> None:
    # It hangs: a refused connection would be a deferral, and the next attempt its pause later.
    async with Upstream() as codes, Upstream(script={"greeting": Hang()}) as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **two_lanes())
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                await app.submit(letter(f"Your code is {CODE}.", sender=OTP), OTP, "a@example.net")
            await relay.kill()
        bulk.set_script({})
        async with RelayProcess(config):
            await bulk.wait_for(1)
            assert [one.recipients for one in bulk.messages] == [(ARCHIVE,)]


async def said(tmp_path: Path, upstream: Upstream, rules: list[Any] | None = None, **otp: object) -> tuple[int, str]:
    lane = {"upstreams": ["one"], "expires": "5m", **otp}
    config = write_config(tmp_path, {"one": upstream}, lanes={"otp": lane}, default_lane="otp", rules=rules or [])
    checked = await command("check", "-c", config)
    return checked.code, checked.out + checked.err


async def test_keys_without_effect_and_wrong_ones_are_named(tmp_path: Path) -> None:
    async with Upstream() as one:
        code, text = await said(tmp_path, one, copy_to="archive")
        assert (code, "lanes.otp.copy_to: expected a mail address" in text) == (2, True)
        code, text = await said(tmp_path, one, copy_to=ARCHIVE, copy_codes="yes")
        assert (code, "lanes.otp.copy_codes: expected true or false" in text) == (2, True)
        code, text = await said(tmp_path, one, copy_codes=True)
        assert (code, "lanes.otp.copy_codes: has no effect: there is no copy_to" in text) == (0, True)
        code, text = await said(tmp_path, one, copy_codes=True, copy_to=ARCHIVE, express=False)
        assert (code, "has no effect: the lane isn't express" in text) == (0, True)
        rule = {"name": "copy", "match": {"sender": "*"}, "lane": "otp"}
        code, text = await said(tmp_path, one, [rule])
        assert (code, "rules[0].name: the log names what goes to copy_to copy" in text) == (2, True)
