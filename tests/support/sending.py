"""The app's side of `POST /api/send`: requests over TCP or a unix socket, and what the relay answers.

answer = await send(relay.http_address, {"from": "a@example.com", "to": "b@example.net", "text": "hi"})
assert answer.status == 202
"""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

WITHIN_S = 30.0


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        return json.loads(self.body)

    @property
    def id(self) -> str:
        """Of a message that was taken."""
        assert self.status == 202, (self.status, self.body)
        return str(self.document["id"])

    @property
    def error(self) -> tuple[int, str]:
        """Status and code of a refusal, whose form is the contract's."""
        assert set(self.document) == {"error"}, self.body
        found = self.document["error"]
        assert set(found) == {"code", "message"}
        assert len(found["message"].split()) >= 3
        return self.status, found["code"]

    @property
    def message(self) -> str:
        return str(self.document["error"]["message"])


async def send(
    place: str, document: object, headers: Mapping[str, str] | None = None, *, method: str = "POST"
) -> Reply:
    """A JSON request; `document`: bytes are sent as they are. `place`: `host:port` or the path of a unix socket."""
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return await ask(place, method, "/api/send", body, {"Content-Type": "application/json", **(headers or {})})


async def send_whole(
    place: str, content: bytes, headers: Mapping[str, str] | None = None, **parameters: str | list[str]
) -> Reply:
    """A request with a whole message; `from_` is the parameter `from`."""
    query = urlencode({name.rstrip("_"): value for name, value in parameters.items()}, doseq=True)
    return await ask(
        place, "POST", f"/api/send?{query}", content, {"Content-Type": "message/rfc822", **(headers or {})}
    )


async def ask(place: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
    return await asyncio.to_thread(_ask, place, method, path, body, headers)


def _ask(place: str, method: str, path: str, body: bytes | None, headers: Mapping[str, str]) -> Reply:
    connection = _Connection(place)
    try:
        # The relay may have answered before the body's end.
        with suppress(BrokenPipeError, ConnectionResetError):
            connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Reply(response.status, found, response.read())
    finally:
        connection.close()


class _Connection(http.client.HTTPConnection):
    def __init__(self, place: str) -> None:
        self._path = place if place.startswith("/") else None
        super().__init__("localhost" if self._path else place, timeout=WITHIN_S)

    def connect(self) -> None:
        if self._path is None:
            super().connect()
            return
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
