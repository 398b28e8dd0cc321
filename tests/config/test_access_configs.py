"""How an upstream's API, its access tokens, its header fields and its proxy are read."""

from __future__ import annotations

from typing import get_args

import pytest

from relay.config.access import ApiKind, Endpoint, endpoint
from relay.config.access_checks import api_key
from relay.config.model import Upstream
from relay.providers.apis.registry import NAMES
from tests.config.conftest import LoadText
from tests.config.test_good_configs import good

LOCAL = "host: 127.0.0.1, port: 1025, tls: none"
OAUTH2 = 'oauth2: {token_url: "https://login.example.com/token", client_id: app, client_secret: hunter2}'


@pytest.fixture
def upstreams(load_text: LoadText) -> dict[str, Upstream]:
    loaded = good("access", load_text)
    assert loaded.notes == ()
    return loaded.config.upstreams


@pytest.mark.parametrize(
    ("name", "kind", "url"),
    [
        ("postmark", "postmark", "https://api.postmarkapp.com"),
        ("resend", "resend", "https://api.resend.com"),
        ("mailgun", "mailgun", "https://api.eu.mailgun.net"),
        ("ses", "ses", "https://email.eu-west-1.amazonaws.com"),
        ("ses-chain", "ses", "https://email.us-east-1.amazonaws.com"),
        ("graph", "graph", "https://graph.microsoft.com"),
        ("nearby", "sendgrid", "http://127.0.0.1:8080/sendgrid/"),
    ],
)
def test_an_api_has_the_presets_kind_and_the_providers_url(
    upstreams: dict[str, Upstream], name: str, kind: str, url: str
) -> None:
    assert (upstreams[name].api.kind, upstreams[name].api.url) == (kind, url)


@pytest.mark.parametrize(("name", "region"), [("ses", "eu-west-1"), ("ses-chain", "us-east-1")])
def test_the_region_of_ses_is_the_presets_or_the_urls(upstreams: dict[str, Upstream], name: str, region: str) -> None:
    assert upstreams[name].api.region == region


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("resend", "hunter2"),
        ("postmark", "hunter2"),
        ("mailjet", "user:hunter2"),
        ("mailgun", "hunter2"),
        ("nearby", "hunter2"),
        ("graph", None),
    ],
)
def test_the_key_of_an_api_is_its_own_or_the_password_where_one_token_is_both(
    upstreams: dict[str, Upstream], name: str, key: str | None
) -> None:
    assert api_key(upstreams[name]) == key


def test_secrets_come_from_files(upstreams: dict[str, Upstream]) -> None:
    oauth2, ses = upstreams["m365"].oauth2, upstreams["ses"].api
    assert oauth2 is not None
    assert oauth2.client_secret is not None
    assert ses.access_key_id is not None
    assert oauth2.client_id == "hunter2"
    assert oauth2.client_secret.get_secret_value() == "hunter2"
    assert ses.access_key_id.get_secret_value() == "hunter2"
    assert upstreams["proxied"].username == "hunter2"
    assert "hunter2" not in repr(upstreams["proxied"].proxy)


def test_a_login_by_browser_needs_no_refresh_token_in_the_file(upstreams: dict[str, Upstream]) -> None:
    oauth2 = upstreams["login"].oauth2
    assert oauth2 is not None
    assert (oauth2.grant, oauth2.refresh_token) == ("refresh_token", None)


def test_header_fields_keep_their_order_and_null_removes_one(upstreams: dict[str, Upstream]) -> None:
    assert list(upstreams["postmark"].headers.items()) == [("X-PM-Message-Stream", "codes"), ("x-mailer", None)]


@pytest.mark.parametrize(
    ("url", "found", "authority"),
    [
        ("https://api.example.com", Endpoint("api.example.com", 443, True, ""), "api.example.com"),
        ("https://api.example.com:8443/v1/", Endpoint("api.example.com", 8443, True, "/v1"), "api.example.com:8443"),
        ("http://[::1]:80", Endpoint("::1", 80, False, ""), "[::1]"),
    ],
)
def test_the_url_of_an_api_names_its_server(url: str, found: Endpoint, authority: str) -> None:
    assert endpoint(url) == found
    assert found.authority == authority


@pytest.mark.parametrize(
    ("keys", "note"),
    [
        (f"{LOCAL}, api: {{key: hunter2}}", "upstreams.mx.api: isn't used: via is smtp"),
        (f"{LOCAL}, {OAUTH2}", "upstreams.mx.oauth2: isn't used: auth is password"),
        (
            f"{LOCAL}, auth: xoauth2, username: a@example.com, password: hunter2, {OAUTH2}",
            "upstreams.mx.password: isn't used: auth is xoauth2",
        ),
        (
            "via: api, api: {kind: ses, region: eu-west-1, key: hunter2}",
            "upstreams.mx.api.key: isn't used: the API of ses has no such key",
        ),
        (
            "via: api, api: {kind: resend, region: eu-west-1, key: hunter2}",
            "upstreams.mx.api.region: isn't used: the API of resend has no such key",
        ),
        (
            "preset: postmark, via: api, api: {kind: resend, key: hunter2}",
            "upstreams.mx.api.kind: is another provider than that of preset postmark",
        ),
    ],
)
def test_keys_that_change_nothing_are_noted(load_text: LoadText, keys: str, note: str) -> None:
    text = f"upstreams:\n  mx: {{{keys}}}\nlanes:\n  otp: {{upstreams: mx}}\n"
    (found,) = load_text(text).notes
    assert found.endswith(note)


def test_every_api_has_a_kind_in_the_configuration() -> None:
    assert set(get_args(ApiKind)) == NAMES
