"""Whether a relay runs on the store, and whether it takes mail."""

from __future__ import annotations

import asyncio
from typing import Any

import aiohttp

from relay.config.model import Config
from relay.config.network import SystemdAddress, TcpAddress, UnixAddress
from relay.doctor.finding import Finding
from relay.store.base import StoreError
from relay.store.sqlite.files import holder

READY_WITHIN_S = 5.0
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what it listens on, not where we do)


async def check(config: Config) -> list[Finding]:
    subject = str(config.store)
    try:
        pid = await asyncio.to_thread(holder, config.store)
    except StoreError as error:
        hint = "run doctor as the relay's user"
        return [Finding("relay", subject, "unknown", f"whether a relay runs isn't known: {error}", hint)]
    if pid is None:
        return [Finding("relay", subject, "ok", "no relay runs on this store")]
    return [Finding("relay", subject, "ok", f"a relay runs on this store (pid {pid})"), await _ready(config)]


async def _ready(config: Config) -> Finding:
    address = config.http.address
    subject = f"{address} /readyz"
    connector: aiohttp.BaseConnector
    match address:
        case SystemdAddress():
            text = "not asked: its socket is systemd's, and its address isn't in the configuration"
            return Finding("relay", subject, "unknown", text, "curl http://ADDRESS/readyz")
        case TcpAddress(port=0):
            text = "not asked: the port is chosen at the start (0)"
            return Finding("relay", subject, "unknown", text, "give http.address a port")
        case TcpAddress(host, port):
            connector = aiohttp.TCPConnector()
            base = f"http://{TcpAddress(_ANY_HOST.get(host, host), port)}"
        case UnixAddress(path):
            connector, base = aiohttp.UnixConnector(path), "http://localhost"
    timeout = aiohttp.ClientTimeout(total=READY_WITHIN_S)
    try:
        async with (
            aiohttp.ClientSession(connector=connector, timeout=timeout) as client,
            client.get(f"{base}/readyz", allow_redirects=False) as answer,
        ):
            return _answered(subject, answer.status, await answer.json(content_type=None))
    except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
        said = "no answer in time" if isinstance(error, TimeoutError) else "no answer that can be read"
        text = f"{said}: the relay that runs may have another configuration"
        return Finding("relay", subject, "warn", text, "check: http.address, and reload or restart the relay")


def _answered(subject: str, status: int, document: Any) -> Finding:
    if status == 200:
        return Finding("relay", subject, "ok", "mail is taken")
    reasons = document.get("reasons") if isinstance(document, dict) else None
    said = ", ".join(map(str, reasons)) if isinstance(reasons, list) and reasons else f"HTTP {status}"
    return Finding("relay", subject, "fail", f"no mail is taken: {said}", "see the relay's log")
