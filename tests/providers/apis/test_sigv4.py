"""Signature Version 4, with botocore's signer as the oracle."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from botocore.auth import SigV4Auth  # type: ignore[import-untyped]
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped]
from botocore.credentials import Credentials as BotoCredentials  # type: ignore[import-untyped]
from hypothesis import example, given
from hypothesis import strategies as st

from relay.config.access import endpoint
from relay.providers.api import Credentials
from relay.providers.apis.sigv4 import signed_headers

NOW = 1_790_000_000.0
SECRET = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
_VISIBLE = st.characters(min_codepoint=0x21, max_codepoint=0x7E)
_SEGMENT = st.one_of(
    st.sampled_from(["", ".", "..", "...", "v2", "%2F", "%2e%2e", "%C3%A9", "a b", "~u", "a+b", "a:b@c", "é", "名"]),
    st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="?#/"), max_size=6),
)
PATHS = st.lists(_SEGMENT, max_size=6).map(lambda parts: "/" + "/".join((*parts, "outbound-emails")))
HOSTS = st.builds(
    lambda scheme, host, port: f"{scheme}://{host}{port}",
    st.sampled_from(["http", "https"]),
    st.sampled_from(["email.eu-west-1.amazonaws.com", "localhost", "192.0.2.1", "[2001:db8::1]"]),
    st.sampled_from(["", ":80", ":443", ":4566"]),
)
CREDENTIALS = st.builds(
    Credentials,
    access_key_id=st.text(_VISIBLE, min_size=1, max_size=20),
    secret_access_key=st.text(_VISIBLE, min_size=1, max_size=40),
    session_token=st.one_of(st.just(""), st.text(_VISIBLE, min_size=1, max_size=60)),
    region=st.sampled_from(["eu-west-1", "us-gov-west-1", "cn-north-1"]),
)
TYPES = st.sampled_from(["application/json", "application/x-www-form-urlencoded;  charset=utf-8", " a  b\tc "])


def by_botocore(
    credentials: Credentials, url: str, path: str, body: bytes, now: float, content_type: str
) -> dict[str, str]:
    request = AWSRequest("POST", url + path, {"Content-Type": content_type}, body)
    boto = BotoCredentials(credentials.access_key_id, credentials.secret_access_key, credentials.session_token or None)
    with pytest.MonkeyPatch.context() as patch:
        frozen = datetime.fromtimestamp(now, UTC).replace(tzinfo=None)
        patch.setattr("botocore.auth.get_current_datetime", lambda: frozen)
        SigV4Auth(boto, "ses", credentials.region).add_auth(request)
    return {name.lower(): value for name, value in request.headers.items()}


@given(CREDENTIALS, HOSTS, PATHS, st.binary(max_size=200), st.integers(0, 4_000_000_000), TYPES)
@example(Credentials("", "", "AKID", SECRET, "", "eu-west-1"), "https://a.example", "/p//q/./../x/", b"", 0, "a/b")
def test_a_request_is_signed_as_botocore_signs_it(
    credentials: Credentials, url: str, path: str, body: bytes, now: int, content_type: str
) -> None:
    host = endpoint(url).authority
    ours = signed_headers(credentials, "ses", host, path, body, float(now), content_type)
    assert dict(ours) == by_botocore(credentials, url, path, body, float(now), content_type)
    assert len(ours) == len(dict(ours))


def test_the_signature_is_that_of_the_vendors_test_suite() -> None:
    """`post-x-www-form-urlencoded` of the Signature Version 4 test suite."""
    credentials = Credentials(
        access_key_id="AKIDEXAMPLE", secret_access_key="wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", region="us-east-1"
    )
    now = datetime(2015, 8, 30, 12, 36, tzinfo=UTC).timestamp()
    form = "application/x-www-form-urlencoded"
    fields = signed_headers(credentials, "service", "example.amazonaws.com", "/", b"Param1=value1", now, form)
    assert dict(fields)["authorization"] == (
        "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, "
        "SignedHeaders=content-type;host;x-amz-date, "
        "Signature=ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a"
    )


CHANGES = [
    {"access_key_id": "OTHER"},
    {"secret_access_key": "other"},
    {"session_token": "other"},
    {"region": "eu-west-3"},
]


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: next(iter(change)))
def test_each_part_of_the_credentials_changes_the_proof(change: dict[str, str]) -> None:
    credentials = Credentials(
        access_key_id="AKID", secret_access_key=SECRET, session_token="session", region="eu-west-1"
    )
    proofs = [
        dict(signed_headers(one, "ses", "a.example", "/v2", b"{}", NOW, "application/json"))["authorization"]
        for one in (credentials, credentials._replace(**change))
    ]
    assert proofs[0] != proofs[1]


def test_the_fields_hold_no_secret_key() -> None:
    credentials = Credentials(access_key_id="AKID", secret_access_key=SECRET, region="eu-west-1")
    fields = signed_headers(credentials, "ses", "a.example", "/v2", b"{}", NOW, "application/json")
    assert SECRET not in repr(fields)
    assert "x-amz-security-token" not in dict(fields)
