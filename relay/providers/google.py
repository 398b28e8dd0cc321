"""Google Workspace, as a user of Gmail.

Sources: "IMAP, POP, and SMTP", "Gmail sending limits in Google Workspace", "SMTP relay service error messages".
"""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="google",
    presets={
        "google": Preset(
            {"host": "smtp.gmail.com", "port": 465, "tls": "implicit", "auth": "xoauth2", "recipients": 100},
            {"username": "the address of the user that sends"},
            other_ports=((587, "starttls"),),
            facts=Facts(
                reply_id="OK TIME ID - gsmtp",
                limits=(
                    "2,000 messages a day a user",
                    "100 recipients a message",
                    "10,000 recipients a day a user",
                    "25 MB a message",
                ),
                notes=(
                    "A service account needs domain-wide delegation for the scope.",
                    "With an app password: auth: password, and password.",
                    "The SMTP relay service is host: smtp-relay.gmail.com.",
                    "It closes a connection when the connection's token expires, after about an hour.",
                ),
            ),
            unverified=("reply_id",),
            sample={
                "oauth2": {
                    "grant": "jwt_bearer",
                    "token_url": "https://oauth2.googleapis.com/token",
                    "service_account_file": "secrets/google.json",
                    "scope": "https://mail.google.com/",
                }
            },
        )
    },
    account_errors=(
        r"daily (?:user sending|smtp relay) (?:quota|limit) exceeded",  # 550 5.4.5
        r"mail relay denied",  # 550 5.7.1 Invalid credentials for relay; 5.7.0 Mail relay denied
        r"invalid credentials for relay",
    ),
)
