"""XOAUTH2 with the real relay: one fetch for all processes, rotated refresh tokens, Microsoft Graph."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.e2e.test_api import TO, code
from tests.support.api import ApiServer, Reply, Request
from tests.support.app import BULK, OTP, Talk
from tests.support.esps import VENDORS, Esp
from tests.support.relay import RelayProcess, time_line, until_logged, write_config
from tests.support.script import Moment
from tests.support.upstream import Upstream
from tests.upstream.test_xoauth2 import OFFERED, REFUSED, USER, WELCOME, sent

SECRET = "client-secret.0123456789"


class TokenServer:
    """Gives access tokens `access-N` and, for the refresh token that it gave last, another one."""

    def __init__(self, *, first: str | None = None, life_s: int = 3600) -> None:
        """`first`: the refresh token to begin with; None: the client's own credentials count."""
        self.newest = first
        self.life_s = life_s
        self.given = 0

    def __call__(self, request: Request) -> Reply:
        form = {name: values[0] for name, values in parse_qs(request.body.decode()).items()}
        right = form.get("refresh_token") == self.newest and form.get("client_secret", SECRET) == SECRET
        if not right:
            return Reply(400, {"error": "invalid_grant", "error_description": f"wrong {form}"})
        self.given += 1
        answer: dict[str, Any] = {"access_token": self.access, "token_type": "Bearer", "expires_in": self.life_s}
        if self.newest is not None:
            self.newest = answer["refresh_token"] = f"refresh-{self.given}"
        return Reply(200, answer)

    def accepts(self, moment: Moment) -> str | None:
        """As the SMTP server: the newest access token is good."""
        match moment.step:
            case "ehlo":
                return OFFERED
            case "auth":
                return WELCOME if f"AUTH {moment.argument}" == sent(self.access) else REFUSED
            case _:
                return None

    @property
    def access(self) -> str:
        return f"access-{self.given}.0123456789abcdef"


def mailbox(smtp: Upstream, oauth2: dict[str, Any], **more: Any) -> dict[str, object]:
    return {
        "host": smtp.host,
        "port": smtp.port,
        "tls": "none",
        "username": USER,
        "auth": "xoauth2",
        "oauth2": {"client_id": "app", "client_secret": SECRET, **oauth2},
        **more,
    }


async def test_one_fetch_serves_the_sessions_of_all_processes(tmp_path: Path) -> None:
    tokens = TokenServer()
    async with ApiServer(tokens) as server, Upstream(script=tokens.accepts) as smtp:
        upstream = mailbox(smtp, {"token_url": f"{server.url}/token"})
        config = write_config(tmp_path, {"m365": upstream}, workers=1)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            for sender in (OTP, BULK):
                await time_line(relay, await app.submit(code(sender=sender), sender, TO), "sent")
            for secret in (SECRET, tokens.access):
                assert secret not in relay.stderr
        assert tokens.given == 1
        assert server.faults == []


async def test_a_rotated_refresh_token_is_kept_over_a_restart_and_a_replaced_one_wins(tmp_path: Path) -> None:
    tokens = TokenServer(first="refresh-0")
    async with ApiServer(tokens) as server, Upstream(script=tokens.accepts) as smtp:
        oauth2 = {"grant": "refresh_token", "token_url": f"{server.url}/token", "refresh_token": "refresh-0"}
        config = write_config(tmp_path, {"m365": mailbox(smtp, oauth2)})
        for _ in range(2):
            async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
                await time_line(relay, await app.submit(code(), OTP, TO), "sent")
        assert tokens.given == 2
        file = tmp_path / "relay-oauth-m365.json"
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert json.loads(file.read_text())["refresh_token"] == "refresh-2"
        tokens.newest = "another-0"
        write_config(tmp_path, {"m365": mailbox(smtp, {**oauth2, "refresh_token": "another-0"})})
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            await time_line(relay, await app.submit(code(), OTP, TO), "sent")


async def test_a_refused_grant_takes_the_upstream_down_and_says_why_without_the_secret(tmp_path: Path) -> None:
    async with ApiServer(TokenServer(first="nothing")) as server, Upstream() as smtp, Upstream() as other:
        upstreams: dict[str, Any] = {"m365": mailbox(smtp, {"token_url": f"{server.url}/token"}), "other": other}
        config = write_config(tmp_path, upstreams)
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            view = await time_line(relay, await app.submit(code(), OTP, TO), "sent")
            assert view["recipients"][0]["upstream"] == "other"
            await until_logged(relay, "no_credentials")
            assert "invalid_grant" in relay.stderr
            assert SECRET not in relay.stderr
        assert smtp.messages == []


async def test_graph_gets_the_message_with_the_token(tmp_path: Path) -> None:
    given = Reply(200, {"access_token": VENDORS["graph"].KEY, "expires_in": 3600})
    async with ApiServer(given) as login, ApiServer(esp := Esp("graph")) as server:
        upstream = {
            "via": "api",
            "username": USER,
            "api": {"kind": "graph", "url": server.url},
            "oauth2": {"token_url": f"{login.url}/token", "client_id": "app", "client_secret": SECRET},
        }
        config = write_config(tmp_path, {"m365": upstream})
        async with RelayProcess(config) as relay, Talk(relay.smtp) as app:
            await time_line(relay, await app.submit(code(), OTP, TO), "sent")
        assert (esp.faults, server.faults, login.faults) == ([], [], [])
        assert [mail.recipients for mail in esp.mails] == [(TO,)]
