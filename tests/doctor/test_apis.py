"""The doctor at HTTP APIs, at logins by XOAUTH2, at blocked ports and behind proxies: real sockets, no mail."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from relay.config.load import load
from relay.config.model import Upstream as UpstreamKeys
from relay.doctor import files, ports, upstreams
from relay.doctor.finding import Finding
from relay.providers.registry import find_preset
from relay.store.sqlite.files import lock
from tests.support.api import ApiServer, Reply
from tests.support.relay import upstream_keys, write_config
from tests.support.script import Script
from tests.support.service_account import key_file
from tests.support.tls import Certificates
from tests.support.upstream import Upstream

TOKEN = Reply(200, {"access_token": "hunter2-token", "token_type": "Bearer", "expires_in": 3600})
NO_TOKEN = Reply(400, {"error": "invalid_client", "error_description": "hunter2 is wrong"})
OFFERS_XOAUTH2 = "250-mock\n250-PIPELINING\n250-8BITMIME\n250 AUTH PLAIN XOAUTH2"
DAY_S = 86400.0
NOT_TRIED = "API: the key isn't tried, since each request is a mail"


async def examined(folder: Path, esp: dict[str, Any], *, later_s: float = 0.0, **keys: object) -> list[Finding]:
    """The findings about the upstream `esp`, without those about warm sessions."""
    path = write_config(folder, {"esp": esp, **(keys.pop("others", {}))}, **keys)  # type: ignore[dict-item]
    found = await upstreams.check(load(path, {}).config, time.time() + later_s)
    return [one for one in found if one.subject == "esp" and not one.text.startswith("sessions: ")]


def texts(findings: list[Finding], status: str = "ok") -> list[str]:
    return [one.text for one in findings if one.status == status]


def with_key(server: ApiServer, certificates: Certificates, **keys: object) -> dict[str, Any]:
    api = {"kind": "resend", "url": server.url, "key": "hunter2-key"}
    return {"via": "api", "api": api, "ca_file": str(certificates.ca_file), **keys}


def oauth2(server: ApiServer, **keys: object) -> dict[str, object]:
    return {"token_url": f"{server.url}/token", "client_id": "app", "client_secret": "hunter2-secret", **keys}


def xoauth2(answer: str) -> Script:
    """A server that offers XOAUTH2 and answers each AUTH like this."""
    return lambda moment: {"ehlo": OFFERS_XOAUTH2, "auth": answer}.get(moment.step)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[None]:
    """A relay runs on the store."""
    descriptor = lock(tmp_path / "relay.db")
    yield
    os.close(descriptor)


@pytest.fixture
def signing_keys(tmp_path: Path) -> list[dict[str, Any]]:
    """`dkim` of a configuration."""
    key = tmp_path / "s1.pem"
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    key.touch(mode=0o600)
    key.write_bytes(pem)
    return [{"domain": "example.com", "keys": [{"selector": "s1", "key_file": str(key)}]}]


async def test_an_api_in_order_is_connected_to_and_asked_nothing(tmp_path: Path, certificates: Certificates) -> None:
    async with ApiServer(Reply(), tls=certificates.good) as server:
        found = await examined(tmp_path, with_key(server, certificates))
        await server.wait_until(lambda: server.open == 0)
    assert (server.connections, server.requests) == (1, [])
    answers, tls, key, time_to_expect, dmarc = texts(found)
    assert answers.startswith(f"API: localhost:{server.port} answers; connect ")
    assert ", TLS " in answers
    assert tls.startswith("API: TLS: TLSv1.3 TLS_")
    assert tls.endswith("certificate good for 29 days")
    assert key == NOT_TRIED
    assert time_to_expect.startswith("API: a code takes about ")
    assert dmarc == (
        "API: it builds messages anew, so DMARC rests on the provider's own signature of the From domain; "
        "it has to be verified there"
    )
    assert "hunter2" not in str(found)


async def test_a_certificate_of_an_api_near_its_end_is_a_warning(tmp_path: Path, certificates: Certificates) -> None:
    async with ApiServer(Reply(), tls=certificates.good) as server:
        found = await examined(tmp_path, with_key(server, certificates), later_s=20 * DAY_S)
    (warning,) = texts(found, "warn")
    assert warning.startswith("API: TLS: ")
    assert warning.endswith("good for 9 days")


@pytest.mark.parametrize("broken", ["expired", "wrong_host", "self_signed"])
async def test_an_api_whose_certificate_does_not_verify_is_a_failure(
    tmp_path: Path, certificates: Certificates, broken: str
) -> None:
    async with ApiServer(Reply(), tls=getattr(certificates, broken)) as server:
        found = await examined(tmp_path, with_key(server, certificates))
    (failure,) = texts(found, "fail")
    assert failure.startswith(f"API: localhost:{server.port}: tls: certificate not trusted: ")
    assert [one.id for one in found if one.status == "fail"] == ["upstream-certificate"]


async def test_an_api_that_refuses_connections_is_a_failure_beside_smtp_that_works(
    tmp_path: Path, certificates: Certificates
) -> None:
    async with ApiServer(Reply(), tls=certificates.good) as server, Upstream() as smtp:
        await server.pause()
        found = await examined(tmp_path, {**upstream_keys(smtp), **with_key(server, certificates, via="auto")})
    assert texts(found, "fail") == [f"API: localhost:{server.port}: connect: connection refused"]
    assert any(text.startswith(f"greeting: 127.0.0.1:{smtp.port} answers") for text in texts(found))


async def test_an_upstream_by_api_has_no_smtp_server_to_look_at(tmp_path: Path, certificates: Certificates) -> None:
    async with ApiServer(Reply(), tls=certificates.good) as server:
        found = await examined(tmp_path, with_key(server, certificates))
    assert not [one for one in found if not one.text.startswith("API: ")]


@pytest.mark.parametrize(
    ("via", "others", "keys", "status", "said"),
    [
        ("api", [], True, "warn", "; the keys under dkim sign nothing in lane otp"),
        (
            "api",
            ["mx"],
            True,
            "ok",
            "the provider's own signature of example.com; it has to be verified there",
        ),
        ("auto", [], True, "ok", "the provider's own signature of example.com; it has to be verified there"),
        ("api", [], False, "ok", "rests on the provider's own signature of the From domain; it has to be"),
    ],
)
async def test_what_dmarc_rests_on_is_said_and_keys_that_sign_nothing_are_a_warning(
    tmp_path: Path,
    certificates: Certificates,
    signing_keys: list[dict[str, Any]],
    via: str,
    others: list[str],
    keys: bool,
    status: str,
    said: str,
) -> None:
    async with ApiServer(Reply(), tls=certificates.good) as server, Upstream() as smtp:
        more: dict[str, Any] = {"others": {name: upstream_keys(smtp) for name in others}}
        esp = {**upstream_keys(smtp), **with_key(server, certificates, via=via)}
        found = await examined(tmp_path, esp, **more, dkim=signing_keys if keys else [])
    (about,) = [one for one in found if "DMARC" in one.text]
    assert (about.status, said in about.text) == (status, True), about.text


async def test_an_api_that_keeps_signatures_needs_no_remark(tmp_path: Path) -> None:
    async with ApiServer(Reply()) as server:
        api = {"url": server.url, "access_key_id": "AKIA", "secret_access_key": "hunter2", "region": "eu-west-1"}
        found = await examined(tmp_path, {"via": "api", "api": {"kind": "ses", **api}})
    assert [one.text.partition(";")[0] for one in found] == [
        f"API: localhost:{server.port} answers",
        "API: TLS: none, to this machine itself",
        NOT_TRIED,
        next(one.text.partition(";")[0] for one in found if one.id == "upstream-otp-time"),
    ]


@pytest.mark.parametrize(
    ("environment", "status", "said"),
    [
        (
            {"AWS_ACCESS_KEY_ID": "AKIA", "AWS_SECRET_ACCESS_KEY": "hunter2"},
            "ok",
            "API: temporary credentials were fetched; they aren't tried, since each request is a mail",
        ),
        ({"AWS_EC2_METADATA_DISABLED": "true"}, "fail", "API: no credentials: "),
    ],
)
async def test_credentials_of_the_machine_are_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], status: str, said: str
) -> None:
    for name in [one for one in os.environ if one.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    async with ApiServer(Reply()) as server:
        api = {"kind": "ses", "url": server.url, "region": "eu-west-1"}
        found = await examined(tmp_path, {"via": "api", "api": api})
    assert (found[2].status, found[2].text.startswith(said)) == (status, True), found[2].text


def graph(server: ApiServer, tokens: ApiServer, **keys: object) -> dict[str, Any]:
    api = {"kind": "graph", "url": server.url}
    return {"via": "api", "api": api, "username": "otp@example.com", "oauth2": oauth2(tokens, **keys)}


async def test_a_token_for_an_api_is_fetched_and_not_tried(tmp_path: Path) -> None:
    async with ApiServer(Reply()) as server, ApiServer(TOKEN) as tokens:
        found = await examined(tmp_path, graph(server, tokens))
    assert found[2].text in (
        f"API: an access token was fetched, good for {minutes} minutes; it isn't tried, since each request is a mail"
        for minutes in (58, 59, 60)
    )
    assert (len(tokens.requests), server.requests) == (1, [])


async def test_a_token_that_is_refused_is_a_failure_without_what_the_server_said(tmp_path: Path) -> None:
    async with ApiServer(Reply()) as server, ApiServer(NO_TOKEN) as tokens:
        found = await examined(tmp_path, graph(server, tokens))
    (failure,) = [one for one in found if one.status == "fail"]
    assert failure.text.startswith("API: no access token: invalid_client")
    assert failure.hint == "check: oauth2 of the upstream: grant, token_url, client_id, client_secret, scope"
    assert "hunter2" not in str(found)


REFRESH: dict[str, object] = {"grant": "refresh_token", "refresh_token": "hunter2-refresh"}


@pytest.mark.usefixtures("running")
async def test_the_refresh_token_of_a_running_relay_is_left_alone(tmp_path: Path) -> None:
    async with ApiServer(TOKEN) as tokens, Upstream(script={"ehlo": OFFERS_XOAUTH2}) as smtp, ApiServer(Reply()) as api:
        smtp_keys = upstream_keys(smtp, username="otp@example.com", auth="xoauth2", oauth2=oauth2(tokens, **REFRESH))
        of_smtp = await examined(tmp_path, smtp_keys)
        of_api = await examined(tmp_path, graph(api, tokens, **REFRESH))
    assert tokens.requests == []
    left_alone = "not tried: to fetch a token would use up the refresh token of the relay that runs"
    assert f"AUTH: XOAUTH2 {left_alone}" in texts(of_smtp)
    assert f"API: the login is {left_alone}" in texts(of_api)
    assert [session.verbs for session in smtp.sessions] == [["EHLO", "RSET", "QUIT"]]


async def test_without_a_running_relay_a_rotated_refresh_token_is_kept_beside_the_store(tmp_path: Path) -> None:
    rotated = Reply(200, {"access_token": "a", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "second"})
    async with ApiServer(rotated) as tokens, Upstream(script=xoauth2("235 2.7.0 welcome")) as smtp:
        keys = upstream_keys(smtp, username="otp@example.com", auth="xoauth2", oauth2=oauth2(tokens, **REFRESH))
        found = await examined(tmp_path, keys)
    assert "second" in (tmp_path / "relay-oauth-esp.json").read_text()
    assert [text for text in texts(found) if text.startswith("AUTH: XOAUTH2 accepted, with an access token, good for ")]


async def test_a_refused_token_is_a_failure_that_names_the_mailbox(tmp_path: Path) -> None:
    refusal = "535 5.7.139 SmtpClientAuthentication is disabled: hunter2-token"
    async with ApiServer(TOKEN) as tokens, Upstream(script=xoauth2(refusal)) as smtp:
        keys = upstream_keys(smtp, username="otp@example.com", auth="xoauth2", oauth2=oauth2(tokens))
        (failure,) = await examined(tmp_path, keys)
    assert failure.status == "fail"
    assert failure.hint.endswith("whether SMTP AUTH is on for the mailbox")
    assert "hunter2" not in str(failure)


async def test_a_service_account_whose_key_would_go_in_clear_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "google.json").write_bytes(key_file(token_uri="http://login.example.com/token"))
    (tmp_path / "google.json").chmod(0o600)
    keys = {"grant": "jwt_bearer", "service_account_file": "google.json"}
    esp = {"host": "127.0.0.1", "port": 1, "tls": "none", "username": "otp@example.com", "auth": "xoauth2"}
    (failure,) = await examined(tmp_path, {**esp, "oauth2": keys})
    assert failure.text == f"no access token: token_uri in {tmp_path}/google.json: expected an https URL"


def offering(monkeypatch: pytest.MonkeyPatch, *offered: tuple[int, str]) -> None:
    """Postmark's preset offers these ports."""
    preset = find_preset("postmark")
    assert preset is not None
    changed = dataclasses.replace(preset, other_ports=offered)
    monkeypatch.setattr(ports, "find_preset", lambda _name: changed)


