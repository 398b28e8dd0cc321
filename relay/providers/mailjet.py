"""Mailjet."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="mailjet",
    presets={
        "mailjet": Preset(
            {"host": "in-v3.mailjet.com", "port": 465, "tls": "implicit", "recipients": 50},
            {"username": "the API key (its secret is the password)"},
        )
    },
    correlation_header="X-MJ-CustomID",
)
