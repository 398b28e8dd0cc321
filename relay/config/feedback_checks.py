"""Check the sections about webhooks and events: what proves a request, where events are posted to."""

from __future__ import annotations

import base64
import re
from collections.abc import Collection, Iterator
from urllib.parse import SplitResult, urlsplit

from relay.config.errors import Diagnostic, Loc, note, plain
from relay.config.feedback import EventReceiver, Webhook, Webhooks
from relay.config.masking import shown
from relay.config.network import is_host, is_loopback, is_private
from relay.config.validate import absent
from relay.config.whsec import whsec_bytes
from relay.providers.registry import provider_of

MOST_SECRETS = 2
ADVISED_SECRET_BYTES = 24
"""the least that the Standard Webhooks specification advises"""
_SECRET_KINDS = {
    "postmark": "user:password, or a bearer token, as in the webhook's URL or headers there",
    "sendgrid": "the public key of its Signed Event Webhook, in base64",
    "resend": "the webhook's signing secret, whsec_...",
    "mailgun": "the HTTP webhook signing key",
    "brevo": "user:password, or the bearer token that is set there",
    "sparkpost": "user:password, or the bearer token that is set there",
    "mailjet": "user:password, as in the webhook's URL there",
    "mandrill": "the webhook's key",
}
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[A-Za-z0-9_.-]{1,256}")


def check(loc: Loc, section: Webhooks | EventReceiver, lanes: Collection[str]) -> Iterator[Diagnostic]:
    """Check the listener for webhooks, or one receiver of events."""
    if isinstance(section, Webhooks):
        yield from _listener(loc, section)
    else:
        yield from _receiver(loc, section, lanes)


def check_webhook(loc: Loc, webhook: Webhook, preset: str | None) -> Iterator[Diagnostic]:
    """Check that something proves the requests, as this provider does it."""
    if webhook.kind is None:
        provider = provider_of(preset) if preset is not None else None
        if provider is not None and provider.webhook is None:
            yield Diagnostic(loc, f"webhooks of {plain(provider.name)} aren't read; leave the key out", at="key")
            return
        kinds = ", ".join(("ses", *_SECRET_KINDS))
        yield Diagnostic((*loc, "kind"), f"missing: name the provider: {kinds}", at="key")
        return
    if webhook.kind == "ses":
        yield from _topics(loc, webhook)
    else:
        for key in ("topics", "certificates"):
            if getattr(webhook, key):
                yield note((*loc, key), f"isn't used: {key} are SES's")
    if webhook.kind != "ses" and not webhook.secret:
        yield Diagnostic((*loc, "secret"), f"missing: {_SECRET_KINDS[webhook.kind]}", at="key")
    if len(webhook.secret) > MOST_SECRETS:
        yield Diagnostic(
            (*loc, "secret"), f"expected one secret, or two while one is replaced, got {len(webhook.secret)}"
        )
    for n, secret in enumerate(webhook.secret):
        if problem := _unusable(webhook.kind, secret.get_secret_value()):
            yield Diagnostic((*loc, "secret", n), problem)
    if len({secret.get_secret_value() for secret in webhook.secret}) < len(webhook.secret):
        yield note((*loc, "secret"), "has the same secret twice")
    yield from _signed_url(loc, webhook)


def _signed_url(loc: Loc, webhook: Webhook) -> Iterator[Diagnostic]:
    if webhook.kind == "mandrill" and webhook.url is None:
        yield Diagnostic(
            (*loc, "url"), "missing: the webhook's URL as written there, which its signature covers", at="key"
        )
    elif webhook.url is not None and webhook.kind != "mandrill":
        yield note((*loc, "url"), "isn't used: only Mandrill signs the URL")
    elif webhook.url is not None and _parsed(webhook.url) is None:
        expected = "expected the webhook's URL as written at Mandrill, such as https://relay.example.com/webhooks/NAME"
        yield Diagnostic((*loc, "url"), f"{expected}, got {shown(webhook.url)}")


