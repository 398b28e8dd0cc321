"""The configuration in force."""

from __future__ import annotations

from relay.config.model import Config, Loaded


class Current:
    """The configuration that the relay runs by. A reload replaces it, so read it each time."""

    def __init__(self, loaded: Loaded) -> None:
        self.loaded = loaded

    @property
    def config(self) -> Config:
        return self.loaded.config