async def closed_port() -> int:
    async with Upstream() as upstream:
        return upstream.port


BLOCKED = {"preset": "postmark", "host": "127.0.0.1", "password": "hunter2"}


@pytest.mark.parametrize("tls", ["starttls", "implicit"])
async def test_the_first_port_that_answers_is_named_where_the_configured_one_is_blocked(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tls: str
) -> None:
    blocked, other = await closed_port(), await closed_port()
    kind = tls
    assert kind in ("starttls", "implicit")
    async with Upstream(tls="starttls" if tls == "starttls" else "implicit", certificate=certificates.good) as smtp:
        offering(monkeypatch, (other, "starttls"), (smtp.port, tls))
        esp = {**BLOCKED, "port": blocked, "tls": "starttls", "ca_file": str(certificates.ca_file)}
        failure, way_out = await examined(tmp_path, esp)
    assert (failure.status, failure.text) == ("fail", f"127.0.0.1:{blocked}: connect: connection refused")
    assert (way_out.status, way_out.id) == ("warn", "upstream-ports")
    assert way_out.text.endswith(f"from here, but the provider's port {smtp.port} ({tls}) answers")
    assert way_out.hint == f"set port: {smtp.port}" + ("" if tls == "starttls" else " and tls: implicit")
    assert "AUTH" not in [verb for session in smtp.sessions for verb in session.verbs]


