"""Suppressed addresses as commands list them: from the store's files, or from a relay elsewhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlencode

from relay.cli.remote import Remote
from relay.cli.source import Server
from relay.policy.suppression import hash_of
from relay.store.sqlite.suppressions import OfflineSuppressions
from relay.store.suppressions import SuppressionQuery
from relay.web.suppression_query import MAX_LIMIT, listing_query

PATH = "/api/suppressions"
PAGE = 5_000
Json = Mapping[str, Any]


class Rows(NamedTuple):
    """Entries, newest first, as `/api/suppressions` has them."""

    shown: Sequence[Json]
    has_more: bool


class Entries(Protocol):
    """Each call raises CommandFailed, StoreError."""

    def listing(self, filters: Mapping[str, str]) -> Rows:
        """Those that the filters select; see `suppression_query.listing_query`."""

    def all(self) -> Iterator[Json]:
        """A page in memory at a time."""


class AtHand:
    """The store's files; `close` it at the end."""

    def __init__(self, store: Path) -> None:
        self._store = OfflineSuppressions(store)

    def close(self) -> None:
        self._store.close()

    def listing(self, filters: Mapping[str, str]) -> Rows:
        key = self._store.hash_key or bytes(1)
        query = listing_query(filters, lambda one: hash_of(one, key))
        rows = self._store.listing(query._replace(limit=query.limit + 1))
        return Rows([row.as_json() for row in rows[: query.limit]], len(rows) > query.limit)

    def all(self) -> Iterator[Json]:
        return (row.as_json() for row in self._store.pages(SuppressionQuery(limit=PAGE)))


class Elsewhere:
    """A relay's HTTP service."""

    def __init__(self, server: Server) -> None:
        self._relay = Remote(server)

    def listing(self, filters: Mapping[str, str]) -> Rows:
        response = self._relay.get(f"{PATH}?{urlencode(filters)}")
        return Rows(response.body, "Link" in response.headers)

    def all(self) -> Iterator[Json]:
        path = f"{PATH}?{urlencode({'limit': MAX_LIMIT})}"
        while path:
            response = self._relay.get(path)
            yield from response.body
            # RFC 8288: <path>; rel="next"
            path = response.headers.get("Link", "").partition(">")[0].removeprefix("<")
