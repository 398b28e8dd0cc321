"""Sections of the configuration about what becomes of mail: webhooks of providers, events for the app, objectives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, SecretStr

from relay.config.event_kinds import EventKind
from relay.config.fields import Address, Duration, FilePath, OneOrMany, Section, Share

WebhookKind = Literal["postmark", "sendgrid", "ses", "resend", "mailgun", "brevo", "sparkpost", "mailjet", "mandrill"]


class Webhook(Section):
    """How the events of an upstream prove themselves."""

    secret: OneOrMany[SecretStr] = ()
    """from `secret`, or read from `secret_file` at loading; two while one is being replaced"""
    secret_file: OneOrMany[FilePath] = ()
    topics: OneOrMany[str] = ()
    """SES: the ARNs of the SNS topics that are believed"""
    certificates: FilePath | None = None
    """SES: a folder with SNS certificates by file name, for machines that can't fetch them"""
    url: str | None = None
    """Mandrill: the URL as written there, which its signature covers"""
    kind: WebhookKind | None = None
    """the provider whose webhook it is; `defaults` fills in the preset's"""


class Webhooks(Section):
    """A listener of its own for the providers' webhooks."""

    address: Address | None = None
    """None: they come in at `http.address`"""
    cert_file: FilePath | None = None
    key_file: FilePath | None = None


class EventReceiver(Section):
    """Where the app hears of what became of its mail (Standard Webhooks)."""

    url: str = Field(repr=False)
    secret: SecretStr | None = None
    """from `secret`, or read from `secret_file` at loading: `whsec_` and base64"""
    secret_file: FilePath | None = None
    kinds: OneOrMany[EventKind] | None = None
    """None: all"""
    lanes: OneOrMany[str] | None = None
    """None: all"""
    ca_file: FilePath | None = None


class Objective(Section):
    """How fast a lane's mail is to arrive."""

    within_s: Duration = Field(alias="within")
    share: Share
