"""Check how an upstream's SMTP server is reached: host, port, TLS, credentials, sessions."""

from __future__ import annotations

import re
from collections.abc import Iterator

from relay.config import access_checks, feedback_checks
from relay.config.errors import Diagnostic, Loc, note
from relay.config.masking import shown
from relay.config.model import Upstream
from relay.config.network import is_host, is_loopback
from relay.providers.registry import find_preset


def check(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    """Everything of an upstream."""
    yield from access_checks.check(loc, upstream)
    if not upstream.host and upstream.via != "api":
        return  # reported: nothing more can be said
    # A proxy on this machine sends it elsewhere.
    local = is_loopback(upstream.host) and upstream.proxy is None
    if upstream.host and not is_host(upstream.host):
        hint = "; the port has a key of its own" if ":" in upstream.host else ""
        yield Diagnostic((*loc, "host"), f"expected a host name or an IP address, got {shown(upstream.host)}{hint}")
    elif upstream.host and upstream.tls == "none" and not local and not upstream.allow_plaintext:
        where = "through the proxy" if is_loopback(upstream.host) else "to another machine"
        yield Diagnostic(
            (*loc, "tls"),
            f"tls: none would send mail in clear {where}; "
            "set starttls or implicit, or allow_plaintext: true if that is wanted",
        )
    elif upstream.tls == "none" and not local and upstream.password is not None:
        yield Diagnostic((*loc, "tls"), "a password isn't sent in clear to another machine; set starttls or implicit")
    if upstream.tls == "none" and upstream.ca_file is not None and upstream.via == "smtp":
        yield note((*loc, "ca_file"), "isn't used, as tls is none")
    if upstream.via != "api":
        yield from _port(loc, upstream)
    yield from _credentials(loc, upstream)
    if upstream.webhook is not None:
        yield from feedback_checks.check_webhook((*loc, "webhook"), upstream.webhook, upstream.preset)
    warm, most = upstream.sessions.warm, upstream.sessions.max
    if isinstance(warm, int) and warm > most:
        yield Diagnostic((*loc, "sessions", "warm"), f"expected at most max ({most}), got {warm}")


def _port(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    if upstream.tls == "implicit" and upstream.port in (25, 587, 2525):
        yield note((*loc, "port"), f"port {upstream.port} usually speaks starttls, not implicit TLS (465)")
    if upstream.tls == "starttls" and upstream.port in (465, 2465):
        yield note((*loc, "port"), f"port {upstream.port} usually speaks implicit TLS, not starttls")


def _credentials(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    preset = find_preset(upstream.preset) if upstream.preset is not None else None
    needed = preset.needs if preset else {}
    if preset is not None and upstream.password is None and upstream.auth == "password" and upstream.via != "api":
        yield Diagnostic(loc, f"preset {upstream.preset} needs password or password_file", at="key")
    if upstream.username is None and upstream.password is not None:
        hint = f": {needed['username']}" if "username" in needed else ""
        yield Diagnostic(loc, f"password without username{hint}", at="key")
    elif upstream.password is None and upstream.username is not None and preset is None and _needs_password(upstream):
        yield Diagnostic((*loc, "username"), "username without password or password_file")
    elif upstream.username is not None and re.search(r"[\0\r\n]", upstream.username):
        yield Diagnostic((*loc, "username"), "expected one line of text")
    if upstream.password is not None and re.search(r"[\0\r\n]", upstream.password.get_secret_value()):
        yield Diagnostic((*loc, "password"), "expected one line of text")


def _needs_password(upstream: Upstream) -> bool:
    """Whether the user name is for SMTP's AUTH with a password."""
    return upstream.auth == "password" and upstream.via != "api"
