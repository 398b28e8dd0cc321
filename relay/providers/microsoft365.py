"""Microsoft 365 (Exchange Online): client submission by SMTP, and Microsoft Graph.

Sources: "How to set up a multifunction device or application to send email", "Exchange Online limits", "Authenticate
an IMAP, POP or SMTP connection using OAuth".
"""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="microsoft365",
    presets={
        "microsoft365": Preset(
            {
                "host": "smtp.office365.com",
                "port": 587,
                "tls": "starttls",
                "auth": "xoauth2",
                "rate": "30/m",
                # A fourth one gets `432 4.3.2 STOREDRV.ClientSubmit; sender thread limit exceeded`.
                "sessions": {"max": 3},
            },
            {"username": "the address of the mailbox that sends"},
            other_ports=((25, "starttls"),),
            facts=Facts(
                reply_id="OK <Message-ID>",
                limits=(
                    "30 messages a minute a mailbox",
                    "3 connections a mailbox",
                    "10,000 recipients a day a mailbox",
                ),
                region="the tenant's",
                notes=(
                    "SMTP AUTH has to be on for the mailbox; new tenants have it off.",
                    "The application needs the permission SMTP.SendAsApp, and for via: api Mail.Send.",
                    "For via: api the scope is https://graph.microsoft.com/.default.",
                    "From has to be the mailbox, or an address that it may send as.",
                ),
            ),
            unverified=("reply_id",),
            sample={
                "oauth2": {
                    "grant": "client_credentials",
                    "token_url": "https://login.microsoftonline.com/TENANT/oauth2/v2.0/token",
                    "client_id": "${MICROSOFT365_CLIENT_ID}",
                    "client_secret": "${MICROSOFT365_CLIENT_SECRET}",
                    "scope": "https://outlook.office365.com/.default",
                }
            },
        )
    },
    account_errors=(
        r"sendasdenied",  # 554 5.2.252 SendAsDenied; alice@example.com not allowed to send as otp@example.com
        r"permissions? to send as",  # 550 5.7.60 SMTP; Client does not have permissions to send as this sender
        r"basic authentication is not supported",  # 550 5.7.30
        r"bad outbound sender",  # 550 5.1.8 Access denied, bad outbound sender
        r"daily limit for message recipients",  # 550 5.1.90 Your message can't be sent because you've reached your ...
    ),
    api="graph",
)