async def test_all_ports_that_answer_are_named_and_the_first_is_advised(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = await closed_port()
    async with (
        Upstream(tls="starttls", certificate=certificates.good) as one,
        Upstream(tls="starttls", certificate=certificates.good) as two,
    ):
        offering(monkeypatch, (one.port, "starttls"), (two.port, "starttls"))
        esp = {**BLOCKED, "port": blocked, "ca_file": str(certificates.ca_file)}
        _, way_out = await examined(tmp_path, esp)
    assert way_out.text.endswith(f"ports {one.port} (starttls) and {two.port} (starttls) answer")
    assert way_out.hint == f"set port: {one.port}"


@pytest.mark.parametrize(
    ("preset", "via", "hint"),
    [
        ("postmark", "smtp", "set via: api, which goes by HTTPS, or have the network's operator open one"),
        ("postmark", "auto", "the HTTP API has mail meanwhile (via: auto); have the network's"),
        ("mailtrap", "smtp", "have the network's operator open one, or set a proxy"),
    ],
)
async def test_where_no_port_answers_the_api_is_advised_if_there_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, preset: str, via: str, hint: str
) -> None:
    blocked, other = await closed_port(), await closed_port()
    offering(monkeypatch, (other, "starttls"))
    async with ApiServer(Reply()) as server:
        api = {"api": {"url": server.url}} if via == "auto" else {}
        found = await examined(tmp_path, {**BLOCKED, "preset": preset, "port": blocked, "via": via, **api})
    (way_out,) = [one for one in found if one.id == "upstream-ports"]
    assert way_out.status == "fail"
    assert f"none of the provider's ports answers from here: {blocked}, 587 and {other};" in way_out.text
    assert way_out.hint.startswith(hint)


