"""What an upstream says may quote what was sent to it: a credential, or the code in a mail. Neither gets into the log,
the open endpoints, the store or what the operator is shown."""

from __future__ import annotations

import base64
import logging
from pathlib import Path
from typing import Any

import pytest

from relay.config.model import Upstream as Config
from relay.mail.reply import Reply
from relay.observe.maillog import MailLog
from relay.observe.metrics import Metrics
from relay.observe.recent import Recent
from relay.upstream.redaction import reply_for_operators, without_credentials
from tests.delivery.harness import config, delivering, until, warm
from tests.support.upstream import Upstream

USER, SECRET = "relay", "hunter2hunter2"
PLAIN = base64.b64encode(f"\0{USER}\0{SECRET}".encode()).decode()
QUOTES = [
    PLAIN,
    PLAIN.rstrip("="),
    PLAIN[:14],
    PLAIN[4:],
    PLAIN.upper(),
    SECRET,
    SECRET.upper(),
    base64.b64encode(SECRET.encode()).decode(),
    f"AUTH PLAIN {PLAIN} <u@example.net>",
    f"AUTH LOGIN {base64.b64encode(SECRET.encode()).decode()}",
]


def told(log: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.getMessage() for record in log.records)


def leaks(text: str) -> list[str]:
    """Which pieces of the credential are in it, eight characters long, in any case."""
    forms = [SECRET, PLAIN.rstrip("="), base64.b64encode(SECRET.encode()).decode().rstrip("=")]
    pieces = {form[at : at + 8].lower() for form in forms for at in range(len(form) - 7)}
    return sorted(piece for piece in pieces if piece in text.lower())


@pytest.mark.parametrize("step", ["greeting", "ehlo", "auth"])
@pytest.mark.parametrize("quoted", QUOTES)
async def test_an_upstream_that_quotes_our_credential_is_heard_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: str, quoted: str
) -> None:
    caplog.set_level(logging.DEBUG)
    script: Any = {step: f"535 5.7.8 bad credentials: {quoted}"}
    account = {"username": USER, "password": SECRET}
    async with Upstream(auth={USER: SECRET}, script=script) as one:
        settings = config({"one": {"host": one.host, "port": one.port, "tls": "none", **account}}, retry=(20.0,))
        async with delivering(tmp_path, settings) as bench:
            log = MailLog(Metrics(), Recent())
            bench.events.down = log.down  # type: ignore[method-assign]
            pool = bench.delivery.lane("otp").upstreams[0]
            view = await bench.ended(await bench.send("u@example.net", lane="otp"), "deferred")
            await until(lambda: pool.circuit.state == "open")
            assert pool.circuit.reason == f"{step}: 535 5.7.8"
            assert pool.circuit.reply_text.startswith("535 5.7.8 bad credentials: ")
            for shown in (pool.circuit.reason, pool.circuit.reply_text, told(caplog), str(view)):
                assert leaks(shown) == []


@pytest.mark.parametrize("step", ["mail", "rcpt", "data", "dot"])
async def test_an_upstream_that_quotes_the_mail_is_heard_without_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    caplog.set_level(logging.DEBUG)
    content = b"From: a@example.com\r\nSubject: Your code: kqZvtb\r\n\r\nYour verification code: 482931\r\n"
    monkeypatch.setattr("tests.delivery.harness.CONTENT", content)
    script: Any = {step: "535 5.7.8 you may not send 'Your verification code: 482931' to code: kqZvtb"}
    async with Upstream(script=script) as one, delivering(tmp_path, config({"one": one}, retry=(0.02,))) as bench:
        log = MailLog(Metrics(), Recent())
        bench.events.down = log.down  # type: ignore[method-assign]
        await until(lambda: warm(bench))
        pool = bench.delivery.lane("otp").upstreams[0]
        ids = [await bench.send("u@example.net", sender="") for _ in range(2)]
        await until(lambda: pool.circuit.state == "open")
        assert pool.circuit.reason == f"{step}: 535 5.7.8"
        assert pool.circuit.reply_text.startswith("535 5.7.8 you may not send")
        views = [await bench.ended(each, "deferred") for each in ids]
        for shown in (pool.circuit.reason, pool.circuit.reply_text, told(caplog)):
            assert "482931" not in shown
            assert "kqZvtb" not in shown
        assert "482931" not in str([each["recipients"] for each in views])


@pytest.mark.parametrize(
    "said",
    [
        "334 AHJlbGF5AGh1bnRlcjJodW50ZXIy",
        "535 5.7.8 AUTH PLAIN secret",
        "535 AUTH LOGIN secret",
        "535 5.7.8 PLAIN: secret",
        "535 5.7.8 in XOAUTH2 secret",
        "535 5.7.8 got dXNlcj1zb21l",
        "535 5.7.8 got c2VjcmV0c2VjcmV0c2Vj=",
        "535 5.7.8 got 0123456789abcdef0123456789abcdef",
    ],
)
def test_what_looks_like_a_credential_isnt_shown_even_to_the_operator(said: str) -> None:
    code, _, text = said.partition(" ")
    shown = reply_for_operators(Reply(int(code), text))
    assert "secret" not in shown
    assert text.rsplit(" ", 1)[-1] not in shown
    assert "•" in shown


@pytest.mark.parametrize(
    "said",
    [
        "535 5.7.8 Authentication credentials invalid",
        "535 5.7.8 Username and Password not accepted. For more information, go to https://support.example.com",
        "530 5.7.0 Must issue a STARTTLS command first",
        "454 4.7.0 Temporary authentication failure",
        "554 5.7.1 Unauthorized IP address 192.0.2.7",
    ],
)
def test_what_doesnt_is_left_as_it_was_said(said: str) -> None:
    code, _, text = said.partition(" ")
    assert reply_for_operators(Reply(int(code), text)) == said


def test_a_short_user_name_isnt_looked_for() -> None:
    upstream = Config.model_validate({"host": "x", "username": "a", "password": "b"})
    assert without_credentials("550 a bad word", upstream) == "550 a bad word"
