"""SparkPost. It allows 10 connections, of 100 messages each."""

from relay.providers.base import Preset, Provider

PROVIDER = Provider(
    name="sparkpost",
    presets={
        "sparkpost": Preset(
            {
                "host": "smtp.sparkpostmail.com",
                "port": 587,
                "tls": "starttls",
                "username": "SMTP_Injection",
                # "SMTP and REST API Injection Best Practices"
                "sessions": {"max": 10, "messages": 100},
            }
        )
    },
    correlation_header="X-MSYS-API",
)
