"""All providers, and what is asked of them together."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from relay.providers import (
    azure,
    brevo,
    cloudflare,
    google,
    leadpush,
    mailersend,
    mailgun,
    mailjet,
    mailtrap,
    mandrill,
    microsoft365,
    postmark,
    resend,
    scaleway,
    sendgrid,
    ses,
    smtp2go,
    sparkpost,
)
from relay.providers.base import Preset, Provider

PROVIDERS: tuple[Provider, ...] = (
    postmark.PROVIDER,
    sendgrid.PROVIDER,
    ses.PROVIDER,
    resend.PROVIDER,
    mailgun.PROVIDER,
    brevo.PROVIDER,
    sparkpost.PROVIDER,
    mailjet.PROVIDER,
    mandrill.PROVIDER,
    scaleway.PROVIDER,
    azure.PROVIDER,
    leadpush.PROVIDER,
    microsoft365.PROVIDER,
    google.PROVIDER,
    cloudflare.PROVIDER,
    mailersend.PROVIDER,
    mailtrap.PROVIDER,
    smtp2go.PROVIDER,
)
_ANY_SERVER = (
    r"unverified",
    r"sender (?:identity|address) (?:is )?not",
    r"not authenticated",
    r"authentication (?:is )?required",
    r"account (?:is )?(?:suspended|disabled|not active)",
)
"""account errors that servers of many kinds word alike"""
# A company's server may stand before a provider and pass its replies on, so each reply is compared with all patterns.
_ACCOUNT_ERROR = re.compile(
    "|".join([*_ANY_SERVER, *(pattern for provider in PROVIDERS for pattern in provider.account_errors)]), re.IGNORECASE
)


def presets() -> Iterator[tuple[str, Provider, Preset]]:
    """Each preset with a fixed name: its name, its provider, itself."""
    for provider in PROVIDERS:
        for name, preset in provider.presets.items():
            yield name, provider, preset


_PRESETS = {name: preset for name, _, preset in presets()}


def find_preset(name: str) -> Preset | None:
    """The preset of that name; None: there is none."""
    if name in _PRESETS:
        return _PRESETS[name]
    found = (provider.preset_by_name(name) for provider in PROVIDERS if provider.preset_by_name is not None)
    return next((preset for preset in found if preset is not None), None)


def provider_of(preset: str) -> Provider | None:
    """The provider that a preset's name belongs to; None: there is no such preset."""
    for provider in PROVIDERS:
        by_name = provider.preset_by_name
        if preset in provider.presets or (by_name is not None and by_name(preset) is not None):
            return provider
    return None


def provider_named(name: str) -> Provider | None:
    """The provider of that name (`webhook.kind`); None: there is none."""
    return next((provider for provider in PROVIDERS if provider.name == name), None)


def nearest_preset(name: str) -> str | None:
    """The name most like a mistyped one; None: none is like it."""
    close = get_close_matches(name.lower(), _PRESETS, n=1, cutoff=0.5)
    return close[0] if close else None


def is_account_error(text: str) -> bool:
    """Whether the text of a permanent reply speaks of the account or its senders, not of the mail."""
    return _ACCOUNT_ERROR.search(text) is not None
