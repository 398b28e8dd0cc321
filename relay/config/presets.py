"""What is known of the upstreams that have a name: a table, in the words of the configuration file.

A preset fills the keys that an upstream leaves out. Sources: the providers' documentation. Implicit TLS is taken where
it is documented: it needs two round trips less than STARTTLS and can't be stripped (RFC 8314 3). `recipients` is the
provider's cap for one transaction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from types import MappingProxyType
from typing import Any


@dataclass(frozen=True, slots=True)
class Preset:
    """`keys` as they would stand in the file. `username_is_password`: one token is both."""

    keys: Mapping[str, Any]
    username_is_password: bool = False
    needs: tuple[tuple[str, str], ...] = ()
    """keys without a default here, each with what to write"""


def _preset(host: str | None, port: int, tls: str, /, *, token: bool = False, **keys: Any) -> Preset:
    needs = [(key, keys.pop(f"needs_{key}")) for key in ("host", "username") if f"needs_{key}" in keys]
    given = {"host": host, "port": port, "tls": tls, **keys}
    return Preset(MappingProxyType({k: v for k, v in given.items() if v is not None}), token, tuple(needs))


# SES rewrites these three, and keeps a signature that doesn't cover them. It closes a session after about 10 s of
# silence, so one is retired before that.
_SES: Mapping[str, Any] = MappingProxyType(
    {
        "recipients": 50,
        "sessions": {"idle": "8s"},
        "unsigned_headers": ("message-id", "date", "return-path"),
        "needs_username": "the SMTP user name of that region (AKIA...)",
    }
)
_SES_REGION = re.compile(r"ses-([a-z]{2}(?:-[a-z]+){1,3}-[0-9])")

# Postmark replaces Message-ID unless told to keep it, so it stays out of the signature.
_POSTMARK: Mapping[str, Any] = MappingProxyType({"token": True, "recipients": 50, "unsigned_headers": ("message-id",)})

PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        "postmark": _preset("smtp.postmarkapp.com", 587, "starttls", **_POSTMARK),
        "postmark-broadcasts": _preset("smtp-broadcasts.postmarkapp.com", 587, "starttls", **_POSTMARK),
        "sendgrid": _preset("smtp.sendgrid.net", 465, "implicit", username="apikey"),
        "sendgrid-eu": _preset("smtp.eu.sendgrid.net", 465, "implicit", username="apikey"),
        "ses": _preset(
            None,
            465,
            "implicit",
            needs_host="email-smtp.REGION.amazonaws.com, or name the region in the preset, as in ses-eu-west-1",
            **_SES,
        ),
        # One recipient a transaction: its events don't say which recipient they are about.
        "resend": _preset("smtp.resend.com", 465, "implicit", username="resend", recipients=1),
        "mailgun": _preset("smtp.mailgun.org", 465, "implicit", needs_username="the domain's SMTP login"),
        "mailgun-eu": _preset("smtp.eu.mailgun.org", 465, "implicit", needs_username="the domain's SMTP login"),
        "brevo": _preset("smtp-relay.brevo.com", 465, "implicit", needs_username="the account's SMTP login"),
        "sparkpost": _preset(
            "smtp.sparkpostmail.com",
            587,
            "starttls",
            username="SMTP_Injection",
            sessions={"max": 10, "messages": 100},
        ),
        "mailjet": _preset(
            "in-v3.mailjet.com",
            465,
            "implicit",
            recipients=50,
            needs_username="the API key (its secret is the password)",
        ),
        "mandrill": _preset("smtp.mandrillapp.com", 587, "starttls", needs_username="the account's e-mail address"),
        "scaleway": _preset("smtp.tem.scaleway.com", 587, "starttls", needs_username="the project's ID"),
        "azure": _preset("smtp.azurecomm.net", 587, "starttls", needs_username="the SMTP user name of the resource"),
    }
)


def find(name: str) -> Preset | None:
    """The preset of that name; `ses-REGION` is SES in that region."""
    if region := _SES_REGION.fullmatch(name):
        return _preset(f"email-smtp.{region[1]}.amazonaws.com", 465, "implicit", **_SES)
    return PRESETS.get(name)


def nearest(name: str) -> str | None:
    close = get_close_matches(name.lower(), PRESETS, n=1, cutoff=0.5)
    return close[0] if close else None


def filled(given: Mapping[str, Any], preset: Preset) -> dict[str, Any]:
    """An upstream's keys over those of its preset; `sessions` is merged key by key. With its own `tls` and no `port`
    the port is left to the default for that kind of TLS."""
    base = dict(preset.keys)
    if given.get("tls", base["tls"]) != base["tls"] and "port" not in given:
        del base["port"]
    merged = {**base, **{key: value for key, value in given.items() if value is not None or key not in base}}
    if isinstance(sessions := given.get("sessions"), dict):
        merged["sessions"] = {**base.get("sessions", {}), **sessions}
    if preset.username_is_password and merged.get("username") is None and merged.get("password") is not None:
        merged["username"] = merged["password"]
    return merged
