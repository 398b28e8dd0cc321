"""Which other ports of a provider answer, where the configured one can't be connected to: networks block some."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from relay.config.model import Upstream
from relay.doctor.connections import close
from relay.doctor.finding import About, Finding
from relay.doctor.wording import listed
from relay.providers.registry import find_preset, presets, provider_of
from relay.upstream.results import OpenFailed
from relay.upstream.smtp.connect import open_session
from relay.upstream.target import Target

WITHIN_S = 5.0
Port = tuple[int, str]
"""a port and its kind of TLS"""


def other_ports(upstream: Upstream) -> tuple[Port, ...]:
    """Ports that the upstream's provider offers besides the configured one, in the order in which to try them."""
    name = preset_name(upstream)
    preset = find_preset(name) if name is not None else None
    if preset is None:
        return ()
    offered = ((int(preset.keys["port"]), str(preset.keys["tls"])), *preset.other_ports)
    return tuple(one for one in dict.fromkeys(offered) if one[0] != upstream.port)


def preset_name(upstream: Upstream) -> str | None:
    """The name of its preset, also where only the preset's host is written; None: none is known."""
    if upstream.preset is not None:
        return upstream.preset
    return next((name for name, _, preset in presets() if preset.keys.get("host") == upstream.host.lower()), None)


async def check(about: About, upstream: Upstream, hostname: str) -> list[Finding]:
    """What the provider's other ports do; nothing where none is known. No login is tried there."""
    ports = other_ports(upstream)
    answers = await asyncio.gather(*(_answers(about.subject, upstream, hostname, port) for port in ports))
    return [_finding(about.named("upstream-ports"), upstream, dict(zip(ports, answers, strict=True)))] if ports else []


def _finding(about: About, upstream: Upstream, does: Mapping[Port, bool]) -> Finding:
    working = [port for port, answers in does.items() if answers]
    if not working:
        numbers = listed([upstream.port, *(number for number, _ in does)])
        text = f"none of the provider's ports answers from here: {numbers}; the network may block them"
        return about.fail(text, _way_out(upstream))
    names = listed([f"{number} ({tls})" for number, tls in working])
    number, tls = working[0]
    others = f"port {names} answers" if len(working) == 1 else f"ports {names} answer"
    change = "" if tls == upstream.tls else f" and tls: {tls}"
    text = f"port {upstream.port} doesn't answer from here, but the provider's {others}"
    return about.warn(text, f"set port: {number}{change}")


def _way_out(upstream: Upstream) -> str:
    """What helps where no port for mail does."""
    name = preset_name(upstream)
    provider = provider_of(name) if name is not None else None
    opened = "have the network's operator open one"
    if provider is None or provider.api is None:
        return f"{opened}, or set a proxy"
    if upstream.via == "auto":
        return f"the HTTP API has mail meanwhile (via: auto); {opened}, or set via: api"
    return f"set via: api, which goes by HTTPS, or {opened}"


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
