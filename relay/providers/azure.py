"""Azure Communication Services."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="azure",
    presets={
        "azure": Preset(
            {"host": "smtp.azurecomm.net", "port": 587, "tls": "starttls"},
            {"username": "the SMTP user name of the resource"},
        )
    },
)