async def test_a_server_of_no_known_provider_has_no_other_ports(tmp_path: Path) -> None:
    (failure,) = await examined(tmp_path, {"host": "127.0.0.1", "tls": "none", "port": await closed_port()})
    assert failure.id == "upstream-connection"


def test_a_provider_is_known_by_its_host_and_2525_is_among_its_ports() -> None:
    by_host = UpstreamKeys.model_validate({"host": "SMTP.postmarkapp.com", "port": 587})
    by_preset = UpstreamKeys.model_validate({"preset": "postmark", "host": "x.example", "port": 2525})
    assert (2525, "starttls") in ports.other_ports(by_host)
    assert [number for number, _ in ports.other_ports(by_preset)] == [587, 25]


async def test_a_name_that_is_not_known_tries_no_other_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream() as other:
        offering(monkeypatch, (other.port, "starttls"))
        (failure,) = await examined(tmp_path, {**BLOCKED, "host": "mx.invalid"})
    assert "port" not in failure.text


async def test_a_refusal_of_the_server_tries_no_other_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Upstream() as other, Upstream(script={"greeting": "554 5.7.1 go away"}) as smtp:
        offering(monkeypatch, (other.port, "starttls"))
        (failure,) = await examined(tmp_path, {**BLOCKED, "port": smtp.port})
    assert failure.text.endswith("greeting: 554 5.7.1 go away")
    assert other.sessions == []


