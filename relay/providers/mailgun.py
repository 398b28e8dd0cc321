"""Mailgun."""

from __future__ import annotations

from relay.providers.base import Preset, Provider


def _preset(host: str) -> Preset:
    return Preset({"host": host, "port": 465, "tls": "implicit"}, {"username": "the domain's SMTP login"})


PROVIDER = Provider(
    name="mailgun",
    presets={"mailgun": _preset("smtp.mailgun.org"), "mailgun-eu": _preset("smtp.eu.mailgun.org")},
    correlation_header="X-Mailgun-Variables",
)
