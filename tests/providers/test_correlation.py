"""The relay's id in each ESP's metadata, beside what the app set itself, and the ESP's id out of its reply."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest

from relay.providers.registry import PROVIDERS, provider_named
from relay.providers.webhook import Field

ID = "01JD8Z2W3X4Y5Z6A7B8C9DAEBF"
LONG = "x" * 2_000
Merge = tuple[str, list[str], str | dict[str, Any] | None]

MERGED: list[Merge] = [
    ("sendgrid", [], {"unique_args": {"relay_id": ID}}),
    ("sendgrid", ['{"category": ["otp"], "unique_args": {"b": 1, "a": "ä"}}'],
     {"category": ["otp"], "unique_args": {"b": 1, "a": "ä", "relay_id": ID}}),
    ("sendgrid", ['{"unique_args": []}'], None),
    ("sendgrid", ['{"unique_args": {"Relay-Id": "own"}}'],
     {"unique_args": {"Relay-Id": "own", "x-otp-relay-id": ID}}),
    ("sendgrid", ['{"unique_args": {"Relay-Id": "own", "X-OTP-Relay_Id": "own"}}'], None),
    ("sendgrid", ['{"a": NaN}'], None),
    ("sendgrid", ['{"a": 1e999}'], None),
    ("sendgrid", ["{"], None),
    ("sendgrid", ["[" * 100_000], None),
    ("sendgrid", [f'{{"a": "{LONG}"}}'], None),
    ("sendgrid", ["{}", "{}"], None),
    ("ses", [], f"relay_id={ID}"),
    ("ses", ["a=b, c=d"], f"a=b, c=d, relay_id={ID}"),
    ("ses", ["a=b,"], f"a=b, relay_id={ID}"),
    ("ses", ["relay_id=own"], f"relay_id=own, x-otp-relay-id={ID}"),
    ("ses", ["relay_id=own, x-otp-relay-id=own"], None),
    ("ses", ["a=ä"], None),
    ("resend", [], ID),
    ("resend", ["forged"], ID),
    ("mailgun", [], {"relay_id": ID}),
    ("mailgun", ['{"a": {"b": 2}}'], {"a": {"b": 2}, "relay_id": ID}),
    ("mailgun", ["a=b"], None),
    ("brevo", [], f"relay_id:{ID}"),
    ("brevo", ["a:b|c:d"], f"a:b|c:d|relay_id:{ID}"),
    ("brevo", ['{"a": "b"}'], {"a": "b", "relay_id": ID}),
    ("brevo", ['{"a": '], None),
    ("brevo", ["x-relay-id:own"], f"x-relay-id:own|x-otp-relay-id:{ID}"),
    ("brevo", [LONG], None),
    ("sparkpost", [], {"metadata": {"relay_id": ID}}),
    ("sparkpost", ['{"campaign_id": "x", "metadata": {"a": 1}}'],
     {"campaign_id": "x", "metadata": {"a": 1, "relay_id": ID}}),
    ("sparkpost", ['{"metadata": "a"}'], None),
    ("mailjet", [], ID),
    ("mailjet", ["own"], None),
    ("mailjet", [" "], ID),
    ("mandrill", [], {"relay_id": ID}),
    ("mandrill", ['{"user": 7}'], {"user": 7, "relay_id": ID}),
    ("mandrill", [json.dumps({"a": "x " * 600})], None),
]  # fmt: skip


def correlated(esp: str, present: Sequence[Field]) -> Field | None:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.correlate is not None
    return provider.correlate(ID, present)


@pytest.mark.parametrize(("esp", "values", "merged"), MERGED, ids=[f"{one[0]}-{str(one[1])[:30]}" for one in MERGED])
def test_the_relays_id_joins_what_the_app_set(esp: str, values: list[str], merged: str | dict[str, Any] | None) -> None:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.correlation_header is not None
    others = [Field("Subject", "x"), Field("X-Other", '{"a": 1}')]
    present = [*others, *(Field(provider.correlation_header.upper(), value) for value in values)]
    field = correlated(esp, present)
    if merged is None:
        assert field is None
        return
    assert field is not None
    assert field.name.lower() == provider.correlation_header.lower()
    if isinstance(merged, str):
        assert field.value == merged
    else:
        known = json.loads(field.value)
        assert (known, json.dumps(known)) == (merged, json.dumps(merged))
    assert field.value.isascii()


def test_postmark_has_a_field_for_each_value_and_ten_at_most() -> None:
    own = [Field(f"X-PM-Metadata-{number}", "x") for number in range(10)]
    assert correlated("postmark", own[:9]) == Field("X-PM-Metadata-relay-id", ID)
    assert correlated("postmark", own) is None
    assert correlated("postmark", [*own[:9], Field("x-pm-metadata-0", "again")]) is not None
    own_id = Field("x-pm-metadata-relay-id", "own")
    assert correlated("postmark", [own_id]) == Field("X-PM-Metadata-x-otp-relay-id", ID)


def test_a_long_field_can_be_folded_at_its_spaces() -> None:
    own = {"category": [f"a category of number {number}" for number in range(200)]}
    field = correlated("sendgrid", [Field("X-SMTPAPI", json.dumps(own, separators=(",", ":")))])
    assert field is not None
    assert len(field.value) > 998
    assert max(map(len, field.value.split(" "))) <= 900
    folded = "\r\n ".join(field.value.split(" "))
    assert json.loads(folded.replace("\r\n", "")) == {**own, "unique_args": {"relay_id": ID}}


@pytest.mark.parametrize("esp", [provider.name for provider in PROVIDERS if provider.correlate is not None])
def test_an_id_that_would_break_the_header_is_never_written(esp: str) -> None:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.correlate is not None
    field = provider.correlate("01JD\r\nBcc: eve@example.org", [])
    assert field is None or "\n" not in field.value


REPLIES = [
    ("postmark", "250 2.0.0 Ok: queued as 7D2A3B1C-5e6f-4a70-9b81-c2d3e4f50617",
     "7d2a3b1c-5e6f-4a70-9b81-c2d3e4f50617"),
    ("postmark", "250 2.0.0 Ok: queued as 4F1B2C3D4E", None),
    ("mandrill", "250 2.0.0 Ok: queued as 4F1B2C3D4E", None),
    ("sendgrid", "250 Ok: queued as qNwBLgPQQjW6DJvKQwSAbw", "qNwBLgPQQjW6DJvKQwSAbw"),
    ("ses", "250 Ok 010001960f1e2d3c-4b5a6978-8796-4a5b-9c0d-1e2f3a4b5c6d-000000",
     "010001960f1e2d3c-4b5a6978-8796-4a5b-9c0d-1e2f3a4b5c6d-000000"),
    ("resend", "250 Ok: 5f0c9a1e-8b7d-4c6e-9f20-31425364a5b6", "5f0c9a1e-8b7d-4c6e-9f20-31425364a5b6"),
    ("mailgun", "250 Great success", None),
    ("mailgun", "Queued. Thank you. <20260301.1@otp.example.com>", "<20260301.1@otp.example.com>"),
    ("brevo", "250 2.0.0 OK: queued as <otp-1@otp.example.com>", "<otp-1@otp.example.com>"),
    ("brevo", "250 2.0.0 OK: queued as otp-1@otp.example.com", "<otp-1@otp.example.com>"),
    ("sparkpost", "250 2.0.0 OK 65832150921904138", "65832150921904138"),
    ("mailjet", "250 OK queued as 2b7b9869-0e44-42d4-9246-1039ef6b95ee", "2b7b9869-0e44-42d4-9246-1039ef6b95ee"),
    ("mandrill", "250 2.0.0 Ok: queued as abcdef0123456789abcdef0123456789", "abcdef0123456789abcdef0123456789"),
]  # fmt: skip


@pytest.mark.parametrize(("esp", "reply", "identity"), REPLIES)
def test_the_esps_id_is_read_off_its_reply(esp: str, reply: str, identity: str | None) -> None:
    provider = provider_named(esp)
    assert provider is not None
    assert provider.esp_id is not None
    assert provider.esp_id(reply) == provider.esp_id(reply.removeprefix("250 ")) == identity
    assert provider.esp_id("2.0.0 OK") is None
