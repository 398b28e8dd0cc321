"""Mailgun."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import json_field, put_into, relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.proof import any_same, fresh, hex_mac
from relay.providers.reading import (
    Fields,
    address,
    dig,
    first_address,
    identifier,
    message_id,
    moment,
    read_form,
    read_json,
    reason,
    unreadable,
)
from relay.providers.webhook import Accepted, EspEvent, EspKind, Posted, Refused, SuppressionCause, Terms, Verdict

_TOLERANCE_S = 12 * 3600
"""Mailgun posts an event again for 8 hours"""
_SWITCH = "webhook.secret is the HTTP webhook signing key in Mailgun (API security)"
_KINDS: dict[str, EspKind] = {
    "accepted": "processed",
    "delivered": "delivered",
    "failed": "bounced",
    "rejected": "rejected",
    "opened": "opened",
    "clicked": "clicked",
    "unsubscribed": "unsubscribed",
    "complained": "complained",
}
# Before 2018 there was no `failed`; events were forms.
_LEGACY_KINDS: dict[str, EspKind] = {**_KINDS, "bounced": "bounced", "dropped": "rejected", "soft_bounced": "bounced"}
_CAUSES: dict[EspKind, SuppressionCause] = {"complained": "complaint", "unsubscribed": "unsubscribe"}
_NEVER_TRIED = ("suppress-bounce", "suppress-complaint", "suppress-unsubscribe")
_NEVER_TRIED_CODES = ("605", "606", "607")
"""on Mailgun's list of bounces, unsubscribes, complaints"""
_NOT_THE_MAILBOX = ("old", "espblock")
"""reasons of a permanent failure: tried for too long; blocked as spam"""
_NOT_THE_MAILBOX_CODES = ("498", "499", "602")
"""no MX, no connection to it, tried for too long"""
_MAX_VARIABLES = 16_000
_PLAIN = re.compile(r"[\w-]{1,200}", re.ASCII)
_MESSAGE_ID = re.compile(r"<[^<>\s]{1,190}@[^<>\s]{1,190}>")


class _Proof(NamedTuple):
    """What the body says of itself. The event isn't covered by it, so the token must not serve twice."""

    timestamp: str
    token: str
    signature: str


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """One event a request, as JSON or as a form, with an HMAC over its time and token."""
    form = None if _is_json(posted) else read_form(posted)
    body = read_json(posted.body) if form is None else None
    proof = _form_proof(form) if form is not None else _json_proof(body)
    if proof is None:
        return Refused(401, f"unsigned request: {_SWITCH}")
    signed = (proof.timestamp + proof.token).encode()
    if not any_same(proof.signature, [hex_mac(secret, signed) for secret in terms.secrets if secret]):
        return Refused(401, f"the signature doesn't match webhook.secret: {_SWITCH}")
    if not fresh(proof.timestamp, terms.now, _TOLERANCE_S):
        return Refused(401, "the request is older or newer than 12 hours: check this machine's clock")
    if form is not None:
        event = _legacy_event(form, proof)
    elif isinstance(data := dig(body, "event-data"), dict):
        event = _event(data)
    else:
        return unreadable("Mailgun")
    return Accepted((event,), token=proof.token)


def _is_json(posted: Posted) -> bool:
    """Whether the body is JSON, by its type or, where that says nothing, by its first character."""
    content_type = posted.headers.get("content-type", "").lower()
    if "json" in content_type:
        return True
    return "form" not in content_type and posted.body.lstrip()[:1] == b"{"


def _json_proof(body: object) -> _Proof | None:
    return _proof([dig(body, "signature", name) for name in _Proof._fields])


def _form_proof(form: Fields) -> _Proof | None:
    # A variable of the app may have the same name; Mailgun's own come last.
    last = dict(form)
    return _proof([last.get(name) for name in _Proof._fields])


def _proof(values: Sequence[object]) -> _Proof | None:
    """The proof, if its parts are texts (the time may be a number) of the characters that Mailgun uses."""
    texts = [str(value) if type(value) is int else value for value in values]
    known = [text for text in texts if isinstance(text, str) and _PLAIN.fullmatch(text)]
    return _Proof(*known) if len(known) == len(texts) else None


