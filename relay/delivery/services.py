"""What every lane needs from the rest of the relay."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from relay.clock import Clock
from relay.delivery.fastest import Paces
from relay.delivery.message import Job
from relay.delivery.settlement import Bounces
from relay.mail.mailbox_provider import Providers
from relay.policy.suppression import Report as ReportBadAddress
from relay.policy.suppression import Suppressions
from relay.store.base import Queue
from relay.store.model import Queued, Settlement
from relay.supervise import Supervisor
from relay.upstream.attempt import Report
from relay.upstream.standing import Watcher

STORE_RETRY_S = 1.0
"""pause before the store is asked again, after a claim or a settlement that failed"""


class Sign(Protocol):
    """`Signatures.sign`"""

    def __call__(self, message: Queued, unsigned: frozenset[str], *, express: bool) -> Awaitable[Sequence[bytes]]: ...


class Events(Watcher, Protocol):
    """Receives what happens to mail, for the log and the metrics. No method raises or waits."""

    def on_attempt(self, lane: str, job: Job, report: Report) -> None:
        """An attempt at one upstream is over."""

    def on_settled(self, lane: str, job: Job, settlement: Settlement) -> None:
        """The outcome is durable."""

    def on_superseded(self, lane: str, message_id: str, by: str) -> None:
        """A message that waited in the store ended, because a newer one came."""

    def on_expired(self, lane: str, message_id: str, recipients: int) -> None:
        """Recipients of a message that waited in the store ended, because its life was over."""

    def on_error(self, where: str, error: BaseException) -> None:
        """The relay's own code or store failed; mail waits, nothing is lost."""


@dataclass(frozen=True, slots=True)
class Services:
    """Made once for all lanes of a configuration."""

    store: Queue
    clock: Clock
    sign: Sign
    bounces: Bounces
    events: Events
    supervisor: Supervisor
    """starts background tasks, and starts them again when they fail"""
    suppressions: Suppressions = field(default_factory=Suppressions)
    report_bad_address: ReportBadAddress = lambda _: None
    """is called once the outcome is durable"""
    paces: Paces = field(default_factory=Paces)
    """how fast each upstream is, for lanes that prefer the fastest"""
    providers: Providers = field(default_factory=Providers)
    redirect: str | None = None
    """the address that all mail goes to instead"""
