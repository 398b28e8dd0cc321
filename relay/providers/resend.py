"""Resend. Its events don't say which recipient they are about, so a transaction has one recipient."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="resend",
    presets={
        "resend": Preset(
            {"host": "smtp.resend.com", "port": 465, "tls": "implicit", "username": "resend", "recipients": 1}
        )
    },
    correlation_header="X-Otp-Relay-Id",  # its events have the message's own header fields
)
