"""Brevo."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="brevo",
    presets={
        "brevo": Preset(
            {"host": "smtp-relay.brevo.com", "port": 465, "tls": "implicit"},
            {"username": "the account's SMTP login"},
        )
    },
    account_errors=(r"unauthorized ip",),  # 525 5.7.1 Unauthorized IP address
    correlation_header="X-Mailin-custom",
)