async def test_a_proxy_is_named_without_its_credentials(tmp_path: Path) -> None:
    proxy = await closed_port()
    url = f"http://relay:hunter2@127.0.0.1:{proxy}"
    (smtp,) = await examined(
        tmp_path, {"host": "mx.example.net", "proxy": url, "username": "u", "password": "p4ssw0rd"}
    )
    assert smtp.text.startswith(f"mx.example.net:587 by proxy http://127.0.0.1:{proxy}: connect: ")
    api = {"kind": "resend", "key": "hunter2"}
    found = await examined(tmp_path, {"via": "api", "api": api, "proxy": url})
    assert found[0].text.startswith(f"API: api.resend.com:443 by proxy http://127.0.0.1:{proxy}: connect: ")
    assert "hunter2" not in str((smtp, found))


def test_each_file_with_a_secret_is_looked_at(tmp_path: Path) -> None:
    named = ["key", "user", "id", "secret", "refresh", "hook", "receiver", "send"]
    for name in named:
        (tmp_path / name).write_text("whsec_aHVudGVyMmh1bnRlcjJodW50ZXIy\n" if name == "receiver" else "hunter2\n")
        (tmp_path / name).chmod(0o644)
    tokens = {"grant": "refresh_token", "token_url": "https://login.example.com/token"}
    files_of_tokens = {"client_id_file": "id", "client_secret_file": "secret", "refresh_token_file": "refresh"}
    esp = {
        "host": "mx.example.net",
        "auth": "xoauth2",
        "username_file": "user",
        "oauth2": tokens | files_of_tokens,
        "via": "auto",
        "api": {"kind": "resend", "key_file": "key"},
        "webhook": {"kind": "postmark", "secret_file": "hook"},
    }
    kept = tmp_path / "relay-oauth-esp.json"
    kept.write_text("{}")
    kept.chmod(0o644)
    path = write_config(
        tmp_path,
        {"esp": esp},
        events=[{"url": "https://app.example.com/hook", "secret_file": "receiver"}],
        http={"address": "127.0.0.1:0", "send_token_file": "send"},
    )
    warned = {Path(one.subject).name for one in files.check(load(path, {})) if one.status == "warn"}
    assert warned == {*named, kept.name}
