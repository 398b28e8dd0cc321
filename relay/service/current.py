"""The configuration in force, and how it came into force."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

from relay.config.model import Config, Loaded
from relay.web.backend import Reload, UpstreamFacts


class Current:
    """The configuration that the relay runs by. A reload replaces it: read it each time. The web's `InForce`."""

    def __init__(self, loaded: Loaded, clock: Callable[[], float] = time.time) -> None:
        """`clock`: seconds since the epoch."""
        self.loaded = loaded
        self.started_at = self.loaded_at = clock()
        self.last_reload: Reload | None = None
        self._clock = clock

    @property
    def config(self) -> Config:
        return self.loaded.config

    def replace(self, loaded: Loaded) -> None:
        """A reload has put another configuration in force."""
        self.loaded, self.loaded_at = loaded, self._clock()

    def reloaded(self, *, success: bool, reason: str | None = None) -> None:
        """Remember how a reload ended. `reason`: the errors of one that was refused."""
        self.last_reload = Reload(self._clock(), success, reason)

    # web.backend.InForce

    @property
    def path(self) -> str:
        return str(self.loaded.path)

    def outline(self) -> Mapping[str, object]:
        return self.loaded.outline

    def express(self) -> frozenset[str]:
        return frozenset(name for name, lane in self.config.lanes.items() if lane.express)

    def upstreams(self) -> Mapping[str, UpstreamFacts]:
        return {
            name: UpstreamFacts(
                one.preset, one.via, one.host or None, one.port if one.host else None, bool(one.webhook)
            )
            for name, one in self.config.upstreams.items()
        }
