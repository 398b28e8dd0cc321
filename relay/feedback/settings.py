"""What the feedback process needs of the configuration. It crosses the link as JSON: no key of DKIM, no password of an
upstream is among it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from relay.providers.registry import provider_named, provider_of
from relay.store.merge import shards

if TYPE_CHECKING:  # the feedback process needs none of pydantic
    from relay.config.model import Config, Upstream


@dataclass(frozen=True, slots=True)
class WebhookSettings:
    """One upstream's webhook, and how its mail is recognised."""

    kind: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    topics: tuple[str, ...] = ()
    certificates: str | None = None
    url: str | None = None
    keeps_message_id: bool = True
    """False: the ESP replaces the Message-ID of the mail"""


@dataclass(frozen=True, slots=True)
class ReceiverSettings:
    """Where events are posted to."""

    url: str = field(repr=False)
    secret: str = field(repr=False)
    kinds: tuple[str, ...] | None = None
    lanes: tuple[str, ...] | None = None
    ca_file: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """All of it. A reload sends it again as a whole."""

    store: str
    """the main store file"""
    clock_offset: float
    """the relay's clock (`Clock.offset`)"""
    keep_s: float
    hashes_addresses: bool = False
    """`log.addresses: hashed`"""
    webhooks: Mapping[str, WebhookSettings] = field(default_factory=dict)
    """by upstream"""
    receivers: tuple[ReceiverSettings, ...] = ()
    objectives: Mapping[str, float] = field(default_factory=dict)
    """by lane: the seconds within which its mail is to arrive"""
    since: float = 0.0
    """when this relay started: what happened before is no news for receivers that are new"""
    begin: Mapping[str, int] = field(default_factory=dict)
    """by message file: its newest event when this relay began to follow it"""
    listens: bool = False
    """on `webhooks.address`, which is answered also when no upstream has a webhook any more"""
    cert_file: str | None = None
    key_file: str | None = None

    @classmethod
    def of(cls, config: Config, clock_offset: float, since: float, begin: Mapping[str, int]) -> Self:
        """The part of a configuration."""
        return cls(
            store=str(config.store),
            clock_offset=clock_offset,
            keep_s=config.log.keep_s,
            hashes_addresses=config.log.addresses == "hashed",
            webhooks={
                name: _webhook(upstream) for name, upstream in config.upstreams.items() if upstream.webhook is not None
            },
            receivers=tuple(
                ReceiverSettings(
                    one.url,
                    one.secret.get_secret_value() if one.secret is not None else "",
                    one.kinds,
                    one.lanes,
                    None if one.ca_file is None else str(one.ca_file),
                )
                for one in config.events
            ),
            objectives={
                name: lane.objective.within_s for name, lane in config.lanes.items() if lane.objective is not None
            },
            since=since,
            begin=begin,
            listens=config.webhooks.address is not None,
            cert_file=None if config.webhooks.cert_file is None else str(config.webhooks.cert_file),
            key_file=None if config.webhooks.key_file is None else str(config.webhooks.key_file),
        )

    @property
    def is_needed(self) -> bool:
        """Is there anything to answer or to post?"""
        return bool(self.webhooks or self.receivers or self.listens)

    def as_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Self:
        """What `as_json` made, after its way as JSON."""
        webhooks = {
            name: WebhookSettings(**{**one, "secrets": tuple(one["secrets"]), "topics": tuple(one["topics"])})
            for name, one in given["webhooks"].items()
        }
        receivers = tuple(
            ReceiverSettings(**{**one, "kinds": _tuple(one["kinds"]), "lanes": _tuple(one["lanes"])})
            for one in given["receivers"]
        )
        return cls(**{**given, "webhooks": webhooks, "receivers": receivers})

    def files(self) -> list[Path]:
        """The message files that exist. Raises StoreError."""
        store = Path(self.store)
        return [store, *shards(store)]


def _webhook(upstream: Upstream) -> WebhookSettings:
    given = upstream.webhook
    assert given is not None
    provider = provider_named(given.kind) if given.kind is not None else provider_of(upstream.preset or "")
    assert provider is not None  # checked at loading
    return WebhookSettings(
        kind=provider.name,
        secrets=tuple(one.get_secret_value() for one in given.secret),
        topics=given.topics,
        certificates=None if given.certificates is None else str(given.certificates),
        url=given.url,
        keeps_message_id="message-id" not in upstream.unsigned_headers,
    )


def _tuple(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(value)
