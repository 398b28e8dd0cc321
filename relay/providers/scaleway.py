"""Scaleway Transactional Email."""

from relay.providers.base import Facts, Preset, Provider

PROVIDER = Provider(
    name="scaleway",
    presets={
        "scaleway": Preset(
            {
                "host": "smtp.tem.scaleway.com",
                "port": 587,
                "tls": "starttls",
                "recipients": 10,  # "Transactional Email capabilities and limits"
            },
            {"username": "the project's ID"},
            other_ports=((465, "implicit"), (2587, "starttls"), (2465, "implicit"), (25, "starttls")),
            facts=Facts(
                limits=(
                    "10 recipients a message, more on request",
                    "50 MB a message, 2 MB by the API",
                    "10,000 messages a month, more on request",
                ),
                region="fr-par",
                notes=("The password is the secret key of an API key.",),
            ),
            unverified=("reply_id", "metadata"),
        )
    },
    api="scaleway",
)
