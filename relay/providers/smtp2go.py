"""SMTP2GO. Sources: its pages "SMTP Relay" and "Know your sending limits"."""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="smtp2go",
    presets={
        "smtp2go": Preset(
            {"host": "mail.smtp2go.com", "port": 465, "tls": "implicit", "rate": "200000/h"},
            {"username": "the name of an SMTP user"},
            other_ports=(
                (587, "starttls"),
                (2525, "starttls"),
                (8025, "starttls"),
                (8465, "implicit"),
                (443, "implicit"),
                (80, "starttls"),
                (25, "starttls"),
            ),
            facts=Facts(
                reply_id="OK id=ID",
                limits=(
                    "200,000 messages an hour an account, more on request",
                    "1,000 messages a day until a new account is reviewed",
                    "50 MB a message",
                ),
                region="the nearest; mail-us, mail-eu, mail-eu2 and mail-au.smtp2go.com stay in theirs",
            ),
            unverified=("reply_id", "metadata"),
        )
    },
    account_errors=(r"sender domain not verified",),  # 550 From header sender domain not verified
)
