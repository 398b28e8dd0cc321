"""Azure Communication Services."""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="azure",
    presets={
        "azure": Preset(
            {
                "host": "smtp.azurecomm.net",
                "port": 587,
                "tls": "starttls",
                "recipients": 50,
                "rate": "30/m",  # "Service limits for Azure Communication Services", Email
            },
            {"username": "the SMTP user name of the resource"},
            other_ports=((25, "starttls"),),
            facts=Facts(
                limits=(
                    "30 messages a minute and 100 an hour, more on request",
                    "5 messages a minute and 10 an hour from a domain that Azure manages",
                    "50 recipients a message",
                    "10 MB a message",
                ),
                region="the data location of the resource",
                notes=("A new resource may send 100 messages an hour, which no rate here holds back.",),
            ),
            unverified=("reply_id", "metadata"),
        )
    },
)
