"""The commands' source where a relay is asked by its URL."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from relay.cli.common import CommandFailed
from relay.cli.offline import MOST_NAMED, only_one
from relay.cli.source import Filters, Json, Server, token_hint
from relay.store.model import LaneCount
from relay.store.search_text import Found
from relay.web.client import NoResponse, NotListening, Response, events, request
from relay.web.query import BadQuery

WITHIN_S = 30.0


class Remote:
    """A relay's HTTP API. Each request has a connection of its own."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def message(self, begin: str) -> Json | None:
        found: Json | None = self._ask(f"/api/messages/{quote(begin, safe='')}", may_lack=True)
        if found is not None:
            return found
        listed = self._ask(f"/api/messages?{urlencode({'id': begin, 'limit': MOST_NAMED + 1})}")
        ids = [str(one["id"]) for one in listed]
        return None if not ids else self._ask(f"/api/messages/{only_one(begin, ids)}")

    def find(self, filters: Filters) -> Found:
        response = self.get(f"/api/messages?{urlencode(filters)}")
        since = response.headers.get("X-Searched-Since")
        return Found(response.body, None if since is None else datetime.fromisoformat(since).timestamp())

    def waiting(self, filters: Filters) -> tuple[Sequence[Json], Sequence[LaneCount]]:
        found = self._ask(f"/api/queue?{urlencode(filters)}")
        counts = [LaneCount(one["lane"], one["state"], one["recipients"], None) for one in found["lanes"]]
        return found["messages"], counts

    def report(self, since: str) -> Json:
        document: Json = self._ask(f"/api/report?{urlencode({'since': since})}")
        return document

    def events(self, filters: Filters) -> Sequence[Json]:
        found: Sequence[Json] = self._ask(f"/api/events?{urlencode(filters)}")
        return found

    def news(self) -> Iterator[Sequence[Json]]:
        try:
            stream = events(self._server.address, "/api/stream", token=self._server.token, within_s=WITHIN_S)
        except (NotListening, NoResponse) as error:
            self._failed(error)
        return self._mail(stream)

    def _mail(self, stream: Iterator[tuple[str, str]]) -> Iterator[Sequence[Json]]:
        try:
            for kind, data in stream:
                # What happens is a `mail` event; the others tell that the relay is there.
                yield [json.loads(data)] if kind == "mail" else []
        except (NotListening, NoResponse) as error:
            self._failed(error)

    def _ask(self, path: str, *, may_lack: bool = False) -> Any:
        """`may_lack`: None for what isn't there."""
        response = self.get(path, may_lack=may_lack)
        return None if response.status == 404 else response.body

    def get(self, path: str, *, may_lack: bool = False) -> Response:
        """`may_lack`: 404 is an answer, too. Raises CommandFailed, BadQuery."""
        try:
            response = request(self._server.address, "GET", path, token=self._server.token, within_s=WITHIN_S)
        except (NotListening, NoResponse) as error:
            self._failed(error)
        if response.status == 200 or (may_lack and response.status == 404):
            return response
        if response.status == 400:
            raise BadQuery(response.error)
        text = f"{self._server.address}: {response.status} {response.error}".rstrip()
        raise CommandFailed(text + token_hint(self._server, response.status))

    def _failed(self, error: NotListening | NoResponse) -> NoReturn:
        reason = "nothing listens there" if isinstance(error, NotListening) else f"no proper answer ({error})"
        raise CommandFailed(f"{self._server.address}: {reason}") from None
