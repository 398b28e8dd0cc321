"""Requests for OAuth 2 tokens, and what their answers say."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import parse_qs

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec_key
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.hashes import SHA256
from hypothesis import given
from hypothesis import strategies as st

from relay.providers import oauth2
from relay.providers.api import Answer
from relay.providers.oauth2 import DeviceCode, Form, Pending, Refused, Settings, Token
from tests.support.service_account import key, key_file, pem

NOW = 1_700_000_000.0
URL = "https://login.example.com/token"
SECRET = "s3cr3t-value"


def settings(**keys: Any) -> Settings:
    base = {"grant": "client_credentials", "token_url": URL, "client_id": "app", "client_secret": SECRET}
    return Settings(**{**base, **keys})


def answer(status: int, value: object) -> Answer:
    return Answer(status, {"content-type": "application/json"}, json.dumps(value).encode())


def fields(form: Form) -> dict[str, str]:
    return {name: value for name, (value,) in parse_qs(form.body.decode(), strict_parsing=True).items()}


# requests


def test_client_credentials_go_in_the_body_and_never_into_the_url() -> None:
    form = oauth2.token_form(settings(scope="https://outlook.office365.com/.default"), None, NOW)
    assert form.url == URL
    assert dict(form.headers)["Content-Type"] == "application/x-www-form-urlencoded"
    assert fields(form) == {
        "grant_type": "client_credentials",
        "client_id": "app",
        "client_secret": SECRET,
        "scope": "https://outlook.office365.com/.default",
    }


def test_a_refresh_token_is_sent_with_the_client_and_without_fields_that_are_empty() -> None:
    form = oauth2.token_form(settings(grant="refresh_token", client_secret=""), "1//0a&b=c+d", NOW)
    assert fields(form) == {"grant_type": "refresh_token", "client_id": "app", "refresh_token": "1//0a&b=c+d"}


def test_there_is_no_request_without_a_refresh_token() -> None:
    with pytest.raises(ValueError, match="there is no refresh token"):
        oauth2.token_form(settings(grant="refresh_token"), None, NOW)


def unpacked(part: str) -> Any:
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def test_a_service_account_signs_a_jwt_as_google_documents_it() -> None:
    account = oauth2.read_service_account(key_file())
    google = settings(
        grant="jwt_bearer", token_url=account.token_url, subject="mailer@example.com", service_account=account
    )
    form = oauth2.token_form(google, None, NOW + 0.9)
    assert form.url == "https://oauth2.googleapis.com/token"
    sent = fields(form)
    assert sent.keys() == {"grant_type", "assertion"}
    assert sent["grant_type"] == "urn:ietf:params:oauth:grant-type:jwt-bearer"
    header, claims, signature = sent["assertion"].split(".")
    assert unpacked(header) == {"alg": "RS256", "typ": "JWT", "kid": "key-1"}
    assert unpacked(claims) == {
        "iss": "relay@project.iam.gserviceaccount.com",
        "sub": "mailer@example.com",
        "scope": "https://mail.google.com/",
        "aud": "https://oauth2.googleapis.com/token",
        "iat": 1_700_000_000,
        "exp": 1_700_003_600,
    }
    raw = base64.urlsafe_b64decode(signature + "=" * (-len(signature) % 4))
    key().public_key().verify(raw, f"{header}.{claims}".encode(), PKCS1v15(), SHA256())


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b'{"type": "authorized_user", "client_id": "x"}',
        key_file(client_email=None),
        key_file(private_key=7),
        key_file(private_key="-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"),
        key_file(private_key=pem(generate_ec_key(SECP256R1()))),
    ],
    ids=["empty", "a list", "a user's", "no email", "a number as key", "a broken key", "an EC key"],
)
def test_what_is_no_key_file_is_refused_without_a_word_of_it(content: bytes) -> None:
    with pytest.raises(ValueError) as refused:
        oauth2.read_service_account(content)
    assert "c2VjcmV0" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_no_repr_shows_a_secret() -> None:
    account = oauth2.read_service_account(key_file())
    google = settings(service_account=account, device_url="https://login.example.com/device?secret=1")
    form = oauth2.token_form(settings(grant="refresh_token"), "refresh-1", NOW)
    token = oauth2.read_token(answer(200, {"access_token": "access-1", "refresh_token": "refresh-2"}), NOW)
    code = DeviceCode("device-1", "ABCD", "https://example.com", None, NOW, 5.0)
    shown = f"{google!r} {account!r} {form!r} {token!r} {code!r}"
    for secret in (SECRET, "PRIVATE KEY", "refresh-1", "access-1", "refresh-2", "device-1", "secret=1"):
        assert secret not in shown


# answers


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"access_token": "a.b", "token_type": "Bearer", "expires_in": 3599}, Token("a.b", NOW + 3599, None)),
        ({"access_token": "a", "token_type": "bearer", "expires_in": "3599"}, Token("a", NOW + 3599, None)),
        ({"access_token": "a"}, Token("a", NOW + 3600, None)),
        ({"access_token": "a", "expires_in": None, "refresh_token": "r"}, Token("a", NOW + 3600, "r")),
        ({"access_token": "a", "expires_in": True, "refresh_token": ""}, Token("a", NOW + 3600, None)),
        ({"access_token": "a", "expires_in": -5}, Token("a", NOW + 1, None)),
        ({"access_token": "a", "expires_in": 10**19}, Token("a", NOW + oauth2.MOST_LIFE_S, None)),
        ({"access_token": "a", "scope": ["x"], "ext": {}}, Token("a", NOW + 3600, None)),
    ],
    ids=str,
)
def test_a_token_is_read_with_the_time_it_expires(value: object, expected: Token) -> None:
    assert oauth2.read_token(answer(200, value), NOW) == expected


@pytest.mark.parametrize(
    "value",
    [
        {},
        [],
        {"access_token": ""},
        {"access_token": 7},
        {"access_token": "a\x01b"},
        {"access_token": "a\r\nMAIL FROM:<x@example.com>"},
        {"access_token": "a" * 8193},
        {"access_token": "a", "token_type": "mac"},
        {"access_token": "a", "token_type": 7},
        {"access_token": "a", "refresh_token": "r r"},
        {"access_token": "a", "refresh_token": ["r"]},
    ],
    ids=str,
)
def test_an_answer_of_success_without_a_usable_token_is_unreadable(value: object) -> None:
    assert oauth2.read_token(answer(200, value), NOW) == Refused("unreadable answer", False)


@pytest.mark.parametrize("body", [None, b"", b"<html>", b"\xff\xfe", b"[" * 100_000])
def test_a_body_that_is_no_json_is_unreadable_or_a_status(body: bytes | None) -> None:
    assert oauth2.read_token(Answer(200, {}, body), NOW) == Refused("unreadable answer", False)
    assert oauth2.read_token(Answer(500, {}, body), NOW) == Refused("HTTP 500", False)


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (400, {"error": "invalid_grant", "error_description": "AADSTS700082"}, Refused("invalid_grant", True)),
        (401, {"error": "invalid_client"}, Refused("invalid_client", True)),
        (400, {"error": "interaction_required"}, Refused("interaction_required", True)),
        (200, {"error": "unauthorized_client"}, Refused("unauthorized_client", True)),
        (200, {"error": "bad code refresh-1"}, Refused("unreadable answer", False)),
        (503, {"error": "temporarily_unavailable"}, Refused("temporarily_unavailable", False)),
        (400, {"error": "server_error"}, Refused("server_error", False)),
        (500, {"error": "invalid_grant"}, Refused("invalid_grant", False)),
        (400, {"error": "no such token: refresh-1"}, Refused("HTTP 400", True)),
        (403, {"error": {"message": "denied"}}, Refused("HTTP 403", True)),
        (404, {}, Refused("HTTP 404", True)),
        (302, {}, Refused("HTTP 302", True)),
        (429, {}, Refused("HTTP 429", False)),
        (408, {}, Refused("HTTP 408", False)),
        (502, {}, Refused("HTTP 502", False)),
    ],
    ids=str,
)
def test_a_refusal_is_an_error_code_or_a_status_and_says_whether_to_ask_again(
    status: int, value: object, expected: Refused
) -> None:
    assert oauth2.read_token(answer(status, value), NOW) == expected


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
ERRORS = ("invalid_grant", "slow_down", "authorization_pending")
_NAMES = st.sampled_from(
    [
        *("access_token", "token_type", "expires_in", "refresh_token", "error", "device_code", "user_code", "interval"),
        *("verification_uri", "verification_url", "verification_uri_complete"),
    ]
)
_BODIES = (
    st.none()
    | st.binary(max_size=40)
    | st.dictionaries(_NAMES, _JSON | st.sampled_from(ERRORS)).map(lambda one: json.dumps(one).encode())
)


@given(st.integers(100, 599), _BODIES)
def test_no_answer_raises_and_no_reason_quotes_the_server(status: int, body: bytes | None) -> None:
    said = Answer(status, {}, body)
    for found in (oauth2.read_token(said, NOW), oauth2.read_device_code(said, NOW), oauth2.read_poll(said, NOW)):
        match found:
            case Refused(reason, _):
                assert reason in (f"HTTP {status}", "unreadable answer") or reason in ERRORS
            case Token(access_token, expires_at, _):
                assert access_token.isascii()
                assert access_token.isprintable()
                assert NOW < expires_at <= NOW + oauth2.MOST_LIFE_S
            case DeviceCode():
                assert found.user_code.isprintable()
                assert found.verification_url.isprintable()
                assert 1 <= found.interval_s <= 60


# login of a person


@pytest.mark.parametrize(
    ("token_url", "expected"),
    [
        (
            "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/token",
            "https://login.microsoftonline.com/contoso.example/oauth2/v2.0/devicecode",
        ),
        ("https://login.microsoftonline.us/t/oauth2/v2.0/token", "https://login.microsoftonline.us/t/oauth2/v2.0/devicecode"),
        ("https://oauth2.googleapis.com/token", None),
        ("https://login.microsoftonline.com.example.net/t/oauth2/v2.0/token", None),
        ("https://login.example.com/token", None),
        ("", None),
    ],
)  # fmt: skip
def test_the_device_url_is_known_for_microsoft_and_google_only(token_url: str, expected: str | None) -> None:
    assert oauth2.default_device_url(token_url) == expected


def test_a_login_begins_with_client_and_scope() -> None:
    form = oauth2.device_form(settings(device_url="https://login.example.com/device", scope="smtp offline_access"))
    assert form.url == "https://login.example.com/device"
    assert fields(form) == {"client_id": "app", "client_secret": SECRET, "scope": "smtp offline_access"}


def test_a_login_without_a_device_url_is_refused() -> None:
    with pytest.raises(ValueError, match="there is no device URL"):
        oauth2.device_form(settings())


_PAGE = "https://example.com/device"
_CODE = {"device_code": "d", "user_code": "ABCD-EFGH", "verification_uri": _PAGE}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (_CODE, DeviceCode("d", "ABCD-EFGH", _PAGE, None, NOW + 900, 5.0)),
        (
            {
                "device_code": "d",
                "user_code": "A",
                "verification_url": "https://g.example",
                "expires_in": 1800,
                "interval": 2,
            },
            DeviceCode("d", "A", "https://g.example", None, NOW + 1800, 2.0),
        ),
        (
            _CODE | {"verification_uri_complete": f"{_PAGE}?c=A", "interval": 0},
            DeviceCode("d", "ABCD-EFGH", _PAGE, f"{_PAGE}?c=A", NOW + 900, 1.0),
        ),
        (
            _CODE
            | {"verification_uri_complete": "https://example.com/\x1b[2J", "interval": 10**9, "expires_in": 10**9},
            DeviceCode("d", "ABCD-EFGH", _PAGE, None, NOW + 3600, 60.0),
        ),
        (_CODE | {"user_code": "\x1b[31mred"}, Refused("unreadable answer", False)),
        (_CODE | {"verification_uri": "javascript:alert(1)"}, Refused("unreadable answer", False)),
        ({"error": "invalid_client"}, Refused("invalid_client", True)),
        ({}, Refused("unreadable answer", False)),
    ],
    ids=["defaults", "Google's names", "complete", "bounded", "escape", "no page", "an error", "nothing"],
)
def test_a_device_code_is_read_with_what_the_person_is_shown(value: object, expected: object) -> None:
    assert oauth2.read_device_code(answer(200, value), NOW) == expected


def test_a_poll_sends_the_device_code_and_the_client() -> None:
    assert fields(oauth2.device_token_form(settings(), "d")) == {
        "grant_type": "urn:ietf:params:oauth:grant-type:device_code",
        "device_code": "d",
        "client_id": "app",
        "client_secret": SECRET,
    }


@pytest.mark.parametrize(
    ("status", "value", "expected"),
    [
        (400, {"error": "authorization_pending"}, Pending(False)),
        (428, {"error": "authorization_pending"}, Pending(False)),
        (400, {"error": "slow_down"}, Pending(True)),
        (403, {"error": "slow_down"}, Pending(True)),
        (400, {"error": "access_denied"}, Refused("access_denied", True)),
        (400, {"error": "expired_token"}, Refused("expired_token", True)),
        (503, {}, Refused("HTTP 503", False)),
        (200, {"access_token": "a", "refresh_token": "r", "expires_in": 60}, Token("a", NOW + 60, "r")),
    ],
    ids=str,
)
def test_a_poll_says_to_go_on_or_to_end(status: int, value: object, expected: object) -> None:
    assert oauth2.read_poll(answer(status, value), NOW) == expected
