"""Mailtrap Email API/SMTP, which delivers mail; not its sandbox.

Sources: "SMTP Integration", "Sending Limits", "Custom Variables".
"""

from relay.providers.base import Facts, Preset, Provider


def _preset(host: str) -> Preset:
    return Preset(
        {
            "host": host,
            "port": 587,
            "tls": "starttls",
            "username": "api",
            "sessions": {"max": 10, "messages": 100},
        },
        other_ports=((2525, "starttls"), (25, "starttls")),
        facts=Facts(
            metadata="X-MT-Custom-Variables (JSON, at most 1,000 bytes)",
            limits=(
                "10 connections an account",
                "100 messages a connection",
                "10 MB a message",
                "an hourly quota of the account: mail over it waits there",
            ),
            notes=(
                "The password is an API token.",
                "One connection too many gets 535, as a wrong password does: lower sessions.max where others connect.",
            ),
        ),
        unverified=("other_ports", "reply_id"),
    )


PROVIDER = Provider(
    name="mailtrap",
    presets={
        "mailtrap": _preset("live.smtp.mailtrap.io"),
        # Promotions have to go by this stream.
        "mailtrap-bulk": _preset("bulk.smtp.mailtrap.io"),
    },
    account_errors=(r"sending from domain .{1,255} is not allowed",),
)
