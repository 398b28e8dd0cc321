"""AUTH XOAUTH2: what is sent, one other token after a refusal, and what never happens."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.config.model import Upstream as Config
from relay.supervise import Supervisor
from relay.upstream.addresses import Addresses
from relay.upstream.oauth import Tokens, TokenSource, fetcher_of, settings_of, unavailable
from relay.upstream.oauth_file import token_file
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.connect import open_session
from relay.upstream.target import Target
from tests.support.script import Action, Moment, Script
from tests.support.tls import Certificates
from tests.support.upstream import Close, Hang, ReplyThenClose, Split, Upstream
from tests.upstream.test_opening import away

USER = "mailer@example.com"
SMTP = {"tls": "none", "username": USER, "auth": "xoauth2"}
FIRST, SECOND = "first-token.ABCdef0123456789", "second-token.ABCdef0123456789"
OFFERED = "250-mock\n250-PIPELINING\n250 AUTH LOGIN PLAIN XOAUTH2"
WELCOME = "235 2.7.0 Authentication successful"
REFUSED = "535 5.7.3 Authentication unsuccessful"
ERROR = base64.b64encode(b'{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}').decode()


class Given:
    """Tokens in this order; each refusal gets the next one. None left: the reason is invalid_grant."""

    def __init__(self, *tokens: str) -> None:
        self._tokens = list(tokens)
        self.refused: list[str] = []
        self.expires_at: float | None = None

    async def token(self) -> str:
        if not self._tokens:
            raise unavailable("invalid_grant")
        return self._tokens[0]

    async def renewed(self, refused: str) -> str:
        self.refused.append(refused)
        self._tokens.remove(refused)
        return await self.token()


class Never(Given):
    """Tokens that don't come."""

    async def token(self) -> str:
        await asyncio.Event().wait()
        raise AssertionError


async def opened(upstream: Upstream, tokens: Tokens | None, *, within_s: float = 5.0, **keys: Any) -> None:
    """Open a session and close it. Raises OpenFailed."""
    oauth2 = {"token_url": "https://login.example.com/token", "client_id": "app", "client_secret": "app-secret"}
    config = Config.model_validate({**SMTP, "host": upstream.host, "port": upstream.port, "oauth2": oauth2, **keys})
    found = Target.of("up", config, "relay.example.com")
    target = replace(found, tokens=tokens, addresses=Addresses(upstream.host, upstream.port))
    session = await open_session(target, timeout_s=within_s)
    session.abort()


def sent(token: str) -> str:
    blob = base64.b64encode(f"user={USER}\x01auth=Bearer {token}\x01\x01".encode()).decode()
    return f"AUTH XOAUTH2 {blob}"


def auths(upstream: Upstream) -> list[list[str]]:
    """AUTH and what follows it, by session."""
    lines = [[line for _, line in session.commands] for session in upstream.sessions]
    return [[line for line in each if not line.startswith(("EHLO", "STARTTLS", "QUIT"))] for each in lines]


def serving(good: str, offered: str = OFFERED) -> Script:
    """Only one token is good."""

    def decide(moment: Moment) -> str | None:
        match moment.step:
            case "ehlo":
                return offered
            case "auth":
                return WELCOME if f"AUTH {moment.argument}" == sent(good) else REFUSED
            case _:
                return None

    return decide


def answering(*auth: Action, challenge: Action = None) -> Script:
    """An answer to each AUTH, the last to all that follow; `challenge`: to the line behind a 334. A function: a mapping
    isn't asked where the server knows no such mechanism."""

    def decide(moment: Moment) -> Action:
        match moment.step:
            case "ehlo":
                return OFFERED
            case "auth":
                return auth[min(moment.n, len(auth) - 1)]
            case "unknown" if not moment.argument:
                return challenge
            case _:
                return None

    return decide


async def test_the_token_goes_with_the_command_in_one_round_trip() -> None:
    async with Upstream(script=serving(FIRST)) as upstream:
        await opened(upstream, Given(FIRST))
    assert auths(upstream) == [[sent(FIRST)]]


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_the_token_goes_over_tls(certificates: Certificates, tls: Any) -> None:
    def script(moment: Moment) -> Action:
        if moment.step == "ehlo":
            return OFFERED if tls == "implicit" or moment.n_in_session else None
        return WELCOME if moment.step == "auth" else None

    async with Upstream(tls=tls, certificate=certificates.good, script=script) as upstream:
        await opened(upstream, Given(FIRST), tls=tls, ca_file=certificates.ca_file)
    assert auths(upstream) == [[sent(FIRST)]]
    assert upstream.sessions[0].tls is not None


