"""`otp-relay oauth login`: against a real server, and its waiting on a clock of the test's own."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from relay.cli.common import CommandFailed
from relay.cli.oauth import refresh_token_of_login
from relay.providers.api import Answer
from relay.providers.oauth2 import DeviceCode, Settings
from relay.upstream.http.fetch import Fetch, FetchFailed
from relay.upstream.oauth_file import token_file
from tests.support.relay import command, write_config

SECRETS = ("app-secret", "device-secret", "refresh-secret", "access-secret", "configured-secret")
NO_LOGIN: dict[str, object] = {"host": "127.0.0.1", "port": 9, "tls": "none"}
CODE = {
    "device_code": "device-secret",
    "user_code": "WDJB-MJHT",
    "verification_uri": "https://example.com/device",
    "expires_in": 900,
    "interval": 1,
}
TOKENS = {"access_token": "access-secret", "refresh_token": "refresh-secret", "expires_in": 3600}
PENDING = (400, {"error": "authorization_pending"})


@dataclass
class Provider:
    """A provider's endpoints. `polls`: status and JSON of each answer to a poll; the last repeats."""

    polls: Sequence[tuple[int, object]] = ((200, TOKENS),)
    code: tuple[int, object] = (200, CODE)
    begun: list[dict[str, Any]] = field(default_factory=list)
    polled: list[dict[str, Any]] = field(default_factory=list)

    async def begin(self, request: web.Request) -> web.Response:
        self.begun.append(dict(await request.post()))
        return web.json_response(self.code[1], status=self.code[0])

    async def poll(self, request: web.Request) -> web.Response:
        assert request.query_string == ""
        self.polled.append(dict(await request.post()))
        status, value = self.polls[min(len(self.polled), len(self.polls)) - 1]
        return web.json_response(value, status=status)


@asynccontextmanager
async def served(provider: Provider) -> AsyncIterator[str]:
    """The provider's URL."""
    app = web.Application()
    app.router.add_post("/device", provider.begin)
    app.router.add_post("/token", provider.poll)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")


def configured(tmp_path: Path, url: str, **oauth2: object) -> Path:
    section = {
        "grant": "refresh_token",
        "token_url": f"{url}/token",
        "device_url": f"{url}/device",
        "client_id": "app",
        "client_secret": "app-secret",
        "scope": "smtp offline_access",
        **oauth2,
    }
    upstream = {**NO_LOGIN, "auth": "xoauth2", "username": "mailer@example.com", "oauth2": section}
    return write_config(tmp_path, {"m365": upstream, "other": NO_LOGIN})


async def test_a_login_shows_url_and_code_and_keeps_the_refresh_token_for_the_relay(tmp_path: Path) -> None:
    provider = Provider(polls=(PENDING, (200, TOKENS)))
    async with served(provider) as url:
        said = await command("oauth", "login", "m365", "-c", configured(tmp_path, url))
    assert (said.code, said.err) == (0, "")
    kept = token_file(tmp_path / "relay.db", "m365", None)
    assert said.out == (
        f"Open    https://example.com/device\nEnter   WDJB-MJHT\nlogged in; the refresh token is in {kept.path}\n"
    )
    assert kept.newest() == "refresh-secret"
    assert kept.path.stat().st_mode & 0o777 == 0o600
    assert provider.begun == [{"client_id": "app", "client_secret": "app-secret", "scope": "smtp offline_access"}]
    assert [one["device_code"] for one in provider.polled] == ["device-secret"] * 2
    assert not (tmp_path / "relay.db").exists()


async def test_a_login_wins_over_the_token_in_the_configuration(tmp_path: Path) -> None:
    async with served(Provider()) as url:
        config = configured(tmp_path, url, refresh_token="configured-secret")
        assert (await command("oauth", "login", "-c", config, "m365")).code == 0
    assert token_file(tmp_path / "relay.db", "m365", "configured-secret").newest() == "refresh-secret"


