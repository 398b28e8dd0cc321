"""What Amazon SES says through SNS: event publishing and identity notifications, which differ in one key only.

Sources: "Contents of event data that Amazon SES publishes to Amazon SNS", "Amazon SNS notification contents".
"""

from __future__ import annotations

from typing import NamedTuple

from relay.providers.metadata import relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.reading import (
    MAX_EVENTS,
    dig,
    first,
    first_address,
    header,
    identifier,
    items,
    message_id,
    moment,
    reason,
)
from relay.providers.webhook import EspEvent, EspKind, SuppressionCause

_KINDS: dict[str, EspKind] = {
    "Send": "processed",
    "Delivery": "delivered",
    "DeliveryDelay": "deferred",
    "Bounce": "bounced",
    "Reject": "rejected",
    "Rendering Failure": "failed",
    "RenderingFailure": "failed",
    "Complaint": "complained",
    "Open": "opened",
    "Click": "clicked",
    "Subscription": "other",
}
_PARTS = {
    "Send": "send",
    "Delivery": "delivery",
    "DeliveryDelay": "deliveryDelay",
    "Bounce": "bounce",
    "Reject": "reject",
    "Rendering Failure": "failure",
    "RenderingFailure": "failure",
    "Complaint": "complaint",
    "Open": "open",
    "Click": "click",
    "Subscription": "subscription",
}
_LISTS = {
    "Bounce": "bouncedRecipients",
    "Complaint": "complainedRecipients",
    "Delivery": "recipients",
    "DeliveryDelay": "delayedRecipients",
}
"""where the part lists the recipients that it is about; the message's other recipients aren't meant"""
_REASONS = ("smtpResponse", "reason", "errorMessage", "complaintFeedbackType", "delayType")
_WHOLE_MESSAGE = ("Send", "Reject", "Rendering Failure", "RenderingFailure")
_SUPPRESSED = ("Suppressed", "OnAccountSuppressionList", "UnsubscribedRecipient")
"""subtypes: SES didn't try, since the address is on a list"""
_NO_COMPLAINTS = ("not-spam", "auth-failure")
"""feedback types (RFC 5965, 6591) that don't say that a person complained"""


class _Recipient(NamedTuple):
    address: str | None
    status: str | None = None
    diagnostic: str | None = None


def ses_events(message: object, identity: str | None) -> tuple[EspEvent, ...]:
    """The events of the message in an SNS notification: one for each recipient that it is about."""
    name = dig(message, "eventType") or dig(message, "notificationType")
    name = name if isinstance(name, str) else ""
    part, mail = dig(message, _PARTS.get(name, "")), dig(message, "mail")
    kind, permanent, cause = _judge(name, part)
    originals = (dig(mail, "commonHeaders", "messageId"), header(dig(mail, "headers"), "message-id"))
    common = EspEvent(
        kind=kind,
        key="",
        at=moment(dig(part, "timestamp")) or moment(dig(mail, "timestamp")),
        permanent=permanent,
        suppress=cause,
        relay_id=_relay_id(mail),
        esp_id=identifier(dig(mail, "messageId")),
        message_id=first(message_id(one) for one in originals),
    )
    words = reason(*(dig(part, key) for key in _REASONS), _bounce_type(part))
    events = []
    for recipient in _recipients(name, part, mail):
        address, status, diagnostic = recipient
        event = common._replace(recipient=address, reason=diagnostic or words, status=status)
        if kind == "bounced":
            event = event._replace(suppress=bounce_cause(permanent, status, event.reason))
        events.append(identified(event, identity, name))
    return tuple(events)


def _judge(name: str, part: object) -> tuple[EspKind, bool | None, SuppressionCause | None]:
    """Kind, permanence and suppression, as far as they are the same for all recipients."""
    kind = _KINDS.get(name, "other")
    if name == "Bounce":
        if dig(part, "bounceSubType") in _SUPPRESSED:
            return "rejected", True, None
        form = dig(part, "bounceType")
        return kind, form == "Permanent" if form in ("Permanent", "Transient") else None, None
    if name == "Complaint":
        if dig(part, "complaintSubType") in _SUPPRESSED:
            return "rejected", True, None
        if dig(part, "complaintFeedbackType") in _NO_COMPLAINTS:
            return "other", None, None
        return kind, None, "complaint"
    if name == "Subscription" and dig(part, "newTopicPreferences", "unsubscribeAll") is True:
        return "unsubscribed", None, "unsubscribe"
    return kind, {"deferred": False, "rejected": True, "failed": True}.get(kind), None


def _bounce_type(part: object) -> str | None:
    form, subtype = dig(part, "bounceType"), dig(part, "bounceSubType")
    return f"{form[:50]}: {subtype[:50]}" if isinstance(form, str) and isinstance(subtype, str) else None


def _recipients(name: str, part: object, mail: object) -> list[_Recipient]:
    """Those that the event is about, at least one: with no address where SES doesn't say which."""
    known: list[_Recipient] = []
    if name in _LISTS:
        for one in list(items(dig(part, _LISTS[name])))[:MAX_EVENTS]:
            diagnostic = reason(dig(one, "diagnosticCode"))
            status = status_in(dig(one, "status"), diagnostic, dig(part, "smtpResponse"))
            address = first_address(dig(one, "emailAddress") if isinstance(one, dict) else one)
            known.append(_Recipient(address, status, diagnostic))
    else:
        addresses = [first_address(one) for one in list(items(dig(mail, "destination")))[:MAX_EVENTS]]
        # An open or a click doesn't say whose it is.
        if name in _WHOLE_MESSAGE or len(addresses) == 1:
            known = [_Recipient(address) for address in addresses]
    return known or [_Recipient(None)]


def _relay_id(mail: object) -> str | None:
    """The relay's id out of the message tags; identity notifications have only the message's own fields."""
    if (found := relay_id_in(dig(mail, "tags"))) is not None:
        return found
    tags = header(dig(mail, "headers"), "x-ses-message-tags")
    pairs = [one.partition("=") for one in (tags or "")[:2_000].split(",")]
    return relay_id_in({name.strip(): value.strip() for name, _, value in pairs})
