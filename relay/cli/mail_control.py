"""An operator's word to the relay: over its HTTP service, or, when none runs, straight to the store."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
import time
from collections.abc import Sequence
from typing import NamedTuple

from relay.cli.common import Refused
from relay.config.network import AnyAddress, SystemdAddress, TcpAddress, UnixAddress
from relay.config.partial import Control
from relay.store.model import Action, Selection

WITHIN_S = 30.0
AS_STARTED = "If `http` was changed in the file: the relay has the one that it was started with until a restart"
_EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - what a wildcard listener answers on


class Acted(NamedTuple):
    """What an action did."""

    changed: Sequence[str]
    """ids of messages"""
    unknown: Sequence[str] = ()
    """ids that were given and are no message's"""
    left: int = 0
    """ambiguous recipients that a retry passed over"""


class NotRunning(Exception):
    """Nobody listens on the relay's HTTP address."""


def act(control: Control, action: Action, selection: Selection) -> Acted:
    """Raises Refused, StoreError."""
    if control.http is not None:
        try:
            return _ask(control, control.http, action, selection)
        except NotRunning:
            pass
    _refuse_beside_a_relay(control)
    return _seen(control, action, selection, asyncio.run(_act_on_store(control, action, selection)))


def _refuse_beside_a_relay(control: Control) -> None:
    """The store is a running relay's alone. Raises Refused, StoreError."""
    from relay.store.sqlite.files import holder

    pid = holder(control.store)
    if pid is None:
        return
    used = f"{control.store}: in use by another relay (pid {pid})"
    if control.http is None:
        raise Refused(f"{used}, which can't be asked: {control.places.of('http')}: see `otp-relay check`")
    where = control.places.of("http", "address")
    raise Refused(f"{used}, which doesn't answer at {control.http} ({where}). {AS_STARTED}")


def _ask(control: Control, address: AnyAddress, action: Action, selection: Selection) -> Acted:
    headers = {"Content-Type": "application/json"}
    if control.token is not None:
        headers["Authorization"] = f"Bearer {control.token}"
    connection = _Connection(address)
    try:
        connection.request("POST", f"/api/queue/{action}", _body(selection), headers)
        answer = connection.getresponse()
        said = json.loads(answer.read())
    except (ConnectionRefusedError, FileNotFoundError):
        raise NotRunning from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Refused(f"http {address}: no proper answer ({error})") from error
    finally:
        connection.close()
    if answer.status != 200:
        refusal = f"http {address}: {answer.status} {said.get('error', '')}".rstrip()
        if answer.status == 401:
            refusal += f" ({control.places.of('http', 'token')}). {AS_STARTED}"
        raise Refused(refusal)
    changed, unknown = ([str(one) for one in said.get(key, ())] for key in ("changed", "unknown"))
    return Acted(changed, unknown, int(said.get("left", 0)))


def _body(selection: Selection) -> str:
    body: dict[str, object] = {"ambiguous": True} if selection.ambiguous else {}
    if selection.ids:
        return json.dumps({**body, "ids": selection.ids})
    return json.dumps({**body, "lane": selection.lane} if selection.lane is not None else {**body, "all": True})


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


def _seen(control: Control, action: Action, selection: Selection, changed: Sequence[str]) -> Acted:
    """With what there is to say beside it; as the HTTP service has it."""
    from relay.store.merge import open_offline
    from relay.web.query import leaves_ambiguous, left, unchanged

    with open_offline(control.store) as store:
        unknown = [one for one in unchanged(selection, changed) if store.get(one) is None]
        passed = left(store.counts(), selection) if leaves_ambiguous(action, selection) else 0
    return Acted(changed, unknown, passed)


async def _act_on_store(control: Control, action: Action, selection: Selection) -> Sequence[str]:
    from relay.store.merge import open_offline, shards
    from relay.store.sqlite.store import open_store

    with open_offline(control.store):
        pass  # where there is no store, none is made
    changed: list[str] = []
    for path in (control.store, *shards(control.store)):
        store = await open_store(path, now=time.time)
        try:
            await store.hash_addresses(wanted=control.hashed)
            changed += await store.act(action, selection, time.time())
        finally:
            await store.close()
    return changed
