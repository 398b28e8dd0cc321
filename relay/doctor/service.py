"""Checks whether a relay runs on the store, and whether it accepts mail."""

from __future__ import annotations

import asyncio
from functools import partial

from relay.config.model import Config
from relay.config.network import SystemdAddress, TcpAddress
from relay.doctor.finding import About, Finding
from relay.store.base import StoreError
from relay.store.sqlite.files import holder
from relay.web.client import NoResponse, NotListening, Response, request

READY_WITHIN_S = 5.0


async def check(config: Config) -> list[Finding]:
    """Check the store's lock and, if a relay runs, its /readyz."""
    about = About("relay", str(config.store))
    try:
        pid = await asyncio.to_thread(holder, config.store)
    except StoreError as error:
        return [about.unknown(f"whether a relay runs isn't known: {error}", "run doctor as the relay's user")]
    if pid is None:
        return [about.ok("no relay runs on this store")]
    return [about.ok(f"a relay runs on this store (pid {pid})"), await _ready(config)]


async def _ready(config: Config) -> Finding:
    address = config.http.address
    about = About("relay", f"{address} /readyz")
    if isinstance(address, SystemdAddress):
        text = "not asked: its socket is systemd's, and its address isn't in the configuration"
        return about.unknown(text, "curl http://ADDRESS/readyz")
    if isinstance(address, TcpAddress) and address.port == 0:
        return about.unknown("not asked: the port is chosen at the start (0)", "give http.address a port")
    try:
        response = await asyncio.to_thread(partial(request, address, "GET", "/readyz", within_s=READY_WITHIN_S))
    except (NotListening, NoResponse) as error:
        text = (
            f"no proper answer ({error or 'nothing listens there'}): the running relay may have another configuration"
        )
        return about.warn(text, "check: http.address, and reload or restart the relay")
    return _readiness(about, response)


def _readiness(about: About, response: Response) -> Finding:
    if response.status == 200:
        return about.ok("mail is accepted")
    reasons = response.document.get("reasons")
    text = ", ".join(map(str, reasons)) if isinstance(reasons, list) and reasons else f"HTTP {response.status}"
    return about.fail(f"no mail is accepted: {text}", "see the relay's log")
