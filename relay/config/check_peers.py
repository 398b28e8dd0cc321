"""Checks of those the relay speaks with: the apps' listeners, the HTTP clients, the upstreams."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from relay.config import presets
from relay.config.errors import Finding, Loc, note
from relay.config.model import Http, Listener, Upstream
from relay.config.network import AnyAddress, TcpAddress, UnixAddress, is_host, is_loopback
from relay.config.validate import absent
from relay.config.values import shown


def _is_private(address: AnyAddress) -> bool:
    """Whether only this machine can reach it. Of a socket of systemd's that isn't known."""
    return isinstance(address, UnixAddress) or (isinstance(address, TcpAddress) and is_loopback(address.host))


def check_listener(loc: Loc, listener: Listener, lanes: Collection[str]) -> Iterator[Finding]:
    where = listener.address
    private = _is_private(where)
    if listener.lane is not None and listener.lane not in lanes:
        yield Finding((*loc, "lane"), absent("lane", listener.lane, lanes))
    if listener.tls == "none":
        for key in ("cert_file", "key_file"):
            if getattr(listener, key) is not None:
                yield Finding((*loc, key), "set tls: starttls or tls: implicit, or drop this key: tls is none")
    elif missing := [key for key in ("cert_file", "key_file") if getattr(listener, key) is None]:
        yield Finding((*loc, "tls"), f"tls: {listener.tls} needs {' and '.join(missing)}")
    if listener.auth == "any" and not private:
        yield Finding((*loc, "auth"), "auth: any takes every password, so it is for loopback and unix sockets only")
    if listener.auth == "required" and listener.users_file is None:
        yield Finding((*loc, "auth"), "auth: required needs users_file")
    if listener.auth == "required" and listener.tls == "none" and not private:
        yield Finding((*loc, "auth"), "auth: required needs TLS off loopback; set tls: starttls or tls: implicit")
    if listener.auth != "required" and listener.users_file is not None:
        yield note((*loc, "users_file"), f"isn't used, as auth is {listener.auth}")
    guarded = listener.allow or (listener.auth == "required" and listener.tls != "none")
    if isinstance(where, TcpAddress) and not private and not guarded:
        yield Finding(
            (*loc, "address"),
            f"{shown(str(where))} isn't loopback, and an open relay isn't wanted: "
            "name the clients' networks in allow, or set auth: required with TLS",
        )
    if any(network.prefixlen == 0 for network in listener.allow):
        yield note((*loc, "allow"), "allows every client there is")
    if isinstance(where, UnixAddress) and listener.proxy_protocol:
        yield note((*loc, "proxy_protocol"), "has no effect on a unix socket, whose clients have no address")


def check_http(loc: Loc, http: Http) -> Iterator[Finding]:
    where = http.address
    private = _is_private(where)
    if not private and http.token is None:
        yield Finding((*loc, "address"), f"{shown(str(where))} isn't loopback: set http.token")


def check_upstream(loc: Loc, upstream: Upstream) -> Iterator[Finding]:
    local = is_loopback(upstream.host)
    if not is_host(upstream.host):
        hint = "; the port has a key of its own" if ":" in upstream.host else ""
        yield Finding((*loc, "host"), f"expected a host name or an IP address, got {shown(upstream.host)}{hint}")
    elif upstream.tls == "none" and not local and not upstream.allow_plaintext:
        yield Finding(
            (*loc, "tls"),
            "tls: none would send mail in clear to another machine; "
            "set starttls or implicit, or allow_plaintext: true if that is wanted",
        )
    elif upstream.tls == "none" and not local and upstream.password is not None:
        yield Finding((*loc, "tls"), "a password isn't sent in clear to another machine; set starttls or implicit")
    if upstream.tls == "none" and upstream.ca_file is not None:
        yield note((*loc, "ca_file"), "isn't used, as tls is none")
    if upstream.tls == "implicit" and upstream.port in (25, 587, 2525):
        yield note((*loc, "port"), f"port {upstream.port} usually speaks starttls, not implicit TLS (465)")
    if upstream.tls == "starttls" and upstream.port in (465, 2465):
        yield note((*loc, "port"), f"port {upstream.port} usually speaks implicit TLS, not starttls")
    yield from _credentials(loc, upstream)
    if upstream.sessions.warm > upstream.sessions.max:
        yield Finding(
            (*loc, "sessions", "warm"),
            f"expected at most max ({upstream.sessions.max}), got {upstream.sessions.warm}",
        )


def _credentials(loc: Loc, upstream: Upstream) -> Iterator[Finding]:
    preset = presets.find(upstream.preset) if upstream.preset is not None else None
    needed = dict(preset.needs) if preset else {}
    if preset is not None and upstream.password is None:
        yield Finding(loc, f"preset {upstream.preset} needs password or password_file", at="key")
    if upstream.username is None and upstream.password is not None:
        hint = f": {needed['username']}" if "username" in needed else ""
        yield Finding(loc, f"password without username{hint}", at="key")
    elif upstream.password is None and upstream.username is not None and preset is None:
        yield Finding((*loc, "username"), "username without password or password_file")
    elif upstream.username is not None and re.search(r"[\0\r\n]", upstream.username):
        yield Finding((*loc, "username"), "expected one line of text")
    if upstream.password is not None and re.search(r"[\0\r\n]", upstream.password.get_secret_value()):
        yield Finding((*loc, "password"), "expected one line of text")
