"""Scaleway Transactional Email."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="scaleway",
    presets={
        "scaleway": Preset(
            {"host": "smtp.tem.scaleway.com", "port": 587, "tls": "starttls"},
            {"username": "the project's ID"},
        )
    },
)
