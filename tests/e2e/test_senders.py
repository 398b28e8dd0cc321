"""Who may send as whom, through a real relay: a listener's senders, a user's, and rules that match the user."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from relay.intake.users import UsersError, hash_password, put_user, read_users
from tests.support.app import OTP, Talk, letter, stuffed
from tests.support.relay import RelayProcess, command, metrics, write_config
from tests.support.upstream import Upstream

SENDERS = ["*@Auth.example.com", "/^[^@]+@otp\\.example\\.com$/"]


async def final(app: Talk, sender: str, content: bytes) -> str:
    """The reply to MAIL where it is a refusal, else to the final dot."""
    said = await app.ask(f"MAIL FROM:<{sender}>")
    if not said.startswith("250"):
        return said
    await app.ask("RCPT TO:<one@example.net>")
    await app.ask("DATA")
    app.send(stuffed(content) + b".\r\n")
    return await app.reply()


async def log_in(app: Talk, user: str) -> str:
    return await app.ask("AUTH PLAIN " + base64.b64encode(f"\0{user}\0pw".encode()).decode())


async def test_envelope_sender_and_each_from_must_be_among_the_senders(tmp_path: Path) -> None:
    users = tmp_path / "users"
    put_user(users, "app1", hash_password(b"pw"), ["no-reply@auth.example.com"])
    put_user(users, "free", hash_password(b"pw"))
    listen = [{"address": "127.0.0.1:0", "auth": "required", "users_file": "users", "senders": SENDERS}]
    rules = [{"name": "of-app1", "match": {"user": ["APP1"]}, "lane": "otp"}]
    async with Upstream() as upstream:
        config = write_config(tmp_path, {"one": upstream}, listen=listen, rules=rules)
        async with RelayProcess(config) as relay:
            async with Talk(relay.smtp) as app:
                assert (await log_in(app, "free")).startswith("235")
                foreign = await final(app, "x@evil.example", letter(sender=OTP))
                assert foreign == "550 5.7.1 x@evil.example may not send here"
                foreign = await final(app, OTP, letter(sender="x@evil.example"))
                assert foreign == "550 5.7.1 x@evil.example may not be in From here"
                for author in (f"{OTP}, x@evil.example", f'"{OTP}" <x@evil.example>', "undisclosed:;"):
                    assert (await final(app, OTP, letter(sender=author))).startswith("550 5.7.1"), author
                assert (await final(app, "", letter(sender="x@evil.example"))).startswith("550 5.7.1")
                for unclear in (
                    f"x@evil.example {OTP}", f"x@evil.example (x) {OTP}", f"x@evil.example<> {OTP}",
                    f"=?utf-8?q?x=40evil.example=2C?= {OTP}", f"x@evil.example\r\n {OTP}", f"<@evil.example:{OTP}>",
                ):  # fmt: skip
                    said = await final(app, OTP, letter(sender=unclear))
                    assert said == "550 5.7.1 From must be a list of addresses in the form of RFC 5322", unclear
                two_fields = letter(sender=OTP, extra="From: x@evil.example\r\n")
                assert (await final(app, OTP, two_fields)).startswith("550 5.7.1")
                assert (await final(app, OTP, b"Subject: no author\r\n\r\nhi\r\n")).startswith("550 5.7.1 a message")
                large = letter("y" * 900 + "\r\n" + "x" * 900, sender="x@evil.example")
                assert (await final(app, OTP, large)).startswith("550 5.7.1")
                assert (await final(app, "", letter(sender=OTP))).startswith("250")
                assert (await final(app, "Any@OTP.example.com".lower(), letter(sender=OTP))).startswith("250")
            async with Talk(relay.smtp) as app:
                assert (await log_in(app, "app1")).startswith("235")
                # Each alone would let one of these pass.
                assert (await final(app, "other@auth.example.com", letter(sender=OTP))).startswith("550 5.7.1")
                assert (await final(app, OTP, letter(sender="other@auth.example.com"))).startswith("550 5.7.1")
                assert (await final(app, OTP.upper(), letter(sender=OTP))).startswith("250")
            await upstream.wait_for(3)
            assert (await metrics(relay)).value("relay_messages_rejected_total", reason="sender") == 17
            assert "evil" not in relay.stderr
            assert relay.stderr.count("rule=of-app1") >= 1
        (tmp_path / "m.eml").write_bytes(letter(sender=OTP))
        found = (await command("explain", str(tmp_path / "m.eml"), "--user", "app1", "--json", "-c", config)).document
        assert (found["lane"], found["rule"]) == ("otp", "of-app1")
        found = (await command("explain", str(tmp_path / "m.eml"), "--json", "-c", config)).document
        assert found["earlier"][0]["why_not"] == ["user: the mail has none, the rule wants APP1"]
        as_evil = ("--user", "app1", "--from", "x@evil.example")
        found = (await command("explain", str(tmp_path / "m.eml"), *as_evil, "--json", "-c", config)).document
        assert found["refused"] == ["550 5.7.1 x@evil.example may not send here"]
        listen[0]["senders"] = ["*@ok.example", "ok.example"]
        noted = await command("check", "-c", write_config(tmp_path, {"one": upstream}, listen=listen))
        assert "listen[0].senders[1]: 'ok.example' matches no address; a domain is *@ok.example" in noted.out
        listen[0]["senders"] = ["*@ok.example", "/(/"]
        refused = await command("check", "-c", write_config(tmp_path, {"one": upstream}, listen=listen))
        assert refused.code == 2
        assert "listen[0].senders[1]" in refused.err


def test_a_users_patterns_stay_until_others_are_given(tmp_path: Path) -> None:
    path, phc = tmp_path / "users", hash_password(b"x")
    put_user(path, "app", phc, ["a@x.example", "/:/i"])
    put_user(path, "app", phc)
    assert path.read_text() == f"app:{phc}:a@x.example /:/i\n"
    put_user(path, "app", phc, ["*"])
    assert path.read_text() == f"app:{phc}:*\n"
    for bad in ("", " ", "/(/", "a@x.example /x"):
        path.write_text(f"# ours\napp:{phc}:{bad}\n")
        with pytest.raises(UsersError, match=r"users:2: "):
            read_users(path)
