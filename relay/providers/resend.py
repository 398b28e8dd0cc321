"""Resend. Its events don't say which recipient they are about, so a transaction has one recipient."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import is_plain, relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.proof import check_svix
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
    read_json,
    reason,
    unreadable,
)
from relay.providers.webhook import Accepted, EspEvent, EspKind, Field, Posted, SuppressionCause, Terms, Verdict

_HEADER = "X-Otp-Relay-Id"  # its events have the message's own header fields
_SWITCH = "webhook.secret is the signing secret (whsec_...) of the webhook in Resend (Webhooks)"
_KINDS: dict[str, EspKind] = {
    "email.sent": "processed",
    "email.scheduled": "processed",
    "email.delivered": "delivered",
    "email.delivery_delayed": "deferred",
    "email.bounced": "bounced",
    "email.suppressed": "rejected",
    "email.failed": "failed",
    "email.complained": "complained",
    "email.opened": "opened",
    "email.clicked": "clicked",
}
_PERMANENT = {"permanent": True, "transient": False}
_SUPPRESSED = ("suppressed", "onaccountsuppressionlist")
_DETAILS = ("bounce", "suppressed", "failed", "delivery_delayed", "complaint")
_UUID = re.compile(r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b", re.IGNORECASE)


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """One event a request, signed by Svix."""
    refused = check_svix(posted, terms, _SWITCH)
    if refused is not None:
        return refused
    body = read_json(posted.body)
    if not isinstance(body, dict):
        return unreadable("Resend")
    to = dig(body, "data", "to")
    recipients = [to] if isinstance(to, str) else list(items(to))[:MAX_EVENTS]
    identity = identifier(posted.headers.get("svix-id", posted.headers.get("webhook-id")))
    event = _event(body)
    if len(recipients) > 1:
        # Which of them it is about isn't known, so none is suppressed for it, or counts as bounced for good.
        event = event._replace(suppress=None, permanent=None)
    each = [event._replace(recipient=first_address(one)) for one in recipients or [None]]
    return Accepted(tuple(identified(one, identity) for one in each))


def _event(body: dict[str, object]) -> EspEvent:
    name, data = dig(body, "type"), dig(body, "data")
    kind = _KINDS.get(name, "other") if isinstance(name, str) else "other"
    detail = next((value for part in _DETAILS if isinstance(value := dig(data, part), dict)), None)
    text = reason(dig(detail, "reason"), *_diagnostics(detail), dig(detail, "message"))
    status = status_in(*_diagnostics(detail), text)
    permanent: bool | None = {"deferred": False, "rejected": True, "failed": True}.get(kind)
    cause: SuppressionCause | None = "complaint" if kind == "complained" else None
    if kind == "bounced" and _is_suppressed(detail):
        kind, permanent = "rejected", True
    elif kind == "bounced":
        permanent = _PERMANENT.get(_lower(dig(detail, "type")))
        cause = bounce_cause(permanent, status, text)
    headers = dig(data, "headers")
    message = identifier(dig(data, "email_id"))
    return EspEvent(
        kind=kind,
        key="",
        at=moment(dig(body, "created_at")),
        permanent=permanent,
        reason=text,
        status=status,
        suppress=cause,
        relay_id=_relay_id(headers) or relay_id_in(dig(data, "tags")),
        esp_id=message.lower() if message else None,
        message_id=message_id(header(headers, "message-id")) or _original(message_id(dig(data, "message_id"))),
    )


def _original(identity: str | None) -> str | None:
    """The Message-ID, unless it is the one that Amazon SES, behind Resend, wrote over ours."""
    return None if identity is None or identity.endswith("amazonses.com>") else identity


def _diagnostics(detail: object) -> list[object]:
    value = dig(detail, "diagnosticCode")
    return [value] if isinstance(value, str) else list(items(value))[:10]


def _lower(value: object) -> str:
    return value.lower() if isinstance(value, str) else ""


def _is_suppressed(detail: object) -> bool:
    """Whether Resend never tried, since the address is on its list. Before 2024 only the sentence says so."""
    return _lower(dig(detail, "subType")) in _SUPPRESSED or "suppressed sending" in _lower(dig(detail, "message"))


def _relay_id(headers: object) -> str | None:
    """The relay's own header field; `X-Relay-Id` is how others name it."""
    own = first(identifier(header(headers, name)) for name in (_HEADER.lower(), "x-relay-id"))
    return own or relay_id_in(headers)


def correlate(relay_id: str, _present: Sequence[Field]) -> Field | None:
    """A header field of the relay's own, which Resend gives back. An app's value of it means nothing."""
    return Field(_HEADER, relay_id) if is_plain(relay_id) else None


def esp_id(reply: str) -> str | None:
    """The UUID in the reply, if it has one: Resend doesn't document it."""
    return found[0].lower() if (found := _UUID.search(reply)) is not None else None


PROVIDER = Provider(
    name="resend",
    presets={
        "resend": Preset(
            {
                "host": "smtp.resend.com",
                "port": 465,
                "tls": "implicit",
                "username": "resend",
                "recipients": 1,
                "rate": "5/s",  # "Usage Limits": requests of a team
            },
            other_ports=((587, "starttls"), (2465, "implicit"), (2587, "starttls"), (25, "starttls")),
            facts=Facts(
                reply_id="a UUID, where the reply has one",
                limits=(
                    "5 requests a second a team, more on request",
                    "50 recipients a message: the relay sends to one, since no event names its recipient",
                    "40 MB a message",
                ),
                region="the domain's",
                notes=("The rate is published for the API; whether mail by SMTP counts isn't said.",),
            ),
            unverified=("reply_id",),
        )
    },
    correlation_header=_HEADER,
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="resend",
)