def _topics(loc: Loc, webhook: Webhook) -> Iterator[Diagnostic]:
    if not webhook.topics:
        message = "missing: the ARNs of the SNS topics that are believed; anyone can make a topic"
        yield Diagnostic((*loc, "topics"), message, at="key")
    for n, topic in enumerate(webhook.topics):
        if not _TOPIC.fullmatch(topic):
            expected = "expected the ARN of an SNS topic, such as arn:aws:sns:eu-west-1:111122223333:ses-events"
            yield Diagnostic((*loc, "topics", n), f"{expected}, got {shown(topic)}")
    if webhook.secret:
        yield note((*loc, "secret"), "isn't used: SNS signs with a certificate of its own")
    if webhook.certificates is not None and not webhook.certificates.is_dir():
        yield Diagnostic((*loc, "certificates"), f"expected a folder: {webhook.certificates}")


def _unusable(kind: str, secret: str) -> str | None:
    """What is wrong with a secret of this provider; None: it can prove something."""
    if not secret or not secret.isprintable():
        return "expected one line of text"
    if kind == "sendgrid" and not _is_p256_key(secret):
        return f"expected {_SECRET_KINDS[kind]} (MFkw...)"
    if kind == "resend" and whsec_bytes(secret) is None:
        return f"expected {_SECRET_KINDS[kind]}"
    return None


def _is_p256_key(text: str) -> bool:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
    from cryptography.hazmat.primitives.serialization import load_der_public_key

    try:
        key = load_der_public_key(base64.b64decode(text, validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return False
    return isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1)


def _listener(loc: Loc, webhooks: Webhooks) -> Iterator[Diagnostic]:
    given = [key for key in ("cert_file", "key_file") if getattr(webhooks, key) is not None]
    if len(given) == 1:
        yield Diagnostic((*loc, given[0]), "cert_file and key_file belong together")
    if webhooks.address is None:
        for key in given:
            yield note((*loc, key), "isn't used without webhooks.address")
    elif not given and not is_private(webhooks.address):
        yield note(
            (*loc, "address"), "takes webhooks in clear: put a proxy before it that speaks TLS, or set cert_file"
        )


def _receiver(loc: Loc, receiver: EventReceiver, lanes: Collection[str]) -> Iterator[Diagnostic]:
    yield from _url((*loc, "url"), receiver.url)
    if receiver.secret is None:
        yield Diagnostic((*loc, "secret"), "missing: whsec_ and a key in base64, which signs the events", at="key")
    elif (key := whsec_bytes(receiver.secret.get_secret_value())) is None:
        yield Diagnostic((*loc, "secret"), "expected whsec_ and a key in base64")
    elif len(key) < ADVISED_SECRET_BYTES:
        yield note((*loc, "secret"), f"the key has {len(key)} bytes; {ADVISED_SECRET_BYTES} to 64 are advised")
    for n, lane in enumerate(receiver.lanes or ()):
        if lane not in lanes:
            yield Diagnostic((*loc, "lanes", n), absent("lane", lane, lanes))
    for key_ in ("kinds", "lanes"):
        if getattr(receiver, key_) == ():
            yield Diagnostic((*loc, key_), "expected at least one, got none; leave the key out for all")


def _url(loc: Loc, url: str) -> Iterator[Diagnostic]:
    parts = _parsed(url)
    if parts is None:
        yield Diagnostic(loc, f"expected a URL such as https://app.example.com/hooks/mail, got {shown(url)}")
    elif parts.username is not None:
        yield Diagnostic(loc, "has a password in it; the signature proves the relay, so leave it out")
    elif parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield Diagnostic(loc, "http would post events in clear to another machine; use https")


def _parsed(url: str) -> SplitResult | None:
    """None: it is no URL of the web."""
    try:
        parts: SplitResult = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return None
    is_url = parts.scheme in ("http", "https") and host is not None and is_host(host) and url.isprintable()
    return parts if is_url else None


def normal(url: str) -> str:
    """A URL in the form in which equal ones are the same: its host in lower case, its port written out."""
    parts = _parsed(url)
    if parts is None:
        return url
    port = parts.port or {"http": 80, "https": 443}[parts.scheme]
    return parts._replace(netloc=f"{parts.hostname}:{port}", path=parts.path or "/", fragment="").geturl()
