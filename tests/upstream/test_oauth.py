"""The source of an upstream's access tokens: one fetch for all, ahead of the expiry, with durable refresh tokens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.config.model import Upstream
from relay.providers.api import Answer
from relay.providers.oauth2 import Settings
from relay.supervise import Supervisor
from relay.upstream.http.fetch import Fetch, FetchFailed
from relay.upstream.oauth import (
    RETRY_WITHOUT_TOKEN_S,
    TokenSource,
    configured_refresh_token,
    renewal_after_s,
    settings_of,
)
from relay.upstream.oauth_file import TokenFile, token_file
from relay.upstream.results import OpenFailed
from tests.support.service_account import key_file

URL = "https://login.example.com/token"
APP = Settings("client_credentials", URL, "app", "app-secret")
USER = Settings("refresh_token", URL, "app", "app-secret")
SECRETS = ("app-secret", "first", "second", "third", "token-1", "token-2")
WITHIN_S = 10.0


def said(status: int, **value: object) -> Answer:
    return Answer(status, {}, json.dumps(value).encode())


class Server:
    """A token endpoint. Its tokens are `token-1`, `token-2`, ...; `script` has other answers, by number of the request;
    None: it is down."""

    def __init__(self, script: dict[int, Answer | None] | None = None, life_s: float = 3600.0) -> None:
        self.script = script or {}
        self.life_s = life_s
        self.asked: list[Fetch] = []
        self.at_once = 0
        self.most_at_once = 0
        self.open = asyncio.Event()
        """answers leave while it is set"""
        self.open.set()
        self.changed = asyncio.Event()

    async def fetch(self, what: Fetch) -> Answer:
        self.asked.append(what)
        number = len(self.asked)
        self.changed.set()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            await self.open.wait()
            answer = self.script.get(number, said(200, access_token=f"token-{number}", expires_in=self.life_s))
        finally:
            self.at_once -= 1
        if answer is None:
            raise FetchFailed("connect: connection refused")
        return answer

    @property
    def refresh_tokens(self) -> list[str]:
        return [parse_qs(what.body.decode())["refresh_token"][0] for what in self.asked]


class Time:
    """A clock that stands still until a test moves it. `sleeps` are the waits that were asked for."""

    def __init__(self) -> None:
        self.now_s = 1_700_000_000.0
        self.sleeps: list[float] = []
        self._sleepers: list[tuple[float, asyncio.Event]] = []

    def now(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            return
        self.sleeps.append(seconds)
        event = asyncio.Event()
        self._sleepers.append((self.now_s + seconds, event))
        await event.wait()

    async def pass_s(self, seconds: float) -> None:
        """Move the clock, and let what wakes do its work."""
        await settled()
        self.now_s += seconds
        for at, event in self._sleepers:
            if at <= self.now_s:
                event.set()
        self._sleepers = [one for one in self._sleepers if not one[1].is_set()]
        await settled()


async def settled() -> None:
    """Until nothing more happens by itself. A file is read on a thread, which takes a moment."""
    for _ in range(30):
        await asyncio.sleep(0.001)


@asynccontextmanager
async def source(
    server: Server, clock: Time, settings: Settings = APP, file: TokenFile | None = None, **keys: Any
) -> AsyncIterator[TokenSource]:
    ended: list[str] = []
    supervisor = Supervisor(lambda name, _error: ended.append(name), pauses_s=(0.001,))
    made = TokenSource("m365", settings, server.fetch, supervisor, file=file, now=clock.now, sleep=clock.sleep, **keys)
    made.start()
    try:
        yield made
    finally:
        await made.close()
    assert not ended or keys.get("on_failure")


async def refused(source: TokenSource, token: str | None = None) -> str:
    """Why there is no token."""
    with pytest.raises(OpenFailed) as failure:
        await asyncio.wait_for(source.token() if token is None else source.renewed(token), WITHIN_S)
    assert failure.value.phase == "auth"
    assert failure.value.reply.code == 454
    assert not failure.value.from_upstream
    assert not [secret for secret in SECRETS if secret in str(failure.value)]
    return failure.value.reason


# one fetch


async def test_the_first_token_is_fetched_at_the_start_and_serves_all_sessions() -> None:
    server, clock = Server(), Time()
    async with source(server, clock) as tokens:
        await settled()
        assert len(server.asked) == 1
        assert [await tokens.token() for _ in range(20)] == ["token-1"] * 20
        assert tokens.expires_at == clock.now() + 3600
    assert len(server.asked) == 1
    assert server.asked[0].method == "POST"
    assert server.asked[0].url == URL
    assert "app-secret" not in repr(server.asked[0])


async def test_what_asks_before_the_first_token_is_there_waits_for_the_one_fetch() -> None:
    server, clock = Server(), Time()
    server.open.clear()
    async with source(server, clock) as tokens:
        asking = [asyncio.create_task(tokens.token()) for _ in range(50)]
        await settled()
        assert not any(task.done() for task in asking)
        server.open.set()
        assert set(await asyncio.gather(*asking)) == {"token-1"}
    assert len(server.asked) == 1


async def test_one_refusal_of_a_token_that_many_sessions_used_leads_to_one_fetch() -> None:
    server, clock = Server(), Time()
    async with source(server, clock) as tokens:
        first = await tokens.token()
        server.open.clear()
        asking = [asyncio.create_task(tokens.renewed(first)) for _ in range(50)]
        await settled()
        server.open.set()
        assert set(await asyncio.gather(*asking)) == {"token-2"}
        assert await tokens.renewed(first) == "token-2"  # a session that is late
        assert await tokens.token() == "token-2"
        assert len(server.asked) == 2
        assert await tokens.renewed("token-2") == "token-3"


async def test_a_session_that_is_given_up_while_it_waits_doesnt_end_the_fetch() -> None:
    server, clock = Server(), Time()
    server.open.clear()
    async with source(server, clock) as tokens:
        gone, stays = asyncio.create_task(tokens.token()), asyncio.create_task(tokens.token())
        await settled()
        gone.cancel()
        await settled()
        server.open.set()
        assert await asyncio.wait_for(stays, WITHIN_S) == "token-1"
    assert len(server.asked) == 1


STEPS = st.lists(st.sampled_from(["token", "renewed", "hold", "release", "pass"]), max_size=40)


@settings(max_examples=40, deadline=None)
@given(STEPS)
def test_however_many_ask_at_once_one_fetch_is_under_way_and_each_refused_token_costs_one(steps: Sequence[str]) -> None:
    async def run() -> None:
        server, clock = Server(), Time()
        asking: list[asyncio.Task[str]] = []
        renewed: dict[str, set[str]] = {}

        async def renew(tokens: TokenSource) -> str:
            old = await tokens.token()
            new = await tokens.renewed(old)
            renewed.setdefault(old, set()).add(new)
            return new

        async with source(server, clock) as tokens:
            for step in steps:
                match step:
                    case "token":
                        asking += [asyncio.create_task(tokens.token()) for _ in range(5)]
                    case "renewed":
                        asking += [asyncio.create_task(renew(tokens)) for _ in range(5)]
                    case "hold":
                        server.open.clear()
                    case "release":
                        server.open.set()
                    case "pass":
                        for _ in range(5):
                            await asyncio.sleep(0)
            server.open.set()
            answers = await asyncio.wait_for(asyncio.gather(*asking), WITHIN_S)
            assert all(answers)
        assert server.most_at_once <= 1
        # Nothing expires here: the first fetch, and one for each token that was refused.
        assert len(server.asked) <= 1 + len(renewed)
        assert all(old not in new for old, new in renewed.items())

    asyncio.run(run())


# ahead of the expiry


@pytest.mark.parametrize(
    ("life_s", "after_s"),
    [(3600, 2880), (86_400, 69_120), (1200, 900), (1500, 1200), (700, 400), (600, 300), (300, 150), (60, 30), (1, 1)],
)
def test_a_token_is_renewed_at_80_percent_or_5_minutes_before_its_end_but_not_before_its_half(
    life_s: float, after_s: float
) -> None:
    assert renewal_after_s(life_s) == after_s


async def test_a_token_is_renewed_before_it_expires_and_nothing_waits_for_that() -> None:
    server, clock = Server(), Time()
    async with source(server, clock) as tokens:
        assert await tokens.token() == "token-1"
        await clock.pass_s(2879)
        assert len(server.asked) == 1
        server.open.clear()
        await clock.pass_s(1)
        assert len(server.asked) == 2
        assert await asyncio.wait_for(tokens.token(), WITHIN_S) == "token-1"  # while the fetch is under way
        server.open.set()
        await settled()
        assert await tokens.token() == "token-2"
        assert tokens.expires_at == clock.now() + 3600


async def test_a_token_that_expired_while_the_machine_slept_is_replaced_first() -> None:
    server, clock = Server(), Time()
    async with source(server, clock) as tokens:
        assert await tokens.token() == "token-1"
        clock.now_s += 4000  # no timer ran
        assert await tokens.token() == "token-2"


# failures


async def test_while_renewals_fail_the_old_token_is_used_for_as_long_as_it_is_valid() -> None:
    server, clock = Server({2: None, 3: said(500), 4: said(429)}), Time()
    reasons: list[str] = []
    async with source(server, clock, on_failure=reasons.append) as tokens:
        assert await tokens.token() == "token-1"
        for pause_s in (2880, 1, 5):
            await clock.pass_s(pause_s)
            assert await tokens.token() == "token-1"
        assert reasons == ["connect: connection refused", "HTTP 500", "HTTP 429"]
        assert str(tokens.failure) == "HTTP 429"
        assert clock.sleeps[-1] == 15
        await clock.pass_s(15)
        assert await tokens.token() == "token-5"
        assert tokens.failure is None
        server.script[6] = None
        assert "refused" in await refused(tokens, "token-5")
        await settled()
        assert clock.sleeps[-1] == 1  # the pauses begin anew


async def test_without_a_valid_token_there_is_none_and_the_reason_is_told_at_once() -> None:
    server, clock = Server(dict.fromkeys(range(1, 5))), Time()
    async with source(server, clock) as tokens:
        assert await refused(tokens) == "auth: no access token: connect: connection refused"
        for pause_s in (1, 5, 15):
            assert await refused(tokens) == "auth: no access token: connect: connection refused"
            await clock.pass_s(pause_s)
        assert clock.sleeps == [1, 5, 15, 15]  # never the 60 s: a recovered upstream is preferred again within 30 s
        await clock.pass_s(15)
        assert await tokens.token() == "token-5"


async def test_an_expired_token_is_never_given_out() -> None:
    server, clock = Server(dict.fromkeys(range(2, 100))), Time()
    async with source(server, clock) as tokens:
        assert await tokens.token() == "token-1"
        await clock.pass_s(3000)
        assert await tokens.token() == "token-1"
        await clock.pass_s(600)
        assert await refused(tokens) == "auth: no access token: connect: connection refused"


@pytest.mark.parametrize("error", ["invalid_grant", "invalid_client", "unauthorized_client"])
async def test_a_permanent_refusal_is_asked_about_again_every_15_s_only(error: str) -> None:
    server, clock = (
        Server({1: said(400, error=error, error_description="first app-secret"), 2: said(401, error=error)}),
        Time(),
    )
    async with source(server, clock) as tokens:
        assert await refused(tokens) == f"auth: no access token: {error}"
        await clock.pass_s(14)
        assert len(server.asked) == 1
        await clock.pass_s(1)
        assert len(server.asked) == 2
        assert await refused(tokens) == f"auth: no access token: {error}"
        assert clock.sleeps == [RETRY_WITHOUT_TOKEN_S] * 2
        await clock.pass_s(15)
        assert await tokens.token() == "token-3"


async def test_a_refused_token_whose_renewal_fails_is_not_asked_about_again_before_its_time() -> None:
    server, clock = Server({2: said(400, error="invalid_grant")}), Time()
    async with source(server, clock) as tokens:
        first = await tokens.token()
        for _ in range(10):
            assert await refused(tokens, first) == "auth: no access token: invalid_grant"
        assert len(server.asked) == 2
        await clock.pass_s(60)
        assert await tokens.renewed(first) == "token-3"


async def test_a_server_that_gives_the_refused_token_again_has_no_other() -> None:
    same = said(200, access_token="token-1", expires_in=3600)
    server, clock = Server({1: same, 2: same}), Time()
    async with source(server, clock) as tokens:
        first = await tokens.token()
        assert await refused(tokens, first) == "auth: no access token: the server gives the refused one again"


async def test_what_waits_when_the_source_is_closed_gets_no_token() -> None:
    server, clock = Server(), Time()
    server.open.clear()
    async with source(server, clock) as tokens:
        asking = asyncio.create_task(tokens.token())
        await settled()
    with pytest.raises(OpenFailed, match="shutting down"):
        await asyncio.wait_for(asking, WITHIN_S)
    with pytest.raises(OpenFailed, match="shutting down"):
        await asyncio.wait_for(tokens.token(), WITHIN_S)


async def test_a_source_that_is_closed_without_a_start_lets_what_waits_go() -> None:
    tokens = TokenSource("m365", APP, Server().fetch, Supervisor(lambda *_: None))
    asking = asyncio.create_task(tokens.token())
    await settled()
    await tokens.close()
    with pytest.raises(OpenFailed, match="shutting down"):
        await asyncio.wait_for(asking, WITHIN_S)


async def test_a_closed_source_fetches_nothing_more_when_it_is_started_again() -> None:
    server, clock = Server(), Time()
    async with source(server, clock) as tokens:
        await tokens.token()
    tokens.start()
    await settled()
    clock.now_s += 4000
    assert "shutting down" in await refused(tokens)
    assert len(server.asked) == 1


async def test_a_fault_of_our_own_is_reported_without_its_words_and_the_source_goes_on() -> None:
    clock, ended = Time(), list[str]()
    calls = 0

    async def fetch(what: Fetch) -> Answer:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise RuntimeError("app-secret")
        return said(200, access_token="token-2", expires_in=3600)

    supervisor = Supervisor(lambda name, error: ended.append(f"{name}: {type(error).__name__}"), pauses_s=(0.001,))
    tokens = TokenSource("m365", APP, fetch, supervisor, now=clock.now, sleep=clock.sleep)
    tokens.start()
    assert await refused(tokens) == "auth: no access token: internal error"
    await clock.pass_s(0)
    await clock.pass_s(1)
    assert await tokens.token() == "token-2"
    assert ended == ["oauth m365: RuntimeError"]
    await tokens.close()


def test_a_source_shows_no_secret() -> None:
    tokens = TokenSource("m365", APP, Server().fetch, Supervisor(lambda *_: None))
    assert repr(tokens) == "TokenSource('m365')"


# refresh tokens


def rotated(number: int, refresh_token: str) -> Answer:
    return said(200, access_token=f"token-{number}", expires_in=3600, refresh_token=refresh_token)


async def test_a_rotated_refresh_token_is_on_the_disk_before_its_access_token_is_used(tmp_path: Path) -> None:
    kept = token_file(tmp_path / "relay.db", "m365", "first")
    server, clock = Server({1: rotated(1, "second"), 2: rotated(2, "third")}), Time()
    async with source(server, clock, USER, kept) as tokens:
        assert await tokens.token() == "token-1"
        assert kept.newest() == "second"
        assert kept.path.stat().st_mode & 0o777 == 0o600
        assert await tokens.renewed("token-1") == "token-2"
        assert kept.newest() == "third"
        assert server.refresh_tokens == ["first", "second"]
    again = Server()
    async with source(again, clock, USER, token_file(tmp_path / "relay.db", "m365", "first")) as tokens:
        await tokens.token()
    assert again.refresh_tokens == ["third"]


async def test_a_refresh_token_that_stays_the_same_is_written_nowhere(tmp_path: Path) -> None:
    kept = token_file(tmp_path / "relay.db", "m365", "first")
    server, clock = Server({1: rotated(1, "first"), 2: said(200, access_token="token-2")}), Time()
    async with source(server, clock, USER, kept) as tokens:
        await tokens.renewed(await tokens.token())
    assert server.refresh_tokens == ["first", "first"]
    assert not kept.path.exists()


async def test_a_login_beside_the_running_relay_counts_from_the_next_fetch_on(tmp_path: Path) -> None:
    kept = token_file(tmp_path / "relay.db", "m365", None)
    server, clock = Server(), Time()
    async with source(server, clock, USER, kept) as tokens:
        reason = await refused(tokens)
        assert reason == "auth: no access token: there is no refresh token; run otp-relay oauth login m365"
        kept.replace("login")
        await clock.pass_s(60)
        assert await tokens.token() == "token-1"
    assert server.refresh_tokens == ["login"]


async def test_a_damaged_file_is_reported_and_asks_for_no_token(tmp_path: Path) -> None:
    kept = token_file(tmp_path / "relay.db", "m365", "first")
    kept.path.write_text("damaged")
    server, clock = Server(), Time()
    async with source(server, clock, USER, kept) as tokens:
        assert "relay-oauth-m365.json: damaged" in await refused(tokens)
    assert server.asked == []
    assert kept.path.read_text() == "damaged"


async def test_a_rotated_token_that_cant_be_written_is_not_used_and_mail_goes_on_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = token_file(tmp_path / "relay.db", "m365", "first")
    server, clock = Server({1: rotated(1, "second")}), Time()

    def full(self: TokenFile, refresh_token: str, folder: int) -> None:
        raise OSError(28, "No space left on device")

    async with source(server, clock, USER, kept, on_failure=lambda _: None) as tokens:
        with monkeypatch.context() as patch:
            patch.setattr(TokenFile, "_write", full)
            assert await tokens.token() == "token-1"
            assert tokens.failure is not None
            assert "No space left on device" in tokens.failure
            await clock.pass_s(60)
            assert await tokens.token() == "token-1"
        assert server.refresh_tokens == ["first"]
        await clock.pass_s(60)
        assert kept.newest() == "second"
        assert await tokens.token() == "token-2"
        assert server.refresh_tokens == ["first", "second"]


async def test_an_answer_that_comes_behind_a_login_doesnt_overwrite_it(tmp_path: Path) -> None:
    kept = token_file(tmp_path / "relay.db", "m365", "first")
    server, clock = Server({1: rotated(1, "second")}), Time()
    server.open.clear()
    async with source(server, clock, USER, kept) as tokens:
        await settled()
        token_file(tmp_path / "relay.db", "m365", "first").replace("login")
        server.open.set()
        assert await tokens.token() == "token-1"
        assert kept.newest() == "login"
        await tokens.renewed("token-1")
    assert server.refresh_tokens == ["first", "login"]


# out of the configuration


def upstream(**oauth2: object) -> Upstream:
    return Upstream.model_validate(
        {"host": "smtp.example.com", "auth": "xoauth2", "username": "mailer@example.com", "oauth2": oauth2}
    )


def test_settings_come_out_of_the_configuration() -> None:
    one = upstream(
        grant="refresh_token",
        token_url="https://login.microsoftonline.com/t/oauth2/v2.0/token",
        client_id="app",
        client_secret="app-secret",
        refresh_token="first",
        scope="offline_access",
    )
    assert settings_of(one) == Settings(
        "refresh_token",
        "https://login.microsoftonline.com/t/oauth2/v2.0/token",
        "app",
        "app-secret",
        "offline_access",
        device_url="https://login.microsoftonline.com/t/oauth2/v2.0/devicecode",
    )
    assert configured_refresh_token(one) == "first"


def test_a_service_account_brings_its_token_url_and_acts_for_the_user_name(tmp_path: Path) -> None:
    path = tmp_path / "google.json"
    path.write_bytes(key_file())
    found = settings_of(upstream(grant="jwt_bearer", service_account_file=str(path)))
    assert (found.token_url, found.subject) == ("https://oauth2.googleapis.com/token", "mailer@example.com")
    assert found == settings_of(upstream(grant="jwt_bearer", service_account_file=str(path)))
    other = upstream(grant="jwt_bearer", service_account_file=str(path), token_url=URL, subject="other@example.com")
    assert (settings_of(other).token_url, settings_of(other).subject) == (URL, "other@example.com")


@pytest.mark.parametrize(
    "content",
    [b"{}", key_file(token_uri="http://login.example.com/token"), key_file(token_uri="ftp://x"), None],
    ids=["no key", "in clear", "no http", "no file"],
)
def test_a_key_file_that_cant_be_used_is_one_line_that_names_it(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "google.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"google\.json") as failure:
        settings_of(upstream(grant="jwt_bearer", service_account_file=str(path)))
    assert "\n" not in str(failure.value)