def _event(data: dict[str, object]) -> EspEvent:
    name = dig(data, "event")
    name = name if isinstance(name, str) else ""
    kind = _KINDS.get(name, "other")
    delivery, cause_name = dig(data, "delivery-status"), dig(data, "reason")
    said = reason(dig(delivery, "message"), dig(delivery, "description"), dig(data, "reject", "reason"), cause_name)
    status = status_in(dig(delivery, "enhanced-code"), dig(delivery, "bounce-code"), said)
    code = identifier(dig(delivery, "code"))
    permanent: bool | None = True if kind == "rejected" else None
    cause = _CAUSES.get(kind)
    if kind == "bounced":
        severity = dig(data, "severity")
        permanent = severity == "permanent" if severity in ("permanent", "temporary") else None
        kind = "deferred" if permanent is False else kind
        if cause_name in _NEVER_TRIED or code in _NEVER_TRIED_CODES:
            kind, permanent = "rejected", True
        elif cause_name not in _NOT_THE_MAILBOX and code not in _NOT_THE_MAILBOX_CODES:
            cause = bounce_cause(permanent, status, said)
    elif kind == "delivered" and said is not None and code is not None:
        said = reason(f"{code} {said}")
    headers = dig(data, "message", "headers")
    original = message_id(dig(headers, "message-id"))
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(data, "recipient")) or first_address(dig(headers, "to")),
        at=moment(dig(data, "timestamp")),
        permanent=permanent,
        reason=said,
        status=status,
        suppress=cause,
        relay_id=relay_id_in(dig(data, "user-variables")),
        esp_id=original,
        message_id=original,
    )
    return identified(event, identifier(dig(data, "id")), name)


def _legacy_event(form: Fields, proof: _Proof) -> EspEvent:
    first = dict(reversed(form))  # a variable of the app's of the same name comes behind the event's own
    name = first.get("event", "")
    kind = _LEGACY_KINDS.get(name, "other")
    said = reason(first.get("error"), first.get("notification"), first.get("description"), first.get("reason"))
    status = status_in(first.get("code"), said)
    permanent: bool | None = True if kind == "rejected" else None
    cause = _CAUSES.get(kind)
    if kind == "bounced":
        temporary = first.get("severity") == "temporary" or name == "soft_bounced" or first.get("code", "")[:1] == "4"
        permanent = not temporary
        cause = bounce_cause(permanent, status, said)
    original = message_id(first.get("Message-Id") or first.get("message-id"))
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(first.get("recipient")),
        at=moment(proof.timestamp),
        permanent=permanent,
        reason=said,
        status=status,
        suppress=cause,
        relay_id=relay_id_in(first) or _relay_id_in_headers(first.get("message-headers")),
        esp_id=original,
        message_id=original,
    )
    return identified(event, proof.token, name)


def _relay_id_in_headers(encoded: str | None) -> str | None:
    """The relay's id out of `message-headers`, a JSON list of pairs."""
    for field in _pairs(read_json(encoded or "")):
        if field[0].lower() == "x-mailgun-variables" and (found := relay_id_in(field[1])) is not None:
            return found
    return None


def _pairs(value: object) -> list[tuple[str, str]]:
    pairs = [(dig(one, 0), dig(one, 1)) for one in value] if isinstance(value, list) else []
    return [(name, text) for name, text in pairs if isinstance(name, str) and isinstance(text, str)]


correlate = json_field("X-Mailgun-Variables", put_into, _MAX_VARIABLES)


def esp_id(reply: str) -> str | None:
    """The Message-ID in the reply. `250 Great success` has none; an answer of the HTTP API has."""
    return found[0] if (found := _MESSAGE_ID.search(reply)) is not None else None


def _preset(host: str, region: str, api_url: str | None = None) -> Preset:
    return Preset(
        {"host": host, "port": 465, "tls": "implicit"},
        {"username": "the domain's SMTP login"},
        other_ports=((587, "starttls"), (2525, "starttls"), (25, "starttls")),
        facts=Facts(limits=("25 MB a message", "1,000 recipients a message"), region=region),
        api_url=api_url,
    )


PROVIDER = Provider(
    name="mailgun",
    presets={
        "mailgun": _preset("smtp.mailgun.org", "US"),
        "mailgun-eu": _preset("smtp.eu.mailgun.org", "EU", "https://api.eu.mailgun.net"),
    },
    correlation_header="X-Mailgun-Variables",
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="mailgun",
)
