"""Cloudflare Email Service. It writes Message-ID, Date and Return-Path itself.

It takes 50 RCPT commands a session, over all its messages, and then wants a new one. So a message goes to one recipient
at a time, and a session carries 50. Source: its pages "SMTP", "Limits" and "Email headers".
"""

from relay.providers.base import Facts, Preset, Provider

_RECIPIENTS = 50
"""a session"""

PROVIDER = Provider(
    name="cloudflare",
    presets={
        "cloudflare": Preset(
            {
                "host": "smtp.mx.cloudflare.net",
                "port": 465,
                "tls": "implicit",
                "username": "api_token",
                "recipients": 1,
                "sessions": {"messages": _RECIPIENTS},
                "unsigned_headers": ("message-id", "date", "return-path"),
            },
            facts=Facts(
                reply_id="Ok <Message-ID>: the one that it writes",
                limits=(
                    f"{_RECIPIENTS} recipients a connection",
                    "5 MiB a message",
                    "16 KB of header fields of the sender's own",
                    "a daily quota of the account",
                ),
                notes=(
                    "The password is an API token with the permission Email Sending: Edit.",
                    "It signs with DKIM itself, and takes only header fields of its list and X- fields.",
                    "It accepts suppressed recipients and drops their mail; then the 250 may name no Message-ID.",
                ),
            ),
        )
    },
    account_errors=(r"\bsender denied\b",),  # 550 5.7.1 Sender denied: the domain is not onboarded
)
