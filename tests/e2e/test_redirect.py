"""`redirect` through a real relay: codes, bulk mail of a worker and bounces go to one address; a reload ends it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import dkim

from tests.e2e.test_life import reloaded
from tests.support.app import OTP, Talk, letter, stuffed
from tests.support.relay import RelayProcess, command, time_line, until_logged, write_config
from tests.support.upstream import Received, Upstream

STAGING = "staging@example.com"
LARGE = "\r\n".join(["x" * 900] * 1_200)
"""a text that a thread signs"""


def named(one: Received) -> list[str]:
    found = re.match(rb"X-Original-To: ((?:.*\r\n[ \t])*.*)\r\n", one.content)
    assert found is not None
    return found[1].decode().split(",\r\n ")


async def test_all_mail_goes_to_one_address_signed_and_the_log_has_the_true_ones(tmp_path: Path) -> None:
    made = await command("keygen", "auth.example.com", "s1", "--out", tmp_path)
    record = "".join(re.findall(r'"([^"]*)"', made.out)).encode()
    keys = [{"selector": "s1", "key_file": str(tmp_path / "auth.example.com.s1.pem")}]
    lanes = {
        "otp": {"upstreams": ["codes"], "expires": "5m", "limits": {"per_recipient": "1/1h"}},
        "bulk": {"upstreams": ["bulk"], "expires": "1d"},
    }
    rules = [{"name": "codes", "match": {"sender": OTP}, "lane": "otp"}]
    fixed: dict[str, Any] = {"lanes": lanes, "rules": rules, "workers": 1}
    fixed["dkim"] = [{"domain": "auth.example.com", "keys": keys}]
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, redirect=STAGING, **fixed)
        checked = await command("check", "-c", config)
        assert "redirect: all mail goes to this address instead of its recipients" in checked.out
        (tmp_path / "m.eml").write_bytes(letter(sender=OTP))
        explained = await command("explain", str(tmp_path / "m.eml"), "--to", "a@example.net", "-c", config)
        assert f"redirect   one copy goes to {STAGING} instead" in explained.out
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                code = await app.submit(letter(sender=OTP), OTP, "a@example.net", "b@example.org")
                large = await app.submit(letter(LARGE, sender=OTP), OTP, "c@example.net")
                news = await app.submit(
                    letter(sender="x@auth.example.com"), "x@auth.example.com", "d@example.net", "e@example.net"
                )
                await app.envelope(OTP, "a@example.net")
                app.send(stuffed(letter(sender=OTP)) + b".\r\n")
                assert (await app.reply()).startswith("45"), "the limit counts the true recipient"
            (await time_line(relay, large, "sent"), await time_line(relay, news, "sent"))
            view = await time_line(relay, code, "sent")
            assert [one["address"] for one in view["recipients"]] == ["a@example.net", "b@example.org"]
            assert "went to the redirect address" in str(view["notes"])
            arrived = [*codes.messages, *bulk.messages]
            assert [one.recipients for one in arrived] == [(STAGING,)] * 3
            assert sorted(named(one) for one in arrived) == [
                ["a@example.net", "b@example.org"], ["c@example.net"], ["d@example.net", "e@example.net"],
            ]  # fmt: skip
            for one in arrived:
                assert dkim.verify(one.content, dnsfunc=lambda name, timeout=5: record)  # type: ignore[no-untyped-call]
            await until_logged(relay, "event=redirect")
            assert STAGING not in relay.stderr
            write_config(tmp_path, {"codes": codes, "bulk": bulk}, **fixed)
            await reloaded(relay)
            async with Talk(relay.smtp) as app:
                await app.submit(letter(sender=OTP), OTP, "f@example.net")
                await app.submit(letter(), "x@example.com", "g@example.net")
            await codes.wait_for(3)
            await bulk.wait_for(2)
            assert codes.messages[-1].recipients == ("f@example.net",)
            assert bulk.messages[-1].recipients == ("g@example.net",)
            assert b"X-Original-To" not in codes.messages[-1].content + bulk.messages[-1].content


async def test_an_address_that_is_none_refuses_the_start(tmp_path: Path) -> None:
    async with Upstream() as one:
        for wrong in (
            "staging",
            "staging@",
            "a b@example.com",
            "a@b@example.com",
            "a@127.0.0.1",
            "<a@example.com>",
            ["a@b.example"],
        ):
            refused = await command("check", "-c", write_config(tmp_path, {"one": one}, redirect=wrong))
            assert refused.code == 2, wrong
            assert ": redirect: expected a mail address" in refused.err