async def test_a_refused_token_is_replaced_once_and_the_session_opens_with_the_other_one() -> None:
    tokens = Given(FIRST, SECOND)
    async with Upstream(script=serving(SECOND)) as upstream:
        await opened(upstream, tokens)
    assert tokens.refused == [FIRST]
    assert auths(upstream) == [[sent(FIRST)], [sent(SECOND)]]


@pytest.mark.parametrize(
    "answer", [ReplyThenClose(REFUSED), Split([b"535-5.7.8 Username and Password\r\n", b"535 5.7.8 not accepted\r\n"])]
)
async def test_a_refusal_that_ends_the_connection_or_has_several_lines_is_a_refusal(answer: Any) -> None:
    async with Upstream(script=answering(answer, WELCOME)) as upstream:
        await opened(upstream, Given(FIRST, SECOND))
    assert auths(upstream) == [[sent(FIRST)], [sent(SECOND)]]


async def test_the_servers_error_challenge_is_answered_with_an_empty_line() -> None:
    tokens = Given(FIRST, SECOND)
    script = answering(
        f"334 {ERROR}", WELCOME, challenge="535-5.7.8 Username and Password not accepted\n535 5.7.8 see the manual"
    )
    async with Upstream(script=script) as upstream:
        await opened(upstream, tokens)
    assert auths(upstream) == [[sent(FIRST), ""], [sent(SECOND)]]
    assert tokens.refused == [FIRST]


async def test_a_second_refusal_is_the_servers_535_and_no_third_token_is_tried() -> None:
    tokens = Given(FIRST, SECOND, "third-token")
    async with Upstream(script=serving("another")) as upstream:
        with pytest.raises(OpenFailed) as failure:
            await opened(upstream, tokens)
    assert auths(upstream) == [[sent(FIRST)], [sent(SECOND)]]
    assert tokens.refused == [FIRST]
    assert (failure.value.phase, failure.value.reply.code, failure.value.from_upstream) == ("auth", 535, True)
    assert failure.value.reason == "auth: 535 5.7.3"


async def test_a_refusal_without_another_token_is_a_535_that_says_why_there_is_none() -> None:
    async with Upstream(script=serving(SECOND)) as upstream:
        with pytest.raises(OpenFailed) as failure:
            await opened(upstream, Given(FIRST))
    assert auths(upstream) == [[sent(FIRST)]]
    assert failure.value.reply.code == 535  # permanent: the circuit probes seldom, and no account is locked
    assert (
        failure.value.reason
        == "auth: the access token was refused, and there is no other: no access token: invalid_grant"
    )


@pytest.mark.parametrize("reply", ["454 4.7.0 Temporary authentication failure", "530 5.7.57 not authenticated"])
async def test_another_refusal_than_535_asks_for_no_other_token(reply: str) -> None:
    tokens = Given(FIRST, SECOND)
    async with Upstream(script=answering(reply)) as upstream:
        with pytest.raises(OpenFailed, match=f"auth: {reply[:10].strip()}"):
            await opened(upstream, tokens)
    assert tokens.refused == []
    assert len(upstream.sessions) == 1


async def test_without_a_token_nothing_is_connected_to() -> None:
    async with Upstream(script=serving(FIRST)) as upstream:
        with pytest.raises(OpenFailed, match="auth: no access token: invalid_grant"):
            await opened(upstream, Given())
        with pytest.raises(OpenFailed, match="auth: no access token"):
            await opened(upstream, None)
        with pytest.raises(OpenFailed, match="auth: no answer in time"):
            await opened(upstream, Never(FIRST), within_s=0.05)
    assert upstream.sessions == []


@pytest.mark.parametrize("offered", ["250-mock\n250 AUTH LOGIN PLAIN", "250-mock\n250 PIPELINING"])
async def test_where_xoauth2_isnt_offered_there_is_no_login_of_another_kind(offered: str) -> None:
    async with Upstream(script=serving(FIRST, offered), auth={USER: "s3cret"}) as upstream:
        with pytest.raises(OpenFailed, match="AUTH XOAUTH2 is not offered"):
            await opened(upstream, Given(FIRST), password="s3cret")
    assert auths(upstream) == [[]]


async def test_after_a_refusal_the_password_isnt_tried() -> None:
    async with Upstream(script=serving("another"), auth={USER: "s3cret"}) as upstream:
        with pytest.raises(OpenFailed, match="auth: 535"):
            await opened(upstream, Given(FIRST, SECOND), password="s3cret")
    assert auths(upstream) == [[sent(FIRST)], [sent(SECOND)]]


