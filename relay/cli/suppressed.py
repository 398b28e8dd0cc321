"""Which recipients of a message `explain` finds suppressed, and why."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from relay.config.model import Lane


def suppressed(store: Path, lane: Lane, recipients: Sequence[str], now: float) -> dict[str, str] | None:
    """Why, as an app may read it, by recipient that gets no mail of `lane` at `now` (seconds since the epoch). Reads
    the store's file, whether a relay runs or not; None: it can't be read, or there is none."""
    from relay.policy.suppression import counts, hash_of, why
    from relay.store.base import StoreError
    from relay.store.sqlite.suppressions import OfflineSuppressions
    from relay.store.suppressions import SuppressionQuery

    found: dict[str, str] = {}
    try:
        with closing(OfflineSuppressions(store)) as entries:
            for address in recipients:
                query = SuppressionQuery(hashed=hash_of(address, entries.hash_key or bytes(1)))
                for row in entries.listing(query):
                    if counts(entry := row.entry(), lane, now):
                        found.setdefault(address, why(entry))
    except StoreError:
        return None
    return found
