"""Postmark. It replaces Message-ID, so our signature leaves that field out."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import KEY, free_key, is_plain, relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.proof import check_password
from relay.providers.reading import (
    address,
    dig,
    events_of,
    first,
    identifier,
    moment,
    read_json,
    reason,
    truth,
    unreadable,
)
from relay.providers.webhook import (
    Accepted,
    EspEvent,
    EspKind,
    Field,
    Posted,
    SuppressionCause,
    Terms,
    Verdict,
)

_HEADER = "X-PM-Metadata-relay-id"
_PREFIX = "x-pm-metadata-"
_MAX_FIELDS, _MAX_VALUE = 10, 80
_SWITCH = "write user:password@ into the webhook's URL in Postmark (Servers, Message stream, Webhooks)"
_RECORDS: dict[str, EspKind] = {
    "Delivery": "delivered",
    "Open": "opened",
    "Click": "clicked",
    "Bounce": "bounced",
    "SpamComplaint": "complained",
    "SubscriptionChange": "other",
}
# "Bounce types" of the bounce API, each with whether another try is useless.
_BOUNCES: dict[str, tuple[EspKind, bool | None]] = {
    "HardBounce": ("bounced", True),
    "SoftBounce": ("bounced", False),
    "VirusNotification": ("bounced", True),
    "Unknown": ("bounced", None),
    "Transient": ("deferred", False),
    "DnsError": ("deferred", False),
    "SpamNotification": ("complained", None),
    "SpamComplaint": ("complained", None),
    "Unsubscribe": ("unsubscribed", None),
    "ManualSuppression": ("unsubscribed", None),
    "BadEmailAddress": ("rejected", True),
    "ManuallyDeactivated": ("rejected", True),
    "Unconfirmed": ("rejected", True),
    "Blocked": ("rejected", True),
    "DMARCPolicy": ("rejected", True),
    "SMTPApiError": ("failed", True),
    "TemplateRenderingFailed": ("failed", True),
    "Subscribe": ("other", None),
    "AutoResponder": ("other", None),
    "AddressChange": ("other", None),
    "ChallengeVerification": ("other", None),
    "OpenRelayTest": ("other", None),
    "InboundError": ("other", None),
}
_CAUSES: dict[str, SuppressionCause] = {
    "HardBounce": "bounce",
    "SpamComplaint": "complaint",
    "ManualSuppression": "unsubscribe",
}
_TIMES = ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt")
# Another id would be a queue's, which no event has.
_QUEUED = re.compile(r"\bqueued as <?([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b", re.IGNORECASE | re.ASCII)


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """One event a request, behind basic authentication."""
    refused = check_password(posted, terms, _SWITCH)
    if refused is not None:
        return refused
    events = events_of(read_json(posted.body))
    return unreadable("Postmark") if events is None else Accepted(tuple(_event(one) for one in events))


def _event(posted: object) -> EspEvent:
    record = _record(posted)
    kind, permanent = _RECORDS.get(record, "other"), None
    form = _name(dig(posted, "Type"))
    if kind in ("bounced", "complained"):
        kind, permanent = _BOUNCES.get(form, (kind, None))
    details = reason(dig(posted, "Details"), dig(posted, "Description"), dig(posted, "SuppressionReason"))

    identity = identifier(dig(posted, "ID"))
    message = identifier(dig(posted, "MessageID"))
    status = status_in(details)
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(posted, "Email")) or address(dig(posted, "Recipient")),
        at=first(moment(dig(posted, name)) for name in _TIMES),
        permanent=permanent,
        reason=details,
        status=status,
        suppress=_cause(posted, record, kind, form, bounce_cause(permanent, status, details)),
        relay_id=relay_id_in(dig(posted, "Metadata")),
        esp_id=message.lower() if message else None,
    )
    return identified(event, f"{record}:{identity}" if identity else None, record, dig(posted, "OriginalLink"))


def _name(value: object) -> str:
    """A name of Postmark's, or nothing."""
    return value if isinstance(value, str) else ""


def _record(posted: object) -> str:
    """The event's record type. The first webhooks had none, but a time that only one of them has."""
    record = _name(dig(posted, "RecordType"))
    if not record and isinstance(posted, dict):
        record = "Bounce" if "BouncedAt" in posted else "Delivery" if "DeliveredAt" in posted else ""
    return record


def _cause(
    posted: object, record: str, kind: EspKind, form: str, bounce: SuppressionCause | None
) -> SuppressionCause | None:
    if record == "SubscriptionChange":
        suppressed = truth(dig(posted, "SuppressSending"))
        return _CAUSES.get(_name(dig(posted, "SuppressionReason"))) if suppressed else None
    if kind == "unsubscribed":
        return "unsubscribe"
    if kind == "complained":
        # A filter's notification is no complaint of a person; Postmark then goes on sending to the address.
        return "complaint" if form != "SpamNotification" or truth(dig(posted, "Inactive")) else None
    return bounce if form == "HardBounce" else None


def correlate(relay_id: str, present: Sequence[Field]) -> Field | None:
    """A metadata field of its own. Postmark refuses mail with more than ten of them."""
    own = {field.name[len(_PREFIX) :].lower() for field in present if field.name.lower().startswith(_PREFIX)}
    key = free_key(own)
    if key is None or len(own) >= _MAX_FIELDS or len(relay_id) > _MAX_VALUE or not is_plain(relay_id):
        return None
    return Field(_HEADER if key == KEY else f"X-PM-Metadata-{key}", relay_id)


def esp_id(reply: str) -> str | None:
    """What `250 2.0.0 Ok: queued as ID` names."""
    return found[1].lower() if (found := _QUEUED.search(reply)) is not None else None


def _preset(host: str) -> Preset:
    keys = {
        "host": host,
        "port": 587,
        "tls": "starttls",
        "recipients": 50,
        # Its support page "Do we have rate limits for SMTP?" asks for at most 10 connections from one address.
        "sessions": {"max": 10},
        "unsigned_headers": ("message-id",),
    }
    return Preset(
        keys,
        username_is_password=True,
        other_ports=((2525, "starttls"), (25, "starttls")),
        facts=Facts(
            reply_id="queued as UUID",
            limits=("10 connections from one address", "50 recipients a message", "10 MB a message"),
            notes=(
                "The password is the server token, which is the user name, too.",
                "It accepts all mail by SMTP; what is wrong with a message comes as a bounce event.",
            ),
        ),
        unverified=("reply_id",),
    )


PROVIDER = Provider(
    name="postmark",
    presets={
        "postmark": _preset("smtp.postmarkapp.com"),
        "postmark-broadcasts": _preset("smtp-broadcasts.postmarkapp.com"),
    },
    correlation_header=_HEADER,
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="postmark",
)
