"""Which other ports of a provider answer, where the configured one can't be connected to: networks block some."""

from __future__ import annotations

import asyncio

from relay.config.model import Upstream
from relay.doctor.connections import close
from relay.providers.registry import find_preset
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.connect import open_session
from relay.upstream.target import Target

WITHIN_S = 5.0
Port = tuple[int, str]
"""a port and its kind of TLS"""


def other_ports(upstream: Upstream) -> tuple[Port, ...]:
    """Ports that the upstream's provider offers besides the configured one, in the order in which to try them."""
    preset = find_preset(upstream.preset) if upstream.preset is not None else None
    if preset is None:
        return ()
    offered = ((int(preset.keys["port"]), str(preset.keys["tls"])), *preset.other_ports)
    return tuple(one for one in dict.fromkeys(offered) if one[0] != upstream.port)


async def remark(name: str, upstream: Upstream, hostname: str) -> str:
    """What the other ports do, as the end of a sentence; '' where there are none. No login is tried there."""
    ports = other_ports(upstream)
    answers = await asyncio.gather(*(_answers(name, upstream, hostname, port) for port in ports))
    for (number, tls), does in zip(ports, answers, strict=True):
        if does:
            change = "" if tls == upstream.tls else f", tls: {tls}"
            return f"; port {number} ({tls}) answers: set port: {number}{change}"
    return f"; nor does port {', '.join(str(number) for number, _ in ports)} answer" if ports else ""


async def _answers(name: str, upstream: Upstream, hostname: str, port: Port) -> bool:
    """Whether a session can be opened there."""
    number, tls = port
    without_login = {"auth": "password", "username": None, "password": None, "oauth2": None}
    config = upstream.model_copy(update={"via": "smtp", "port": number, "tls": tls, **without_login})
    try:
        session = await open_session(Target.of(name, config, hostname), timeout_s=WITHIN_S)
    except (OpenFailed, OSError):
        return False
    await close(session)
    return True
