"""SendGrid."""

from __future__ import annotations

from relay.providers.base import Preset, Provider


def _preset(host: str) -> Preset:
    return Preset({"host": host, "port": 465, "tls": "implicit", "username": "apikey"})


PROVIDER = Provider(
    presets={"sendgrid": _preset("smtp.sendgrid.net"), "sendgrid-eu": _preset("smtp.eu.sendgrid.net")},
    account_errors=(
        r"verified sender",  # 550 The from address does not match a verified Sender Identity
        r"credits exceeded",  # 451 Authentication failed: Maximum credits exceeded
    ),
    correlation_header="X-SMTPAPI",
)
