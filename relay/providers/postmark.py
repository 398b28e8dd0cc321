"""Postmark. It replaces Message-ID, so our signature leaves that field out."""

from __future__ import annotations

from relay.providers.base import Preset, Provider


def _preset(host: str) -> Preset:
    keys = {
        "host": host,
        "port": 587,
        "tls": "starttls",
        "recipients": 50,
        # Its support page "Do we have rate limits for SMTP?" asks for at most 10 connections from one address.
        "sessions": {"max": 10},
        "unsigned_headers": ("message-id",),
    }
    return Preset(keys, username_is_password=True)


PROVIDER = Provider(
    name="postmark",
    presets={
        "postmark": _preset("smtp.postmarkapp.com"),
        "postmark-broadcasts": _preset("smtp-broadcasts.postmarkapp.com"),
    },
    correlation_header="X-PM-Metadata-Relay-Id",
)