@pytest.mark.parametrize(
    ("provider", "line"),
    [
        (Provider(polls=((400, {"error": "access_denied"}),)), "no login: access_denied"),
        (Provider(code=(401, {"error": "invalid_client", "error_uri": "app-secret"})), "no login: invalid_client"),
        (Provider(code=(500, {"error": "app-secret"})), "no login: HTTP 500"),
        (
            Provider(polls=((200, {"access_token": "access-secret"}),)),
            "the answer has no refresh token; does oauth2.scope name offline_access?",
        ),
    ],
    ids=["denied", "unknown client", "broken", "no refresh token"],
)  # fmt: skip
async def test_a_login_that_fails_is_one_line_and_exit_1_and_keeps_nothing(
    tmp_path: Path, provider: Provider, line: str
) -> None:
    async with served(provider) as url:
        said = await command("oauth", "login", "m365", "-c", configured(tmp_path, url))
    assert (said.code, said.err) == (1, f"otp-relay: {line}\n")
    assert not [secret for secret in SECRETS if secret in said.out + said.err]
    assert not list(tmp_path.glob("*oauth*"))


async def test_a_server_that_cant_be_reached_is_one_line_and_exit_1(tmp_path: Path) -> None:
    said = await command("oauth", "login", "m365", "-c", configured(tmp_path, "http://127.0.0.1:9"))
    assert said.code == 1
    assert said.err.startswith("otp-relay: no login: ")
    assert said.err.count("\n") == 1
    assert "/token" not in said.err + said.out


@pytest.mark.parametrize(
    ("name", "oauth2", "line"),
    [
        ("m356", {}, "there is no upstream m356; there are m365, other"),
        ("other", {}, "upstream other has no oauth2"),
        ("m365", {"grant": "client_credentials"}, "upstream m365 needs no login: its grant is client_credentials"),
        ("m365", {"device_url": None}, "upstreams.m365.oauth2.device_url is missing"),
    ],
)
async def test_an_upstream_that_has_no_login_is_one_line_and_exit_1(
    tmp_path: Path, name: str, oauth2: dict[str, object], line: str
) -> None:
    said = await command("oauth", "login", name, "-c", configured(tmp_path, "http://127.0.0.1:9", **oauth2))
    assert (said.code, said.out, said.err) == (1, "", f"otp-relay: {line}\n")


async def test_a_file_that_isnt_the_relays_ends_the_login_before_a_person_is_asked(tmp_path: Path) -> None:
    provider = Provider()
    path = token_file(tmp_path / "relay.db", "m365", None).path
    path.write_text("damaged")
    async with served(provider) as url:
        said = await command("oauth", "login", "m365", "-c", configured(tmp_path, url))
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith(f"otp-relay: {path}: damaged")
    assert (provider.begun, path.read_text()) == ([], "damaged")


# waiting

APP = Settings("refresh_token", "https://example.com/token", "app", device_url="https://example.com/device")


class Person:
    """Answers polls from a list, on a clock that only waits move. None: the server can't be reached."""

    def __init__(self, *polls: tuple[int, object] | None) -> None:
        self.answers: list[tuple[int, object] | None] = [(200, CODE | {"interval": 5}), *polls]
        self.now_s = 1_700_000_000.0
        self.waits: list[float] = []
        self.shown: list[DeviceCode] = []

    async def fetch(self, what: Fetch) -> Answer:
        found = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if found is None:
            raise FetchFailed("connect: connection refused")
        return Answer(found[0], {}, json.dumps(found[1]).encode())

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now_s += seconds

    async def log_in(self) -> str:
        return await refresh_token_of_login(APP, self.fetch, self.shown.append, self.sleep, lambda: self.now_s)


async def test_slow_down_lengthens_every_further_wait_by_5_seconds() -> None:
    slow = (400, {"error": "slow_down"})
    person = Person(PENDING, slow, PENDING, slow, (200, TOKENS))
    assert await person.log_in() == "refresh-secret"
    assert person.waits == [5, 5, 10, 10, 15]
    assert [code.user_code for code in person.shown] == ["WDJB-MJHT"]


async def test_a_server_that_is_gone_for_a_while_is_asked_less_often_and_the_login_goes_on() -> None:
    person = Person(None, None, (503, {}), (200, TOKENS))
    assert await person.log_in() == "refresh-secret"
    assert person.waits == [5, 10, 20, 20]


async def test_a_login_that_isnt_done_in_time_ends() -> None:
    person = Person(PENDING)
    with pytest.raises(CommandFailed, match="the code has expired; run the command again"):
        await person.log_in()
    assert sum(person.waits) == 900
