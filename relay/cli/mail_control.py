"""An operator's word to the relay: over its HTTP service, or, when none runs, straight to the store."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Sequence

from relay.cli.common import Refused
from relay.config.model import Config
from relay.config.units import AnyAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.store.base import Action, Selection

WITHIN_S = 30.0
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a wildcard listener answers on


class NotRunning(Exception):
    """Nobody listens on the relay's HTTP address."""


def act(config: Config, action: Action, selection: Selection) -> Sequence[str]:
    """The ids of the messages that changed. Raises Refused, StoreError."""
    try:
        return _ask(config, action, selection)
    except NotRunning:
        return asyncio.run(_act_on_store(config, action, selection))


def _ask(config: Config, action: Action, selection: Selection) -> Sequence[str]:
    headers = {"Content-Type": "application/json"}
    if config.http.token is not None:
        headers["Authorization"] = f"Bearer {config.http.token.get_secret_value()}"
    connection = _Connection(config.http.address)
    try:
        connection.request("POST", f"/api/queue/{action}", _body(selection), headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (ConnectionRefusedError, FileNotFoundError):
        raise NotRunning from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Refused(f"http {config.http.address}: no proper answer ({error})") from error
    finally:
        connection.close()
    if answer.status != 200:
        raise Refused(f"http {config.http.address}: {answer.status} {said.get('error', '')}".rstrip())
    return [str(message_id) for message_id in said["changed"]]


def _body(selection: Selection) -> str:
    if selection.ids:
        return json.dumps({"ids": selection.ids})
    return json.dumps({"lane": selection.lane} if selection.lane is not None else {"all": True})


class _Connection(http.client.HTTPConnection):
    """To a TCP address or a unix socket."""

    def __init__(self, address: AnyAddress) -> None:
        self._address = address
        super().__init__("localhost", timeout=WITHIN_S)

    def connect(self) -> None:
        match self._address:
            case TcpAddress(host, port):
                self.sock = socket.create_connection((_EVERY_ADDRESS.get(host, host), port), timeout=WITHIN_S)
            case UnixAddress(path):
                self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
                self.sock.settimeout(WITHIN_S)
                self.sock.connect(path)
            case SystemdAddress(name):
                raise Refused(f"http.address is systemd:{name}: its real address is unknown here; use the HTTP API")


async def _act_on_store(config: Config, action: Action, selection: Selection) -> Sequence[str]:
    from relay.store.several import shards
    from relay.store.sqlite import open_store

    changed: list[str] = []
    for path in (config.store, *shards(config.store)):
        store = await open_store(path, now=time.time)
        try:
            await store.hash_addresses(wanted=config.log.addresses == "hashed")
            changed += await store.act(action, selection, time.time())
        finally:
            await store.close()
    return changed
