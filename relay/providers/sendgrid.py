"""SendGrid."""

from __future__ import annotations

import base64
import binascii
import functools
import re

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_der_public_key

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import json_field, put_into, relay_id_in
from relay.providers.outcome import bounce_cause, identified, is_permanent_reply, status_in
from relay.providers.proof import from_base64
from relay.providers.reading import (
    address,
    dig,
    events_of,
    identifier,
    message_id,
    moment,
    read_json,
    reason,
    unreadable,
)
from relay.providers.webhook import Accepted, EspEvent, EspKind, Posted, Refused, SuppressionCause, Terms, Verdict

_SWITCH = 'turn on "Signed Event Webhook" in SendGrid (Settings, Mail Settings, Event Webhooks)'
_KINDS: dict[str, EspKind] = {
    "processed": "processed",
    "delivered": "delivered",
    "deferred": "deferred",
    "bounce": "bounced",
    "blocked": "bounced",
    "dropped": "rejected",
    "spamreport": "complained",
    "unsubscribe": "unsubscribed",
    "group_unsubscribe": "unsubscribed",
    "open": "opened",
    "click": "clicked",
}
_CAUSES: dict[EspKind, SuppressionCause] = {"complained": "complaint", "unsubscribed": "unsubscribe"}
_MAILBOX = ("", "invalid address", "mailbox unavailable", "unclassified")
"""the `bounce_classification`s that speak of the mailbox"""
_MAX_UNIQUE_ARGS = 10_000  # "Personalizations errors": custom arguments of a message
_QUEUED = re.compile(r"\bqueued as ([\w-]{1,100})", re.IGNORECASE | re.ASCII)
_ID = re.compile(r"(?!filter|recvd)[\w-]{1,100}", re.ASCII)
_STAMP = re.compile(r"\d{1,20}", re.ASCII)


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """A list of events, signed by ECDSA. There is no limit to its age: SendGrid documents none and retries for days."""
    refused = _check(posted, terms)
    if refused is not None:
        return refused
    events = events_of(read_json(posted.body))
    return unreadable("SendGrid") if events is None else Accepted(tuple(_event(one) for one in events))


def _check(posted: Posted, terms: Terms) -> Refused | None:
    encoded = posted.headers.get("x-twilio-email-event-webhook-signature", "")
    stamp = posted.headers.get("x-twilio-email-event-webhook-timestamp", "")
    if not encoded or not stamp:
        return Refused(401, f"unsigned request: {_SWITCH}")
    signature = from_base64(encoded)
    if signature is not None and _STAMP.fullmatch(stamp):
        signed = stamp.encode() + posted.body
        if any(_is_signed(secret, signature, signed) for secret in terms.secrets):
            return None
    return Refused(
        401,
        "the signature doesn't match webhook.secret: it is the verification key of the Event Webhook in SendGrid"
        " (Settings, Mail Settings, Event Webhooks)",
    )


def _is_signed(secret: str, signature: bytes, signed: bytes) -> bool:
    key = _public_key(secret)
    if key is None:
        return False
    try:
        key.verify(signature, signed, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


@functools.lru_cache(maxsize=32)
def _public_key(secret: str) -> EllipticCurvePublicKey | None:
    """The verification key, as SendGrid shows it: base64 of DER. None: the secret is none."""
    try:
        key = load_der_public_key(base64.b64decode(secret))
    except (ValueError, binascii.Error, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, EllipticCurvePublicKey) else None


def _event(posted: object) -> EspEvent:
    name = dig(posted, "event")
    name = name if isinstance(name, str) else ""
    kind = _KINDS.get(name, "other")
    text = reason(dig(posted, "response"), dig(posted, "reason"))
    status = status_in(dig(posted, "status"), text)
    permanent, cause = _permanence(posted, kind, status, text), _CAUSES.get(kind)
    if kind == "bounced" and _blames_mailbox(posted):
        cause = bounce_cause(permanent, status, text)
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(posted, "email")),
        at=moment(dig(posted, "timestamp")),
        permanent=permanent,
        reason=text,
        status=status,
        suppress=cause,
        relay_id=relay_id_in(posted) or relay_id_in(dig(posted, "unique_args")),
        esp_id=_message(dig(posted, "sg_message_id")),
        message_id=message_id(dig(posted, "smtp-id")),
    )
    return identified(event, identifier(dig(posted, "sg_event_id")), name, dig(posted, "url"))


def _message(value: object) -> str | None:
    """The id before the first dot, which the reply has, too. Dropped mail may have only what stands behind it: where
    and when SendGrid took it."""
    name = (identifier(value) or "").partition(".")[0]
    return name if _ID.fullmatch(name) else None


def _permanence(posted: object, kind: EspKind, status: str | None, text: str | None) -> bool | None:
    """Whether another try is useless. Blocked and expired mail may go later: SendGrid doesn't suppress its address."""
    if kind == "deferred":
        return False
    if kind == "rejected":
        return True
    if kind != "bounced":
        return None
    if dig(posted, "event") == "blocked" or dig(posted, "type") in ("blocked", "expired"):
        return False
    permanent = is_permanent_reply(status or text)
    return True if permanent is None else permanent


def _blames_mailbox(posted: object) -> bool:
    classified = dig(posted, "bounce_classification")
    return not isinstance(classified, str) or classified.strip().lower() in _MAILBOX


correlate = json_field("X-SMTPAPI", lambda known, relay_id: put_into(known, relay_id, "unique_args"), _MAX_UNIQUE_ARGS)


def esp_id(reply: str) -> str | None:
    """What `250 Ok: queued as ID` names."""
    return found[1] if (found := _QUEUED.search(reply)) is not None else None


def _preset(host: str, region: str, api_url: str | None = None) -> Preset:
    keys = {"host": host, "port": 465, "tls": "implicit", "username": "apikey"}
    # "Integrating with the SMTP API": 5,000 messages a connection, 10,000 connections from one server.
    return Preset(
        {**keys, "sessions": {"messages": 5_000}},
        other_ports=((587, "starttls"), (2525, "starttls"), (25, "starttls")),
        facts=Facts(
            reply_id="queued as ID: the first part of sg_message_id",
            limits=(
                "5,000 messages a connection",
                "10,000 connections from one server",
                "1,000 recipients a message",
                "30 MB a message",
            ),
            region=region,
            notes=("The password is an API key.",),
        ),
        unverified=("reply_id",),
        api_url=api_url,
    )


PROVIDER = Provider(
    name="sendgrid",
    presets={
        "sendgrid": _preset("smtp.sendgrid.net", "global"),
        "sendgrid-eu": _preset("smtp.eu.sendgrid.net", "EU", "https://api.eu.sendgrid.com"),
    },
    account_errors=(
        r"verified sender",  # 550 The from address does not match a verified Sender Identity
        r"credits exceeded",  # 451 Authentication failed: Maximum credits exceeded
    ),
    correlation_header="X-SMTPAPI",
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="sendgrid",
)