@pytest.mark.parametrize("allowed", [False, True])
async def test_no_token_is_sent_in_clear_to_another_machine_whatever_is_allowed(allowed: bool) -> None:
    async with Upstream(script=serving(FIRST), host=away()) as upstream:
        with pytest.raises(OpenFailed, match="no access token over a connection in clear"):
            await opened(upstream, Given(FIRST), allow_plaintext=allowed)
    assert auths(upstream) == [[]]


async def test_no_token_is_sent_in_clear_by_a_proxy_of_this_machine() -> None:
    """The connection's peer is on loopback then, and the upstream may be anywhere."""
    async with Upstream(script=serving(FIRST)) as upstream:
        with pytest.raises(OpenFailed, match="no access token over a connection in clear"):
            await opened(upstream, Given(FIRST), proxy="socks5://127.0.0.1:1080")
    assert auths(upstream) == [[]]


async def test_no_token_is_sent_where_starttls_isnt_offered(certificates: Certificates) -> None:
    async with Upstream(script=serving(FIRST)) as upstream:
        with pytest.raises(OpenFailed, match="STARTTLS is not offered"):
            await opened(upstream, Given(FIRST), tls="starttls", ca_file=certificates.ca_file)
    assert auths(upstream) == [[]]


BLOB = sent(FIRST).rpartition(" ")[2]
QUOTES: Sequence[str] = (
    FIRST,
    FIRST.upper(),
    FIRST[4:20],
    base64.b64encode(FIRST.encode()).decode(),
    BLOB,
    BLOB[20:60],
    f"auth=Bearer {FIRST}",
)


@pytest.mark.parametrize("quote", QUOTES)
async def test_a_reply_that_quotes_the_token_is_kept_without_it(quote: str) -> None:
    async with Upstream(script=answering(f"454 4.7.0 can't read <{quote}>: later")) as upstream:
        with pytest.raises(OpenFailed) as failure:
            await opened(upstream, Given(FIRST))
    assert "454 4.7.0 can't read <" in str(failure.value.reply)
    assert ">: later" in str(failure.value.reply)
    shown = f"{failure.value.reply}{failure.value}{failure.value!r}".lower()
    assert quote.lower() not in shown
    assert FIRST[4:20].lower() not in shown


@pytest.mark.parametrize(
    ("answer", "reason"), [(Close(), "auth: connection lost"), (Hang(), "auth: no answer in time")]
)
async def test_a_server_that_ends_or_hangs_at_auth_is_a_failure_of_that_phase(answer: Any, reason: str) -> None:
    tokens = Given(FIRST, SECOND)
    async with Upstream(script=answering(answer)) as upstream:
        with pytest.raises(OpenFailed, match=reason):
            await opened(upstream, tokens, within_s=0.5)
    assert tokens.refused == []


async def test_tokens_of_a_real_server_serve_many_sessions_and_a_revoked_one_is_replaced_by_one_fetch(
    tmp_path: Path,
) -> None:
    fetched: list[dict[str, Any]] = []

    async def answer(request: web.Request) -> web.Response:
        fetched.append(dict(await request.post()))
        number = len(fetched)
        tokens = {"access_token": f"access-{number}.0123456789", "refresh_token": f"refresh-{number}"}
        return web.json_response({**tokens, "token_type": "Bearer", "expires_in": 3600})

    def decide(moment: Moment) -> Action:
        if moment.step == "ehlo":
            return OFFERED
        good = sent(f"access-{len(fetched)}.0123456789")
        return (WELCOME if f"AUTH {moment.argument}" == good else REFUSED) if moment.step == "auth" else None

    app = web.Application()
    app.router.add_post("/token", answer)
    async with TestServer(app) as server, Upstream(script=decide) as upstream:
        oauth2 = {"grant": "refresh_token", "token_url": str(server.make_url("/token")), "client_id": "app"}
        config = Config.model_validate({**SMTP, "host": upstream.host, "port": upstream.port, "oauth2": oauth2})
        kept = token_file(tmp_path / "relay.db", "up", "refresh-0")
        source = TokenSource("up", settings_of(config), fetcher_of(config), Supervisor(lambda *_: None), file=kept)
        source.start()
        target = replace(Target.of("up", config, "relay.example.com"), tokens=source)

        async def five() -> None:
            for session in await asyncio.gather(*(open_session(target, timeout_s=10) for _ in range(5))):
                session.abort()

        await five()
        assert [one["refresh_token"] for one in fetched] == ["refresh-0"]
        fetched.append({"refresh_token": "the server revoked access-1"})
        await five()
        assert [one["refresh_token"] for one in fetched[2:]] == ["refresh-1"]
        assert kept.newest() == "refresh-3"
        await source.close()
