"""Mandrill (Mailchimp Transactional)."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="mandrill",
    presets={
        "mandrill": Preset(
            {"host": "smtp.mandrillapp.com", "port": 587, "tls": "starttls"},
            {"username": "the account's e-mail address"},
        )
    },
    correlation_header="X-MC-Metadata",
)
