"""What the lanes of one upstream share: the quota of its sessions, and its rate."""

from __future__ import annotations

from dataclasses import dataclass

from relay.config.model import Upstream
from relay.upstream.quota import SessionQuota
from relay.upstream.rate import Limiter, RateLimiter


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Limits as a process has them, its own or lent by the main process."""

    quota: SessionQuota
    rate: Limiter | None
    """None: no limit"""


@dataclass(frozen=True, slots=True)
class LocalLimits(UpstreamLimits):
    """Limits that this process keeps itself."""

    rate: RateLimiter | None

    @classmethod
    def of(cls, config: Upstream) -> LocalLimits:
        return cls(SessionQuota(config.sessions.max), RateLimiter(config.rate) if config.rate is not None else None)

    def reconfigured(self, config: Upstream) -> LocalLimits:
        """For another configuration of the same upstream. Open sessions go on to count, those of the old lanes too.
        Nothing changes before `apply`."""
        if config.rate is None:
            return LocalLimits(self.quota, None)
        return LocalLimits(self.quota, self.rate or RateLimiter(config.rate))

    def apply(self, config: Upstream) -> None:
        """The limits of this configuration hold from now on."""
        self.quota.resize(config.sessions.max)
        if self.rate is not None and config.rate is not None:
            self.rate.change(config.rate)
