"""Check how an upstream is reached and how the relay proves itself there: API, OAuth 2, proxy, header fields."""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from relay.config.access import OAuth2, endpoint
from relay.config.errors import Diagnostic, Loc, note
from relay.config.masking import shown
from relay.config.model import Upstream
from relay.config.network import is_host, is_loopback
from relay.config.parse import is_header_name
from relay.providers.api import Api
from relay.providers.apis.registry import NAMES, api_named, api_of_preset

PROXY_SCHEMES = ("socks5", "socks5h", "socks4", "http")
_ONE_LINE = re.compile(r"[\0\r\n]")
_VALUE = re.compile(r"[\x20-\x7e]{0,998}")
_REGION = re.compile(r"[a-z0-9]{1,16}(-[a-z0-9]{1,16}){0,4}")
_NOT_REMOVED = re.compile(r"content-.*|mime-version|from")
# What says how the message is read, where it has been, and what is signed: the relay's own to write.
_NOT_SET = re.compile(r"content-.*|mime-version|received|return-path|dkim-signature|arc-.*|b?cc|to|x-relay-.*")


def check(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    """Everything of an upstream that isn't about its SMTP server."""
    # A preset fills it in, or says that it can't.
    if upstream.via != "api" and not upstream.host and upstream.preset is None:
        yield Diagnostic((*loc, "host"), "missing: this key is required", at="key")
    if upstream.via == "smtp":
        if upstream.api.model_fields_set - {"kind"}:
            yield note((*loc, "api"), "isn't used: via is smtp")
    else:
        yield from _api(loc, upstream)
    yield from _xoauth2(loc, upstream)
    if upstream.oauth2 is not None:
        yield from _oauth2((*loc, "oauth2"), upstream.oauth2, upstream.username)
    yield from _headers((*loc, "headers"), upstream.headers)
    if upstream.proxy is not None:
        yield from _proxy((*loc, "proxy"), upstream.proxy.get_secret_value())


def _api(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    access = upstream.api
    if access.kind is None:
        why = f"the relay knows no API of preset {upstream.preset}" if upstream.preset is not None else "missing"
        message = f"{why}: name the provider whose API it is: {', '.join(sorted(NAMES))}"
        yield Diagnostic((*loc, "api", "kind"), message, at="key")
        return
    api = api_named(access.kind)
    if access.region is not None and not _REGION.fullmatch(access.region):
        yield Diagnostic(
            (*loc, "api", "region"), f"expected an AWS region such as eu-west-1, got {shown(access.region)}"
        )
    elif access.url is not None:
        yield from _url((*loc, "api", "url"), access.url, is_proxied=upstream.proxy is not None)
    if api.needs == "aws" and access.region is None:
        yield Diagnostic((*loc, "api", "region"), "missing: the AWS region, such as eu-west-1", at="key")
    if upstream.preset is not None and api_of_preset(upstream.preset) != access.kind:
        yield note((*loc, "api", "kind"), f"is another provider than that of preset {upstream.preset}")
    yield from _unused(loc, upstream, api)
    if api.needs == "token" and upstream.via == "auto":
        message = "an access token is for SMTP or for the API; make two upstreams, one with via: api"
        yield Diagnostic((*loc, "via"), message)
    yield from _credentials(loc, upstream, api)


def _unused(loc: Loc, upstream: Upstream, api: Api) -> Iterator[Diagnostic]:
    """Keys that are another API's."""
    keys: dict[str, tuple[str, ...]] = {
        "key": ("key",),
        "aws": ("access_key_id", "secret_access_key", "region"),
    }
    for needed, names in keys.items():
        for name in names if api.needs != needed else ():
            if getattr(upstream.api, name) is not None:
                yield note((*loc, "api", name), f"isn't used: the API of {upstream.api.kind} has no such key")


def _url(loc: Loc, url: str, *, is_proxied: bool) -> Iterator[Diagnostic]:
    try:
        where = endpoint(url)
    except ValueError as error:
        yield Diagnostic(loc, str(error))
        return
    if not where.is_secure and (is_proxied or not is_loopback(where.host)):
        yield Diagnostic(loc, "http would send mail and the key in clear to another machine; use https")


def _credentials(loc: Loc, upstream: Upstream, api: Api) -> Iterator[Diagnostic]:
    access = upstream.api
    match api.needs:
        case "key":
            if api_key(upstream) is None:
                yield Diagnostic((*loc, "api", "key"), "missing: give the API key in key or key_file", at="key")
            elif access.key is not None and _ONE_LINE.search(access.key.get_secret_value()):
                yield Diagnostic((*loc, "api", "key"), "expected one line of text")
            elif access.kind == "mailjet" and access.key is not None and ":" not in access.key.get_secret_value():
                yield Diagnostic((*loc, "api", "key"), "expected the API key, a colon and the secret key")
            if access.kind == "scaleway" and upstream.username is None:
                yield Diagnostic((*loc, "username"), "missing: the project's ID", at="key")
        case "aws":
            given = [key for key in ("access_key_id", "secret_access_key") if getattr(access, key) is not None]
            if len(given) == 1:
                yield Diagnostic((*loc, "api", given[0]), "access_key_id and secret_access_key belong together")
        case "token":
            if upstream.oauth2 is None:
                yield Diagnostic((*loc, "oauth2"), f"missing: the API of {access.kind} wants OAuth 2", at="key")
            if upstream.username is None:
                yield Diagnostic((*loc, "username"), "missing: the mailbox that sends", at="key")


def api_key(upstream: Upstream) -> str | None:
    """The API's key: its own, or the SMTP password where the provider has one token for both."""
    if upstream.api.key is not None:
        return upstream.api.key.get_secret_value()
    if upstream.password is None or upstream.api.kind not in _ONE_TOKEN:
        return None
    password = upstream.password.get_secret_value()
    return f"{upstream.username}:{password}" if upstream.api.kind == "mailjet" else password


_ONE_TOKEN = frozenset({"postmark", "sendgrid", "resend", "sparkpost", "mandrill", "scaleway", "mailjet"})


def _xoauth2(loc: Loc, upstream: Upstream) -> Iterator[Diagnostic]:
    if upstream.auth != "xoauth2":
        if upstream.oauth2 is not None and not (upstream.via != "smtp" and upstream.api.kind == "graph"):
            yield note((*loc, "oauth2"), "isn't used: auth is password")
        return
    if upstream.oauth2 is None:
        yield Diagnostic((*loc, "oauth2"), "missing: auth: xoauth2 needs the source of its tokens", at="key")
    if upstream.username is None:
        yield Diagnostic((*loc, "username"), "missing: the mailbox that sends", at="key")
    if upstream.password is not None:
        yield note((*loc, "password"), "isn't used: auth is xoauth2")
    if upstream.tls == "none" and upstream.via != "api" and not (is_loopback(upstream.host) and upstream.proxy is None):
        yield Diagnostic((*loc, "tls"), "a token isn't sent in clear to another machine; set starttls or implicit")


def _oauth2(loc: Loc, given: OAuth2, username: str | None) -> Iterator[Diagnostic]:
    needed = {
        "client_credentials": ("token_url", "client_id", "client_secret"),
        # Its refresh token may come from `otp-relay oauth login`.
        "refresh_token": ("token_url", "client_id"),
        "jwt_bearer": ("service_account_file",),
    }[given.grant]
    for key in needed:
        if getattr(given, key) is None:
            yield Diagnostic((*loc, key), f"missing: grant: {given.grant} needs it", at="key")
    if given.grant == "jwt_bearer" and given.subject is None and username is None:
        yield Diagnostic((*loc, "subject"), "missing: the user that is acted for", at="key")
    for key in ("token_url", "device_url"):
        if (url := getattr(given, key)) is not None:
            yield from _token_url((*loc, key), url)


def _token_url(loc: Loc, url: str) -> Iterator[Diagnostic]:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    if host is None or parts.scheme not in ("http", "https") or not is_host(host) or not url.isprintable():
        yield Diagnostic(loc, "expected a URL such as https://login.example.com/token")
    elif parts.username is not None:
        yield Diagnostic(loc, "has credentials in it; give them in client_id and client_secret")
    elif parts.scheme == "http" and not is_loopback(host):
        yield Diagnostic(loc, "http would send credentials in clear to another machine; use https")


def _headers(loc: Loc, headers: dict[str, str | None]) -> Iterator[Diagnostic]:
    seen: set[str] = set()
    for name, value in headers.items():
        if not is_header_name(name):
            yield Diagnostic((*loc, name), "expected the name of a header, such as X-PM-Message-Stream", at="key")
        elif name.lower() in seen:
            yield Diagnostic((*loc, name), "stands above already, in other capitals", at="key")
        elif value is not None and _NOT_SET.fullmatch(name.lower()):
            yield Diagnostic((*loc, name), "can't be set: the message's structure, trace and recipients stay", at="key")
        elif value is None and _NOT_REMOVED.fullmatch(name.lower()):
            yield Diagnostic((*loc, name), "can't be removed: without it the message isn't read as it was", at="key")
        elif value is not None and not _VALUE.fullmatch(value):
            # It may hold a credential, so it isn't shown.
            yield Diagnostic((*loc, name), "expected up to 998 ASCII characters of one line")
        seen.add(name.lower())


def _proxy(loc: Loc, url: str) -> Iterator[Diagnostic]:
    expected = f"expected a URL such as socks5://proxy.example.com:1080 ({', '.join(PROXY_SCHEMES)})"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if host is None or port is None or parts.scheme not in PROXY_SCHEMES or not is_host(host):
        yield Diagnostic(loc, expected)
    elif parts.path not in ("", "/") or parts.query or parts.fragment:
        yield Diagnostic(loc, f"{expected}, and nothing behind the port")
