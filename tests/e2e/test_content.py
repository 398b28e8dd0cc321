"""`match: {content: otp}` routes by what mail says; `lint: report` counts what would hurt a code."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from relay.mail.lint.rules import RULES
from tests.mail.codes.material import clean_mails
from tests.mail.lint.material import CLEAN
from tests.support.app import Talk, letter
from tests.support.relay import RelayProcess, command, metrics, time_line, until, until_logged, write_config
from tests.support.upstream import Upstream

APP = "app@example.com"
TO = "a@example.net"
CODE = "481516"
NEWS = f"Our newsletter has {CODE} readers. Order now, and get 20 % off with the voucher SAVE2026."


def by_content(*rules: dict[str, Any], **otp: Any) -> dict[str, Any]:
    """Two lanes with an upstream each; codes are known by what they say, after those rules."""
    return {
        "lanes": {
            "otp": {"upstreams": ["codes"], "expires": "5m", **otp},
            "bulk": {"upstreams": ["bulk"], "expires": "1d"},
        },
        "rules": [
            *rules,
            {"name": "looks-like-a-code", "match": {"content": "otp"}, "lane": "otp"},
        ],
    }


async def test_codes_of_any_language_go_first_and_all_else_goes_to_bulk(tmp_path: Path) -> None:
    codes_of = {one.language: one for one in clean_mails()}
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **by_content())
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                ids = [
                    await app.submit(letter(codes_of[name].text(CODE), sender=APP), APP, f"{name}@example.net")
                    for name in ("en", "ru", "ja", "ar", "hi", "th")
                ]
                news = await app.submit(letter(NEWS, sender=APP), APP, "news@example.net")
                large = letter(f"{codes_of['en'].text(CODE)}\r\n" + "x" * 70 + "\r\n" * 30_000, sender=APP)
                ids.append(await app.submit(large, APP, "large@example.net"))
            await codes.wait_for(7)
            await bulk.wait_for(1)
            assert {one.recipients for one in bulk.messages} == {("news@example.net",)}
            found = await metrics(relay)
            assert found.value("relay_detected_total", content="otp") == 7
            assert found.value("relay_detected_total", content="other") == 1
            for id_, content in ((ids[0], "otp"), (news, "other")):
                assert f"content={content}" in await until_logged(relay, f"event=accepted id={id_}")
                assert (await time_line(relay, id_, "sent"))["content"] == content
                shown = await command("log", id_, "-c", config)
                assert f"  content     {content}\n" in shown.out
            assert CODE not in relay.stderr


async def test_the_detector_runs_only_where_a_rule_asks_and_rules_overrule_it_both_ways(tmp_path: Path) -> None:
    rules = (
        {"name": "trusted", "match": {"sender": "codes@*"}, "lane": "otp"},
        {"name": "never", "match": {"content": "otp", "sender": "forum@*"}, "lane": "bulk"},
    )
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **by_content(*rules))
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                trusted = await app.submit(letter(NEWS), "codes@example.com", "1@example.net")
                forum = await app.submit(letter(f"Your code is {CODE}."), "forum@example.com", "2@example.net")
                await app.submit(letter(f"Your code is {CODE}."), APP, "3@example.net")
            await codes.wait_for(2)
            await bulk.wait_for(1)
            assert (await time_line(relay, trusted, "sent"))["content"] is None
            assert (await time_line(relay, forum, "sent"))["content"] == "otp"
            assert [one.recipients for one in bulk.messages] == [("2@example.net",)]
            assert (await metrics(relay)).value("relay_detected_total", content="otp") == 2
            assert "content=" not in await until_logged(relay, f"event=accepted id={trusted}")


async def test_explain_says_why_and_never_the_code(tmp_path: Path) -> None:
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **by_content())
    german = next(one for one in clean_mails() if one.language == "de")
    (tmp_path / "code.eml").write_bytes(letter(german.text(CODE), sender=APP))
    (tmp_path / "news.eml").write_bytes(letter(NEWS, sender=APP))
    code = await command("explain", str(tmp_path / "code.eml"), "--to", TO, "-c", config)
    assert "lane       otp (rule looks-like-a-code)" in code.out
    assert "content    otp: code-shaped token" in code.out
    assert "the word for code in de" in code.out
    assert "minutes of validity" in code.out
    document = (await command("explain", str(tmp_path / "news.eml"), "--to", TO, "-c", config, "--json")).document
    assert document["lane"] == "bulk"
    assert document["content"]["seen"] == "other"
    (step,) = document["earlier"]
    assert step["why_not"][0].startswith("content: it is other: ")
    assert CODE not in code.out + json.dumps(document)


async def test_what_lint_finds_in_a_lane_is_counted_and_the_mail_goes_all_the_same(tmp_path: Path) -> None:
    keys = by_content({"name": "all", "match": {"sender": "*"}, "lane": "otp"}, lint="report")
    bad = CLEAN.replace(b"Subject: ", b"Subject: FREE OFFER!! ")
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **keys)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                for content in (bad, bad, CLEAN, CLEAN + b"x\r\n" * 100_000):
                    await app.submit(content, APP, TO)
            await codes.wait_for(4)

            async def counted() -> bool:
                found = await metrics(relay)
                return found.value("relay_lint_messages_total", lane="otp", result="checked") == 3

            await until(counted)
            found = await metrics(relay)
            assert found.value("relay_lint_findings_total", lane="otp", rule="shouting") == 2
            assert found.value("relay_lint_findings_total", lane="otp", rule="no-code") == 0
            assert found.value("relay_lint_messages_total", lane="otp", result="skipped") == 1
            assert {labels["rule"] for labels in found.labels("relay_lint_findings_total")} <= set(RULES)


async def test_a_lint_process_that_is_killed_is_started_again_and_a_reload_ends_it(tmp_path: Path) -> None:
    keys = by_content({"name": "all", "match": {"sender": "*"}, "lane": "otp"}, lint="report")
    async with Upstream() as codes, Upstream() as bulk:
        config = write_config(tmp_path, {"codes": codes, "bulk": bulk}, **keys)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            (first,) = await lint_processes(relay, 1)
            os.kill(first, signal.SIGKILL)

            async def replaced() -> bool:
                return [pid for pid in children(relay) if pid != first] != []

            await until(replaced)

            async def counts_again() -> bool:
                await app.submit(CLEAN, APP, TO)
                return (await metrics(relay)).value("relay_lint_messages_total", lane="otp", result="checked") >= 1

            await until(counts_again)
            assert (await metrics(relay)).value("relay_tasks_restarted_total", task="lint") == 1
            keys["lanes"]["otp"]["lint"] = "none"
            write_config(tmp_path, {"codes": codes, "bulk": bulk}, **keys)
            relay.send(signal.SIGHUP)
            await lint_processes(relay, 0)


def children(relay: RelayProcess) -> list[int]:
    """The processes of lint."""
    found = []
    for pid in Path(f"/proc/{relay.pid}/task/{relay.pid}/children").read_text().split():
        try:
            name = Path(f"/proc/{pid}/comm").read_text()
        except OSError:
            continue
        if name.strip() == "lint":
            found.append(int(pid))
    return found


async def lint_processes(relay: RelayProcess, number: int) -> list[int]:
    async def holds() -> bool:
        return len(children(relay)) == number

    await until(holds)
    return children(relay)
