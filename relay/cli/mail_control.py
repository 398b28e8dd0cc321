"""Carry out what a command asks for: over the HTTP service of the running relay; without one, on the store itself."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

from relay.cli.common import CommandFailed
from relay.cli.source import UNAUTHORIZED, Server, contact, token_hint
from relay.config.partial import Control
from relay.store.model import Action, Selection
from relay.web.client import NoResponse, NotListening, request

WITHIN_S = 30.0
NEEDS_RESTART = "If `http` was changed in the file: the relay has the one that it was started with until a restart"


class ActionResult(NamedTuple):
    """The effects of an action."""

    changed: Sequence[str]
    """ids of messages"""
    unknown: Sequence[str] = ()
    """ids of the selection that are no message's"""
    left: int = 0
    """ambiguous recipients that a retry left as they are"""


def act(control: Control | Server, action: Action, selection: Selection) -> ActionResult:
    """Raises CommandFailed, StoreError."""
    try:
        return _act_over_http(control, action, selection)
    except NotListening:
        control = at_hand(control)
    check_not_in_use(control)
    changed = asyncio.run(_act_on_store(control, action, selection))
    return _result(control, action, selection, changed)


def check_not_in_use(control: Control) -> None:
    """The store belongs to a running relay alone. Raises CommandFailed, StoreError."""
    from relay.store.sqlite.files import holder

    pid = holder(control.store)
    if pid is None:
        return
    used = f"{control.store}: in use by another relay (pid {pid})"
    if control.http is None:
        raise CommandFailed(f"{used}, which can't be asked: {control.places.of('http')}: see `otp-relay check`")
    where = control.places.of("http", "address")
    raise CommandFailed(f"{used}, which doesn't answer at {control.http} ({where}). {NEEDS_RESTART}")


def at_hand(control: Control | Server) -> Control:
    """Where no relay listens: what the files are changed by. Raises CommandFailed for a relay elsewhere."""
    if isinstance(control, Server):
        raise CommandFailed(f"{control.address}: nothing listens there")
    return control


def _act_over_http(control: Control | Server, action: Action, selection: Selection) -> ActionResult:
    """Raises NotListening, CommandFailed."""
    document = ask_relay(control, "POST", f"/api/queue/{action}", _body(selection))
    changed, unknown = ([str(one) for one in document.get(key, ())] for key in ("changed", "unknown"))
    return ActionResult(changed, unknown, int(document.get("left", 0)))


def ask_relay(
    control: Control | Server, method: str, path: str, body: object = None, within_s: float = WITHIN_S
) -> dict[str, Any]:
    """The JSON document that the running relay answers. `within_s`: see `web.client.request`. Raises NotListening (none
    runs, or it has no known address), CommandFailed."""
    address, token = contact(control)
    if address is None:
        raise NotListening
    try:
        response = request(address, method, path, body, token=token, within_s=within_s)
    except NoResponse as error:
        raise CommandFailed(f"http {address}: no proper answer ({error})") from error
    except ValueError as error:
        raise CommandFailed(f"http.address: {error}; use the HTTP API") from error
    if response.status == 404:
        raise CommandFailed(response.error or "not found")
    if response.status != 200:
        refusal = f"http {address}: {response.status} {response.error}".rstrip() + token_hint(control, response.status)
        if response.status == UNAUTHORIZED and not isinstance(control, Server):
            refusal += f". {NEEDS_RESTART}"
        raise CommandFailed(refusal)
    return response.document


def _body(selection: Selection) -> dict[str, object]:
    body: dict[str, object] = {"ambiguous": True} if selection.ambiguous else {}
    if selection.ids:
        return {**body, "ids": selection.ids}
    return {**body, "lane": selection.lane} if selection.lane is not None else {**body, "all": True}


def _result(control: Control, action: Action, selection: Selection, changed: Sequence[str]) -> ActionResult:
    """The result of an action on the store, as the HTTP service reports it."""
    from relay.store.merge import open_offline
    from relay.web.query import ambiguous_left, unchanged_ids

    with open_offline(control.store) as store:
        unknown = [one for one in unchanged_ids(selection, changed) if store.get(one) is None]
        left = ambiguous_left(action, selection, store.counts())
    return ActionResult(changed, unknown, left or 0)


async def _act_on_store(control: Control, action: Action, selection: Selection) -> Sequence[str]:
    from relay.store.merge import open_offline, shards
    from relay.store.sqlite.store import open_store

    with open_offline(control.store) as reader:  # raises StoreError if there is no store; none is made
        if selection.ids:  # the parts of a split message may be in several files
            selection = selection._replace(ids=tuple(reader.with_parts(selection.ids)))
    changed: list[str] = []
    for path in (control.store, *shards(control.store)):
        store = await open_store(path, now=time.time)
        try:
            await store.hash_addresses(wanted=control.hashed)
            changed += await store.act(action, selection, time.time())
        finally:
            await store.close()
    return list(dict.fromkeys(changed))
