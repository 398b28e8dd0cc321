"""SparkPost. It allows 10 connections, of 100 messages each."""

from __future__ import annotations

import re

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import json_field, put_into, relay_id_in
from relay.providers.outcome import bounce_cause, identified, is_permanent_reply, status_in
from relay.providers.proof import check_password
from relay.providers.reading import address, dig, events_of, identifier, moment, read_json, reason, unreadable
from relay.providers.webhook import Accepted, EspEvent, EspKind, Posted, SuppressionCause, Terms, Verdict

_SWITCH = "choose basic or OAuth 2.0 authentication for the webhook in SparkPost (Configuration, Webhooks)"
_KINDS: dict[str, EspKind] = {
    "injection": "processed",
    "delivery": "delivered",
    "delay": "deferred",
    "bounce": "bounced",
    "out_of_band": "bounced",
    "policy_rejection": "rejected",
    "generation_rejection": "rejected",
    "generation_failure": "failed",
    "spam_complaint": "complained",
    "list_unsubscribe": "unsubscribed",
    "link_unsubscribe": "unsubscribed",
    "open": "opened",
    "initial_open": "opened",
    "amp_open": "opened",
    "amp_initial_open": "opened",
    "click": "clicked",
    "amp_click": "clicked",
}
_NO_COMPLAINTS = ("not-spam", "auth-failure", "dmarc")
"""feedback types (RFC 5965, 6591) that don't say that a person complained"""
_HARD = (10, 30)  # "Bounce Classification Codes": invalid recipient, no recipient
_BLOCKED_OR_SOFT = (20, 21, 22, 23, 24, 25, 40, 50, 51, 52, 53, 54, 70)
_UNSUBSCRIBED, _NO_BOUNCE = 90, (60, 80, 100)  # auto-reply, subscribe, challenge
_Judgement = tuple[EspKind, bool | None, SuppressionCause | None]
_MAX_FIELD = 20_000
_ID = re.compile(r"(?<![\w-])\d{15,20}(?![\w-])", re.ASCII)


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """A list of events behind a password or an OAuth 2.0 token."""
    refused = check_password(posted, terms, _SWITCH)
    if refused is not None:
        return refused
    events = events_of(read_json(posted.body))
    return unreadable("SparkPost") if events is None else Accepted(tuple(_event(_unwrap(one)) for one in events))


def _unwrap(posted: object) -> object:
    """The event inside of `{"msys": {class: event}}`. None: a ping, which has none."""
    wrapped = dig(posted, "msys")
    return next(iter(wrapped.values()), None) if isinstance(wrapped, dict) else None


def _event(posted: object) -> EspEvent:
    name = dig(posted, "type")
    name = name if isinstance(name, str) else ""
    kind = _KINDS.get(name, "other")
    text = reason(dig(posted, "raw_reason"), dig(posted, "reason"))
    status = status_in(text)
    permanent: bool | None = {"deferred": False, "rejected": True, "failed": True}.get(kind)
    cause: SuppressionCause | None = None
    if kind == "bounced":
        kind, permanent, cause = _bounce(posted, text, status)
    elif kind == "complained":
        feedback = dig(posted, "fbtype")
        if feedback in _NO_COMPLAINTS:
            kind = "other"
        else:
            kind, cause = ("unsubscribed", "unsubscribe") if feedback == "opt-out" else (kind, "complaint")
    elif kind == "unsubscribed":
        cause = "unsubscribe"
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(posted, "rcpt_to")) or address(dig(posted, "raw_rcpt_to")),
        at=moment(dig(posted, "timestamp")),
        permanent=permanent,
        reason=text,
        status=status,
        suppress=cause,
        relay_id=relay_id_in(dig(posted, "rcpt_meta")) or relay_id_in(dig(posted, "metadata")),
        esp_id=identifier(dig(posted, "transmission_id")),
    )
    return identified(event, identifier(dig(posted, "event_id")), name, dig(posted, "target_link_url"))


def _bounce(posted: object, text: str | None, status: str | None) -> _Judgement:
    """A bounce by its class: blocked mail may go another time, and mail to a missing mailbox can't."""
    number = identifier(dig(posted, "bounce_class")) or ""
    code = int(number) if number.isascii() and number.isdigit() and len(number) <= 3 else None
    if code in _NO_BOUNCE:
        return "other", None, None
    if code == _UNSUBSCRIBED:
        return "unsubscribed", None, "unsubscribe"
    if code in _HARD:
        return "bounced", True, bounce_cause(True, status, text)
    if code in _BLOCKED_OR_SOFT:
        return "bounced", False, None
    permanent = is_permanent_reply(text)
    # Class 1, or none: SparkPost could make nothing of the reply. A status that names the mailbox counts.
    known = status is not None and status.startswith("5.1.")
    return "bounced", permanent, bounce_cause(permanent, status, text) if known else None


correlate = json_field("X-MSYS-API", lambda known, relay_id: put_into(known, relay_id, "metadata"), _MAX_FIELD)


def esp_id(reply: str) -> str | None:
    """The transmission's id, where the reply has it: an answer of the HTTP API does."""
    return found[0] if (found := _ID.search(reply)) is not None else None


def _preset(host: str, region: str, api_url: str | None = None) -> Preset:
    return Preset(
        {
            "host": host,
            "port": 587,
            "tls": "starttls",
            "username": "SMTP_Injection",
            # "SMTP and REST API Injection Best Practices"
            "sessions": {"max": 10, "messages": 100},
        },
        other_ports=((2525, "starttls"),),
        facts=Facts(
            reply_id="a number of 15 to 20 digits, where the reply has one",
            limits=("10 connections", "100 messages a connection", "20 MB a message"),
            region=region,
            notes=("The password is an API key that may send by SMTP.",),
        ),
        unverified=("reply_id",),
        api_url=api_url,
    )


PROVIDER = Provider(
    name="sparkpost",
    presets={
        "sparkpost": _preset("smtp.sparkpostmail.com", "US"),
        "sparkpost-eu": _preset("smtp.eu.sparkpostmail.com", "EU", "https://api.eu.sparkpost.com"),
    },
    correlation_header="X-MSYS-API",
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="sparkpost",
)
