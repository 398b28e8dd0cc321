"""Checks of an upstream's HTTP API: connection, TLS, credentials, and what DMARC rests on. No request is made there:
each would be a mail."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from relay.config.model import Config, Upstream
from relay.delivery.dispatch import upstreams_of
from relay.doctor.connections import OPEN_WITHIN_S, by_proxy, check_of, close, tls
from relay.doctor.credentials import LEFT_ALONE, DoctorAccess, good_for
from relay.doctor.finding import About, Finding
from relay.doctor.pace import Pace, of_api
from relay.providers.apis.registry import api_named
from relay.upstream.http.connect import open_connection
from relay.upstream.http.upstream import finish_of
from relay.upstream.results import OpenFailed
from relay.upstream.target import ApiEndpoint, Target

_HINTS = {
    "connect": "api.url of the upstream, its proxy, the firewall, DNS",
    "tls": "api.url of the upstream, its certificate, ca_file",
}
_CREDENTIALS = {
    "token": "oauth2 of the upstream: grant, token_url, client_id, client_secret, scope",
    "aws": "the credentials of this machine, or set api.access_key_id and api.secret_access_key",
}


async def check(target: Target, access: DoctorAccess, now: float) -> tuple[list[Finding], Pace | None]:
    """Connect, and fetch the credentials that are fetched. Also the time that a code takes; None: no connection. `now`:
    seconds since the epoch."""
    about, upstream = About("upstream", target.name), target.config
    if target.api is None:
        raise AssertionError("an upstream without its API")
    found, pace = await _connection(about, upstream, target.api, now)
    return [*found, await _credentials(about.named("upstream-login"), upstream, target.api, access, now)], pace


async def _connection(
    about: About, upstream: Upstream, api: ApiEndpoint, now: float
) -> tuple[list[Finding], Pace | None]:
    about = about.named("upstream-connection")
    place = f"{api.server.where.host}:{api.server.where.port}{by_proxy(upstream)}"
    try:
        connection = await open_connection(api.server, timeout_s=OPEN_WITHIN_S)
    except OpenFailed as error:
        hint = f"check: {_HINTS.get(error.phase, 'api.url of the upstream')}"
        return [
            about.named(check_of(error)).fail(f"API: {place}: {error.phase}: {error.reply.explanation}", hint)
        ], None
    try:
        text = f"API: {place} answers; connect {connection.opening.connect:.0f} ms"
        if api.server.tls_context is not None:
            text += f", TLS {connection.opening.tls:.0f} ms"
        pace = of_api(connection.opening, secured=api.server.tls_context is not None)
        return [about.ok(text), tls(about, upstream, connection, now, prefix="API: ")], pace
    finally:
        await close(connection)


async def _credentials(about: About, upstream: Upstream, api: ApiEndpoint, access: DoctorAccess, now: float) -> Finding:
    needs = api_named(upstream.api.kind or "").needs
    if needs == "key" or (needs == "aws" and upstream.api.access_key_id is not None):
        return about.ok("API: the key isn't tried, since each request is a mail")
    if needs == "token" and access.leaves_alone(upstream):
        return about.ok(f"API: the login is {LEFT_ALONE}")
    try:
        await api.credentials.current()
    except OpenFailed as error:
        return about.fail(f"API: {error.reply.explanation}", f"check: {_CREDENTIALS[needs]}")
    if needs == "aws":
        return about.ok("API: temporary credentials were fetched; they aren't tried, since each request is a mail")
    expires_at = access.local.tokens(about.subject, upstream).expires_at
    text = f"API: an access token was fetched{good_for(expires_at, now)}"
    return about.ok(f"{text}; it isn't tried, since each request is a mail")


def signatures(name: str, config: Config) -> Iterator[Finding]:
    """What DMARC rests on, where mail by the API leaves unsigned."""
    if not _is_unsigned(config.upstreams[name]):
        return
    about, upstream = About("upstream", name, "upstream-signature"), config.upstreams[name]
    does = "builds messages anew" if api_named(upstream.api.kind or "").form == "json" else "may break signatures"
    domains = ", ".join(entry.domain for entry in config.dkim)
    text = f"API: it {does}, so DMARC rests on the provider's own signature of {domains or 'the From domain'}"
    lanes = [
        lane
        for lane, keys in config.lanes.items()
        if keys.express and name in (of_lane := upstreams_of(config, lane)) and _only_unsigned(config, of_lane)
    ]
    if config.dkim and lanes:
        text += f"; the keys under dkim sign nothing in lane {', '.join(lanes)}"
        yield about.warn(text, "verify these domains at the provider, or put an upstream by SMTP into the lane")
    else:
        yield about.ok(f"{text}; {'they have' if len(config.dkim) > 1 else 'it has'} to be verified there")


def _only_unsigned(config: Config, names: Sequence[str]) -> bool:
    return all(config.upstreams[name].via == "api" and _is_unsigned(config.upstreams[name]) for name in names)


def _is_unsigned(upstream: Upstream) -> bool:
    """Whether what goes by its API has no signature of ours."""
    return upstream.via != "smtp" and not finish_of(upstream).is_signed
