"""Each upstream: a session is opened as the relay opens it, looked at, and left with QUIT. No mail is sent."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
import time
from collections.abc import Iterator

from relay.config.model import Config, Upstream
from relay.doctor.finding import Finding
from relay.upstream.results import OpenFailed, Phase
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.connect import Target, open_session
from relay.upstream.smtp.redaction import without_credentials
from relay.upstream.smtp.session import Session

OPEN_WITHIN_S = 10.0
ROUND_TRIP_WITHIN_S = 5.0
QUIT_WITHIN_S = 2.0
CERTIFICATE_DAYS = 14

_HINTS: dict[Phase, str] = {
    "connect": "host, port and tls of the upstream, the firewall, DNS",
    "greeting": "the upstream doesn't want this machine: ask it why",
    "ehlo": "whether an SMTP server is behind this port, and whether it takes the relay's hostname",
    "tls": "tls (starttls or implicit) and port of the upstream, its certificate, ca_file",
    "auth": "username, password or password_file, and what the upstream's account may do",
}


async def check(config: Config, now: float) -> list[Finding]:
    """All upstreams beside each other. `now`: seconds since the epoch, for the certificates."""
    found = await asyncio.gather(*(_upstream(name, one, config, now) for name, one in config.upstreams.items()))
    return [finding for findings in found for finding in findings]


async def _upstream(name: str, upstream: Upstream, config: Config, now: float) -> list[Finding]:
    try:
        target = Target.of(name, upstream, config.hostname)
    except OSError as error:  # ssl.SSLError is one
        return [Finding("upstream", name, "fail", f"no TLS context: {error.strerror or error}", "check: ca_file")]
    try:
        session = await open_session(target, timeout_s=OPEN_WITHIN_S)
    except OpenFailed as error:
        said = without_credentials(f"{error.phase}: {error.reply.words}", upstream)
        place = f"{upstream.host}:{upstream.port}"
        return [Finding("upstream", name, "fail", f"{place}: {said}", f"check: {_HINTS.get(error.phase, 'its log')}")]
    try:
        round_trip_ms = await _round_trip(session)
        return [
            _greeting(name, upstream, session, round_trip_ms),
            _tls(name, session, now),
            _auth(name, upstream),
            *_capabilities(name, session.capabilities, config.limits.message_size_bytes, round_trip_ms),
        ]
    finally:
        await _leave(session)


async def _round_trip(session: Session) -> float | None:
    """Milliseconds from a command (RSET) to its answer; None when there was none."""
    answered = asyncio.Event()
    session.on_free = session.on_closed = lambda _: answered.set()
    began = time.monotonic()
    session.reset()
    try:
        async with asyncio.timeout(ROUND_TRIP_WITHIN_S):
            await answered.wait()
    except TimeoutError:
        return None
    return (time.monotonic() - began) * 1000.0 if session.usable else None


async def _leave(session: Session) -> None:
    closed = asyncio.Event()
    session.on_closed = lambda _: closed.set()
    if session.state == "closed":
        return
    session.quit()
    try:
        async with asyncio.timeout(QUIT_WITHIN_S):
            await closed.wait()
    except TimeoutError:
        session.abort()


def _greeting(name: str, upstream: Upstream, session: Session, round_trip_ms: float | None) -> Finding:
    opening = session.opening
    text = f"greeting: {upstream.host}:{upstream.port} answers; connect, greeting and EHLO {opening.connect:.0f} ms"
    if upstream.tls == "starttls":
        text += f", STARTTLS {opening.tls:.0f} ms"
    if _authenticates(upstream):
        text += f", AUTH {opening.auth:.0f} ms"
    if round_trip_ms is None:
        text += "; then RSET was not answered with 250"
        return Finding("upstream", name, "fail", text, "a session that can't be reset can't be kept: ask the upstream")
    return Finding("upstream", name, "ok", f"{text}; then a command and its answer {round_trip_ms:.1f} ms")


def _tls(name: str, session: Session, now: float) -> Finding:
    secured = session.transport_info("ssl_object")
    if secured is None:
        peer = session.transport_info("peername")
        if isinstance(peer, tuple) and ipaddress.ip_address(str(peer[0]).split("%")[0]).is_loopback:
            return Finding("upstream", name, "ok", "TLS: none, to this machine itself")
        hint = "set tls: starttls or implicit"
        return Finding("upstream", name, "warn", "TLS: none, mail and codes can be read on the way", hint)
    cipher = secured.cipher()
    text = f"TLS: {secured.version()} {cipher[0] if cipher else 'of an unknown cipher'}"
    certificate = secured.getpeercert() or {}
    if "notAfter" not in certificate:
        return Finding("upstream", name, "unknown", f"{text}, no date in its certificate", "look at the certificate")
    days = int((ssl.cert_time_to_seconds(certificate["notAfter"]) - now) // 86400)
    text += f", certificate good for {days} day{'' if days == 1 else 's'}"
    if days < CERTIFICATE_DAYS:
        hint = "the upstream has to renew it, or every session is refused from then on"
        return Finding("upstream", name, "warn", text, hint)
    return Finding("upstream", name, "ok", text)


def _authenticates(upstream: Upstream) -> bool:
    return upstream.username is not None and upstream.password is not None


def _auth(name: str, upstream: Upstream) -> Finding:
    """The session is open, so what was asked for was granted."""
    text = "AUTH: accepted" if _authenticates(upstream) else "AUTH: no credentials configured, none tried"
    return Finding("upstream", name, "ok", text)


def _capabilities(
    name: str, offered: Capabilities, message_size_bytes: int, round_trip_ms: float | None
) -> Iterator[Finding]:
    size = f"SIZE {offered.size_bytes}" if offered.size_bytes else "SIZE"
    all_of_them = {
        "PIPELINING": offered.pipelining,
        "CHUNKING": offered.chunking,
        size: offered.size,
        "8BITMIME": offered.eightbitmime,
        "SMTPUTF8": offered.smtputf8,
        "DSN": offered.dsn,
        "DELIVERBY": offered.deliverby,
        "MT-PRIORITY": offered.mt_priority,
    }
    names = [word for word, there in all_of_them.items() if there]
    yield Finding("upstream", name, "ok", f"offers {', '.join(names) or 'none of the extensions that the relay uses'}")
    if not offered.pipelining and not offered.chunking:
        cost = "" if round_trip_ms is None else f" (4 × {round_trip_ms:.1f} = {4 * round_trip_ms:.1f} ms)"
        text = f"neither PIPELINING nor CHUNKING: a code pays 4 round trips{cost} where PIPELINING takes 2, both 1"
        yield Finding("upstream", name, "warn", text, "prefer an upstream that has them for codes")
    if 0 < offered.size_bytes < message_size_bytes:
        text = f"SIZE {offered.size_bytes} is less than the {message_size_bytes} bytes that limits.message_size takes"
        yield Finding("upstream", name, "warn", text, "lower limits.message_size, or larger mail will bounce")
    if not offered.eightbitmime:
        text = "no 8BITMIME: mail with octets beyond ASCII can't be handed over as it is"
        yield Finding("upstream", name, "warn", text, "have the apps send 7-bit (quoted-printable, base64)")
