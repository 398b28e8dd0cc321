"""Leadpush. It has no events of deliveries and bounces: its webhooks are about contacts.

Source: its knowledge base (SMTP credentials, custom e-mail headers) and its developer documentation.
"""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="leadpush",
    presets={
        "leadpush": Preset(
            {"host": "smtp.leadpush.net", "port": 587, "tls": "starttls"},
            {"username": "the user name of an SMTP credential of the workspace"},
            facts=Facts(
                metadata="X-Leadpush-Tag (one text)",
                notes=(
                    "It rewrites mail to track opens and clicks, unless headers has X-Leadpush-Tracking: none.",
                    "It tells of no delivery and no bounce; GET /suppressions lists addresses that bounced.",
                ),
            ),
            unverified=("reply_id", "limits"),
        )
    },
    api="leadpush",
)
