"""What is known of the providers, asked for by name or by reply."""

from __future__ import annotations

import pytest

from relay.providers.registry import PROVIDERS, find_preset, is_account_error, nearest_preset

ACCOUNT = [
    "5.7.1 Message rejected: Email address is not verified. (SES)",
    "The from address does not match a verified Sender Identity (SendGrid)",
    "5.7.0 Authentication failed: Maximum credits exceeded (SendGrid)",
    "5.7.1 Unauthorized IP address 192.0.2.7 (Brevo)",
    "5.2.252 SendAsDenied; ops@example.com not allowed to send as otp@example.com (Microsoft 365)",
    "5.7.60 SMTP; Client does not have permissions to send as this sender (Microsoft 365)",
    "5.7.30 Basic authentication is not supported for Client Submission (Microsoft 365)",
    "5.1.8 Access denied, bad outbound sender AS(42004) (Microsoft 365)",
    "5.1.90 Your message can't be sent because you've reached your daily limit for message recipients",
    "5.4.5 Daily user sending limit exceeded. - gsmtp (Google)",
    "5.4.5 Daily SMTP relay limit exceeded for user. - gsmtp (Google)",
    "5.7.0 Mail relay denied [192.0.2.7]. - gsmtp (Google)",
    "5.7.1 Sender denied (Cloudflare)",
    "5.7.1 Sending from domain example.com is not allowed (Mailtrap)",
    "From header sender domain not verified (example.com) (SMTP2GO)",
    "5.7.1 your account is suspended",
    "5.7.1 Authentication is required",
    "5.7.1 sender address is not allowed",
]
MAIL = [
    "5.1.1 no such user",
    "5.7.1 looks like spam",
    "5.2.2 mailbox full",
    "5.7.1 relay access denied",
    "5.2.1 mail from domain example.com is not allowed to this mailbox",
    "",
]


@pytest.mark.parametrize("text", ACCOUNT)
def test_a_reply_about_the_account_is_told_from_one_about_the_mail(text: str) -> None:
    assert is_account_error(text)
    assert is_account_error(text.upper())


@pytest.mark.parametrize("text", MAIL)
def test_a_reply_about_the_mail_is_no_account_error(text: str) -> None:
    assert not is_account_error(text)


def test_every_preset_has_one_provider_and_is_found_by_its_name() -> None:
    names = [name for provider in PROVIDERS for name in provider.presets]
    assert len(names) == len(set(names))
    for provider in PROVIDERS:
        assert all(find_preset(name) is preset for name, preset in provider.presets.items())


@pytest.mark.parametrize(
    ("name", "host"),
    [
        ("ses-eu-west-1", "email-smtp.eu-west-1.amazonaws.com"),
        ("ses-us-gov-west-1", "email-smtp.us-gov-west-1.amazonaws.com"),
    ],
)
def test_ses_has_a_preset_for_each_region(name: str, host: str) -> None:
    preset = find_preset(name)
    assert preset is not None
    assert preset.keys["host"] == host
    assert "host" not in preset.needs


@pytest.mark.parametrize(("name", "near"), [("postmrk", "postmark"), ("SendGird", "sendgrid"), ("zzz", None)])
def test_a_mistyped_preset_has_a_nearest_one(name: str, near: str | None) -> None:
    assert find_preset(name) is None
    assert nearest_preset(name) == near


def test_the_correlation_headers_are_no_names_of_the_relays_own_control_fields() -> None:
    headers = [provider.correlation_header for provider in PROVIDERS if provider.correlation_header is not None]
    assert len(set(headers)) == len(headers) == 9
    assert not any(header.lower().startswith("x-relay-") for header in headers)
