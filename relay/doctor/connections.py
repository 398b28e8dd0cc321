"""What the checks of SMTP servers and of HTTP APIs have in common: TLS, certificate, proxy, the end of a connection."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from urllib.parse import urlsplit

from relay.config.model import Upstream
from relay.doctor.certificates import WARN_DAYS, good_for
from relay.doctor.finding import About, Finding
from relay.upstream.results import OpenFailed
from relay.upstream.sessions.kept import KeptSession

OPEN_WITHIN_S = 10.0
CLOSE_WITHIN_S = 2.0


def check_of(failed: OpenFailed) -> str:
    """The id of the check that says so."""
    return {"tls": "upstream-certificate", "auth": "upstream-login"}.get(failed.phase, "upstream-connection")


def by_proxy(upstream: Upstream) -> str:
    """` by proxy socks5://proxy.example.com:1080`, without its credentials; '' without one."""
    if upstream.proxy is None:
        return ""
    parts = urlsplit(upstream.proxy.get_secret_value())
    host = f"[{parts.hostname}]" if ":" in (parts.hostname or "") else parts.hostname
    return f" by proxy {parts.scheme}://{host}:{parts.port}"


def tls(about: About, upstream: Upstream, connection: KeptSession, now: float, *, prefix: str = "") -> Finding:
    """TLS and the days that its certificate is good for. `now`: seconds since the epoch. `prefix`: of the text."""
    about = about.named("upstream-certificate")
    secured = connection.transport_info("ssl_object")
    if secured is None:
        peer = connection.transport_info("peername")
        # The peer of a connection by a proxy is the proxy.
        is_local = upstream.proxy is None and isinstance(peer, tuple) and _is_loopback(str(peer[0]))
        if is_local:
            return about.ok(f"{prefix}TLS: none, to this machine itself")
        hint = "set tls: starttls or implicit"
        return about.warn(f"{prefix}TLS: none, others can read mail and codes on the network", hint)
    cipher = secured.cipher()
    text = f"{prefix}TLS: {secured.version()} {cipher[0] if cipher else 'of an unknown cipher'}"
    certificate = secured.getpeercert() or {}
    if "notAfter" not in certificate:
        return about.unknown(f"{text}, no date in its certificate", "look at the certificate")
    days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - now) // 86400)
    if days < 0:
        return about.fail(f"{text}, certificate expired", "the upstream has to renew it")
    text += f", {good_for(days)}"
    if days < WARN_DAYS:
        hint = "the upstream has to renew it, or every session is refused from then on"
        return about.warn(text, hint)
    return about.ok(text)


def _is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.split("%")[0]).is_loopback


async def close(connection: KeptSession) -> None:
    """Close it as its protocol asks for; at once where the other side doesn't do its part in time."""
    closed = asyncio.Event()
    connection.on_closed = lambda _: closed.set()
    if connection.state == "closed":
        return
    connection.quit()
    try:
        async with asyncio.timeout(CLOSE_WITHIN_S):
            await closed.wait()
    except TimeoutError:
        connection.abort()
