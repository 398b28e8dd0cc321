"""Checks of each upstream: open sessions as the relay does, examine them, send QUIT. No mail is sent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

from relay.config.model import Config, Upstream
from relay.delivery.dispatch import upstreams_of
from relay.doctor import apis, ports, warm
from relay.doctor.connections import OPEN_WITHIN_S, by_proxy, check_of, close, tls
from relay.doctor.credentials import LEFT_ALONE, DoctorAccess, good_for, opened
from relay.doctor.finding import About, Finding
from relay.doctor.pace import Pace, of_smtp
from relay.doctor.pace import finding as pace_finding
from relay.doctor.sessions import AtRelay, Running, configured, running
from relay.upstream.redaction import without_credentials
from relay.upstream.results import OpenFailed, Phase
from relay.upstream.smtp.capabilities import Capabilities
from relay.upstream.smtp.connect import open_session
from relay.upstream.smtp.session import Session
from relay.upstream.smtp.transaction import EnvelopeMode
from relay.upstream.target import Target

ROUND_TRIP_WITHIN_S = 5.0

_HINTS: dict[Phase, str] = {
    "connect": "host, port, tls and proxy of the upstream, the firewall, DNS",
    "greeting": "the upstream refuses this machine: ask it why",
    "ehlo": "whether an SMTP server is behind this port, and whether it takes the relay's hostname",
    "tls": "tls (starttls or implicit) and port of the upstream, its certificate, ca_file",
    "auth": "username, password or password_file, and what the upstream's account may do",
}
_XOAUTH2_HINT = "oauth2 of the upstream, its scope, and whether SMTP AUTH is on for the mailbox"


async def check(config: Config, now: float) -> list[Finding]:
    """Ask a running relay for the sessions that it has open, then check all upstreams concurrently. `now`: seconds
    since the epoch, for the certificates."""
    of_relay = await asyncio.to_thread(running, config)
    async with opened(config) as access:
        found = await asyncio.gather(*(_upstream(name, config, now, of_relay, access) for name in config.upstreams))
    return [
        finding
        for name, findings in zip(config.upstreams, found, strict=True)
        for finding in (
            *findings,
            *apis.signatures(name, config),
            *_sessions(name, config, of_relay),
            *warm.check(name, config, _express_lanes(name, config), of_relay),
        )
    ]


async def _upstream(name: str, config: Config, now: float, of_relay: Running, access: DoctorAccess) -> list[Finding]:
    about, upstream = About("upstream", name, "upstream-connection"), config.upstreams[name]
    try:
        target = Target.of(name, upstream, config.hostname, access=access.local)
    except OSError as error:  # ssl.SSLError is one
        return [about.fail(f"no TLS context: {error.strerror or error}", "check: ca_file")]
    except ValueError as error:
        return [about.fail(f"no access token: {error}", "check: oauth2.service_account_file, ca_file")]
    found = await asyncio.gather(
        *([_smtp(target, config, now, of_relay, access)] if upstream.via != "api" else ()),
        *([_api(target, config, now, of_relay, access)] if upstream.via != "smtp" else ()),
    )
    return [finding for findings in found for finding in findings]


async def _api(target: Target, config: Config, now: float, of_relay: Running, access: DoctorAccess) -> list[Finding]:
    found, pace = await apis.check(target, access, now)
    return [*found, *_otp_time(target.name, config, pace, of_relay, api=True)]


async def _smtp(target: Target, config: Config, now: float, of_relay: Running, access: DoctorAccess) -> list[Finding]:
    name, upstream = target.name, target.config
    about = About("upstream", name)
    if upstream.auth == "xoauth2" and access.leaves_alone(upstream):
        without_login = {"auth": "password", "username": None, "password": None}
        target = Target.of(name, upstream.model_copy(update=without_login), config.hostname)
    try:
        session = await open_session(target, timeout_s=OPEN_WITHIN_S)
    except OpenFailed as error:
        return await _not_opened(about.named(check_of(error)), upstream, config.hostname, error, of_relay)
    express, mode = _express_lanes(name, config), EnvelopeMode.of(session.capabilities)
    try:
        round_trip_ms = await _round_trip(session)
        pace = None if round_trip_ms is None else of_smtp(mode, round_trip_ms, session.opening)
        return [
            _greeting(about, target.config, session, round_trip_ms),
            tls(about, upstream, session, now),
            _auth(about.named("upstream-login"), target, upstream, access, now),
            *_capabilities(about, session.capabilities, config.limits.message_size_bytes, round_trip_ms),
            *_burst(about.named("upstream-burst"), mode, upstream.sessions.depth, express=bool(express)),
            *_otp_time(name, config, pace, of_relay, api=False),
            *(await warm.tried(target, config, express) if not access.relay_runs else ()),
        ]
    finally:
        await close(session)


async def _not_opened(
    about: About, upstream: Upstream, hostname: str, error: OpenFailed, of_relay: Running
) -> list[Finding]:
    reply = without_credentials(f"{error.phase}: {error.reply.explanation}", upstream)
    place = f"{upstream.host}:{upstream.port}{by_proxy(upstream)}"
    sessions = sum(seen.open for seen in _seen(about.subject, of_relay))
    if sessions and error.from_upstream and not error.reply.permanent:
        text = f"{place}: {reply}; sessions of the running relay are open there: {sessions}"
        return [about.warn(text, "the upstream may allow no more at once: see sessions.max")]
    hint = _XOAUTH2_HINT if error.phase == "auth" and upstream.auth == "xoauth2" else _HINTS.get(error.phase, "its log")
    # A name that isn't known has no other ports either.
    may_be_blocked = error.phase == "connect" and not isinstance(error.__cause__, socket.gaierror)
    other_ports = await ports.check(about, upstream, hostname) if may_be_blocked else ()
    return [about.fail(f"{place}: {reply}", f"check: {hint}"), *other_ports]


def _otp_time(name: str, config: Config, pace: Pace | None, of_relay: Running, *, api: bool) -> Iterator[Finding]:
    """No finding where no express lane uses the upstream, or nothing was measured."""
    lanes = _express_lanes(name, config)
    if pace is not None and lanes:
        closes = any(seen.warm is not None and not seen.warm.sessions for seen in _seen(name, of_relay))
        kept = config.upstreams[name].sessions.warm != 0 and not closes
        yield pace_finding(About("upstream", name), config, pace, lanes, api=api, kept=kept)


def _seen(name: str, of_relay: Running) -> list[AtRelay]:
    """The upstream, as each lane of the running relay sees it."""
    return [seen for (_, other), seen in of_relay.items() if other == name]


async def _round_trip(session: Session) -> float | None:
    """Milliseconds from a command (RSET) to its reply; None without a proper reply."""
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


def _greeting(about: About, upstream: Upstream, session: Session, round_trip_ms: float | None) -> Finding:
    about, opening = about.named("upstream-greeting"), session.opening
    place = f"{upstream.host}:{upstream.port}{by_proxy(upstream)}"
    text = f"greeting: {place} answers; connect, greeting and EHLO {opening.connect:.0f} ms"
    if upstream.tls == "starttls":
        text += f", STARTTLS {opening.tls:.0f} ms"
    if _authenticates(upstream):
        text += f", AUTH {opening.auth:.0f} ms"
    if round_trip_ms is None:
        text += "; then RSET was not answered with 250"
        return about.fail(text, "a session that can't be reset can't be reused: ask the upstream")
    return about.ok(f"{text}; then a command and its reply {round_trip_ms:.1f} ms")


def _authenticates(upstream: Upstream) -> bool:
    return upstream.auth == "xoauth2" or (upstream.username is not None and upstream.password is not None)


def _auth(about: About, target: Target, upstream: Upstream, access: DoctorAccess, now: float) -> Finding:
    """The session is open, so the credentials were accepted. `target`: as it was opened, of `upstream`."""
    if target.tokens is not None:
        return about.ok(f"AUTH: XOAUTH2 accepted, with an access token{good_for(target.tokens.expires_at, now)}")
    if upstream.auth == "xoauth2" and access.leaves_alone(upstream):
        return about.ok(f"AUTH: XOAUTH2 {LEFT_ALONE}")
    text = "AUTH: accepted" if _authenticates(target.config) else "AUTH: no credentials configured, none tried"
    return about.ok(text)


def _capabilities(
    about: About, offered: Capabilities, message_size_bytes: int, round_trip_ms: float | None
) -> Iterator[Finding]:
    about = about.named("upstream-capabilities")
    size = f"SIZE {offered.size_bytes}" if offered.size_bytes else "SIZE"
    extensions = {
        "PIPELINING": offered.pipelining,
        "CHUNKING": offered.chunking,
        size: offered.size,
        "8BITMIME": offered.eightbitmime,
        "SMTPUTF8": offered.smtputf8,
        "DSN": offered.dsn,
        "DELIVERBY": offered.deliverby,
        "MT-PRIORITY": offered.mt_priority,
    }
    names = [name for name, is_offered in extensions.items() if is_offered]
    yield about.ok(f"offers {', '.join(names) or 'none of the extensions that the relay uses'}")
    if not offered.pipelining:  # CHUNKING alone saves none: one command at a time
        cost = "" if round_trip_ms is None else f" (4 × {round_trip_ms:.1f} = {4 * round_trip_ms:.1f} ms)"
        text = f"no PIPELINING: a code needs 4 round trips{cost}; with it 2, with CHUNKING as well 1"
        yield about.warn(text, "prefer an upstream that has it for codes")
    if 0 < offered.size_bytes < message_size_bytes:
        text = f"SIZE {offered.size_bytes} is less than the {message_size_bytes} bytes that limits.message_size takes"
        yield about.warn(text, "lower limits.message_size, or larger mail will bounce")
    if not offered.eightbitmime:
        text = "no 8BITMIME: mail with octets beyond ASCII is re-encoded before it is sent"
        yield about.warn(text, "have the apps send 7-bit (quoted-printable, base64)")


def _burst(about: About, mode: EnvelopeMode, depth: int, *, express: bool) -> Iterator[Finding]:
    """How one session carries several codes at once. No finding where no express lane uses the upstream."""
    if not express:
        return
    if depth == 1 or not mode.pipelined:
        why = "sessions.depth: 1" if depth == 1 else "no PIPELINING"
        yield about.ok(f"burst: a session carries one message at a time ({why})")
        return
    how = "the next envelope behind the content of the message before (PIPELINING)"
    if mode.chunked:
        how = "whole messages behind each other (PIPELINING and CHUNKING)"
    yield about.ok(f"burst: a session carries up to {depth} messages (sessions.depth), {how}")


def _express_lanes(name: str, config: Config) -> list[str]:
    return [lane for lane, keys in config.lanes.items() if keys.express and name in upstreams_of(config, lane)]


def _sessions(name: str, config: Config, of_relay: Running) -> Iterator[Finding]:
    """How many sessions each express lane keeps open there."""
    about, sessions = About("upstream", name, "upstream-sessions"), config.upstreams[name].sessions
    for lane in _express_lanes(name, config):
        text = f"sessions: lane {lane} keeps {configured(sessions)}"
        seen = of_relay.get((lane, name))
        at_relay = seen.warm if seen is not None else None
        if seen is not None and seen.state == "down":
            text += f"; for the running relay the upstream is down, and {seen.open} are open"
        elif at_relay is not None:
            text += f"; the running relay {at_relay.sessions} ({at_relay.reason})"
        if at_relay is None or at_relay.sessions or sessions.warm == 0:
            yield about.ok(text)
        else:
            hint = (
                "each code waits until a session is open: ask the upstream for a longer idle time, or put another first"
            )
            yield about.warn(text, hint)
