"""MailerSend. Source: its pages "SMTP relay" and "How to send emails via SMTP"."""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="mailersend",
    presets={
        "mailersend": Preset(
            {"host": "smtp.mailersend.net", "port": 587, "tls": "starttls"},
            {"username": "the user name of an SMTP user (MS_...)"},
            other_ports=((2525, "starttls"),),
            facts=Facts(
                reply_id="Message queued as ID",
                metadata="X-MailerSend-Tags (at most 5)",
                notes=("It answers 450 also to mail that it never takes, such as mail without a text.",),
            ),
            unverified=("other_ports", "limits"),
        )
    },
)
