"""SendGrid."""

from __future__ import annotations

from relay.providers.base import Preset, Provider


def _preset(host: str) -> Preset:
    keys = {"host": host, "port": 465, "tls": "implicit", "username": "apikey"}
    # "Integrating with the SMTP API": 5,000 messages a connection, 10,000 connections from one server.
    return Preset({**keys, "sessions": {"messages": 5_000}})


PROVIDER = Provider(
    name="sendgrid",
    presets={"sendgrid": _preset("smtp.sendgrid.net"), "sendgrid-eu": _preset("smtp.eu.sendgrid.net")},
    account_errors=(
        r"verified sender",  # 550 The from address does not match a verified Sender Identity
        r"credits exceeded",  # 451 Authentication failed: Maximum credits exceeded
    ),
    correlation_header="X-SMTPAPI",
)
