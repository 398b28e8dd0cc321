"""What the relay knows of an e-mail service provider (ESP), as values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from relay.providers.webhook import Correlate, Webhook


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a provider beyond the keys of an upstream, for people to read. Source: its documentation."""

    reply_id: str | None = None
    """the id in its reply to the final dot; None: the reply names none"""
    metadata: str | None = None
    """the header field that it keeps with a message. None: there is none, or the relay sets it itself: then it is the
    provider's `correlation_header`"""
    limits: tuple[str, ...] = ()
    """what it publishes, as `50 recipients a message`"""
    region: str | None = None
    """where it handles mail; None: there is no choice, or nothing is known"""
    notes: tuple[str, ...] = ()
    """what else an operator should know before the first mail, one sentence each"""


@dataclass(frozen=True, slots=True)
class Preset:
    """The keys of an upstream that the configuration file may leave out.

    Implicit TLS is taken where it is documented: it needs two round trips less than STARTTLS and can't be stripped
    (RFC 8314 3). `recipients` is the provider's limit for one transaction. Sources: the providers' documentation.
    """

    keys: Mapping[str, Any]
    """as they would stand in the file"""
    needs: Mapping[str, str] = field(default_factory=dict)
    """keys that have no default, each with what to write"""
    username_is_password: bool = False
    """one token is both"""
    other_ports: tuple[tuple[int, str], ...] = ()
    """ports that the provider offers besides, each with its kind of TLS, in the order in which to try them"""
    facts: Facts = Facts()
    unverified: tuple[str, ...] = ()
    """which of the above no documentation was found for: names of `Facts`, keys (`sessions.idle`), `other_ports`"""
    api_url: str | None = None
    """base URL of the HTTP API; None: the one that the API's module has"""
    sample: Mapping[str, Any] = field(default_factory=dict)
    """keys that an operator writes and the preset can't know, with values to replace"""

    def fill(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The keys `given` over the preset's own; `sessions` is merged key by key. With its own `tls` and no `port`, an
        upstream gets the default port for that kind of TLS."""
        base = dict(self.keys)
        if given.get("tls", base["tls"]) != base["tls"] and "port" not in given:
            del base["port"]
        merged = {**base, **{key: value for key, value in given.items() if value is not None or key not in base}}
        if isinstance(sessions := given.get("sessions"), dict):
            merged["sessions"] = {**base.get("sessions", {}), **sessions}
        if self.username_is_password and merged.get("username") is None and merged.get("password") is not None:
            merged["username"] = merged["password"]
        return merged


@dataclass(frozen=True, slots=True)
class Provider:
    """One ESP."""

    name: str
    """as `webhook.kind` in the configuration has it"""
    presets: Mapping[str, Preset]
    account_errors: tuple[str, ...] = ()
    """patterns in its permanent replies that speak of the account or its senders, not of the mail; case is ignored"""
    correlation_header: str | None = None
    """the header field whose value comes back in its delivery events"""
    correlate: Correlate | None = None
    """puts the relay's id into that field"""
    esp_id: Callable[[str], str | None] | None = None
    """the ESP's id of the message, out of the text of its reply to the final dot; None: the reply carries none"""
    webhook: Webhook | None = None
    preset_by_name: Callable[[str], Preset | None] | None = None
    """a preset whose name has a variable part, such as a region"""
    api: str | None = None
    """the module in `relay.providers.apis` that speaks its HTTP API; None: the relay reaches it by SMTP only"""
