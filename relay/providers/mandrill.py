"""Mandrill (Mailchimp Transactional)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import json_field, put_into, relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.proof import any_same, raw
from relay.providers.reading import (
    Fields,
    address,
    dig,
    events_of,
    identifier,
    items,
    moment,
    read_form,
    read_json,
    reason,
    unreadable,
)
from relay.providers.webhook import Accepted, EspEvent, EspKind, Posted, Refused, SuppressionCause, Terms, Verdict

_SWITCH = "webhook.secret is the webhook's key in Mandrill (Settings, Webhooks), and webhook.url its URL there"
_FIELD = "mandrill_events"
_KINDS: dict[str, tuple[EspKind, bool | None]] = {
    "send": ("processed", None),
    "delivered": ("delivered", None),
    "deferral": ("deferred", False),
    "hard_bounce": ("bounced", True),
    "soft_bounce": ("bounced", False),
    "reject": ("rejected", True),
    "spam": ("complained", None),
    "unsub": ("unsubscribed", None),
    "open": ("opened", None),
    "click": ("clicked", None),
}
_CAUSES: dict[EspKind, SuppressionCause] = {"complained": "complaint", "unsubscribed": "unsubscribe"}
_MAX_METADATA = 1_000  # "the maximum metadata size is 1,000 bytes"
# A shorter one would be a queue's id, which no event has.
_QUEUED = re.compile(r"\bqueued as ([0-9a-f]{24,40})\b", re.IGNORECASE | re.ASCII)


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """A form whose field `mandrill_events` is a list of events, with an HMAC over the URL and all fields."""
    presented = posted.headers.get("x-mandrill-signature", "")
    if not presented:
        return Refused(401, f"unsigned request: {_SWITCH}")
    form = read_form(posted)
    if form is None or _FIELD not in dict(form) or terms.url is None:
        return Refused(401, f"the signature can't be checked: {_SWITCH}")
    if not any_same(presented, [_mac(secret, terms.url, form) for secret in terms.secrets if secret]):
        return Refused(401, f"the signature doesn't match webhook.secret and webhook.url: {_SWITCH}")
    events = events_of(read_json(dict(form)[_FIELD]))
    return unreadable("Mandrill") if events is None else Accepted(tuple(_event(one) for one in events))


def _mac(secret: str, url: str, form: Fields) -> str:
    """HMAC-SHA1 over the URL and the fields, sorted by name. Of fields of one name the last counts, as in PHP."""
    signed = url + "".join(name + value for name, value in sorted(dict(form).items()))
    mac = hmac.new(raw(secret), signed.encode("utf-8", "surrogateescape"), hashlib.sha1)
    return base64.b64encode(mac.digest()).decode()


def _event(posted: object) -> EspEvent:
    name = dig(posted, "event")
    name = name if isinstance(name, str) else ""
    kind, permanent = _KINDS.get(name, ("other", None))
    message = dig(posted, "msg")
    tries = list(items(dig(message, "smtp_events")))[-5:]
    diagnostics = [dig(message, "diag"), *(dig(one, "diag") for one in reversed(tries))]
    text = reason(
        *diagnostics,
        dig(message, "bounce_description"),
        dig(message, "reject", "reason"),
        dig(posted, "reject", "reason"),
    )
    status = status_in(*diagnostics)
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(message, "email")) or address(dig(posted, "reject", "email")),
        at=moment(dig(posted, "ts")),
        permanent=permanent,
        reason=text,
        status=status,
        suppress=bounce_cause(permanent, status, text) if kind == "bounced" else _CAUSES.get(kind),
        relay_id=relay_id_in(dig(message, "metadata")),
        esp_id=identifier(dig(posted, "_id")) or identifier(dig(message, "_id")),
    )
    return identified(event, None, name, dig(posted, "url"))


correlate = json_field("X-MC-Metadata", put_into, _MAX_METADATA)


def esp_id(reply: str) -> str | None:
    """What `250 2.0.0 Ok: queued as ID` names."""
    return found[1] if (found := _QUEUED.search(reply)) is not None else None


PROVIDER = Provider(
    name="mandrill",
    presets={
        "mandrill": Preset(
            {"host": "smtp.mandrillapp.com", "port": 587, "tls": "starttls"},
            {"username": "the account's e-mail address"},
            other_ports=((465, "implicit"), (2525, "starttls"), (25, "starttls")),
            facts=Facts(
                reply_id="queued as ID",
                limits=("25 MB a message",),
                notes=(
                    "The password is an API key; the user name isn't checked.",
                    "It accepts mail over the hourly quota, and keeps it until the next hour.",
                ),
            ),
            unverified=("reply_id", "limits"),
        )
    },
    correlation_header="X-MC-Metadata",
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="mandrill",
)
