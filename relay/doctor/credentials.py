"""Access tokens and temporary credentials for the doctor's own connections."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from relay.config.model import Config, Upstream
from relay.store.base import StoreError
from relay.store.sqlite.files import holder
from relay.supervise import Supervisor
from relay.upstream.access import LocalAccess

LEFT_ALONE = "not tried: to fetch a token would use up the refresh token of the relay that runs"


@dataclass(frozen=True, slots=True)
class DoctorAccess:
    """Where the doctor gets credentials from, as the relay does."""

    local: LocalAccess
    relay_runs: bool
    """a relay runs on the store, or may"""

    def leaves_alone(self, upstream: Upstream) -> bool:
        """Whether no token is fetched: a server may take a refresh token once, and the relay that runs has it."""
        return self.relay_runs and upstream.oauth2 is not None and upstream.oauth2.grant == "refresh_token"


@asynccontextmanager
async def opened(config: Config) -> AsyncIterator[DoctorAccess]:
    """Without a running relay a rotated refresh token is kept where the relay looks for it."""
    local = LocalAccess(Supervisor(lambda _name, _error: None), lambda _name, _reason: None)
    local.store = config.store
    try:
        yield DoctorAccess(local, await asyncio.to_thread(_relay_runs, config))
    finally:
        await local.close()


def _relay_runs(config: Config) -> bool:
    try:
        return holder(config.store) is not None
    except StoreError:
        return True


def good_for(expires_at: float | None, now: float) -> str:
    """`, good for 59 minutes`; '' where it isn't known. Both in seconds since the epoch."""
    if expires_at is None:
        return ""
    minutes = max(0, math.floor((expires_at - now) / 60))
    return f", good for {minutes} minute{'' if minutes == 1 else 's'}"
