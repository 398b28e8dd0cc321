"""Mailjet."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import is_plain, of_name, relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.proof import check_password
from relay.providers.reading import address, dig, events_of, identifier, moment, read_json, reason, truth, unreadable
from relay.providers.webhook import Accepted, EspEvent, EspKind, Field, Posted, SuppressionCause, Terms, Verdict

_HEADER = "X-MJ-CustomID"
_SWITCH = "write user:password@ into the URL in Mailjet (Account settings, Event notifications)"
_KINDS: dict[str, EspKind] = {
    "sent": "delivered",  # "successfully delivered to the recipient's server"
    "open": "opened",
    "click": "clicked",
    "bounce": "bounced",
    "blocked": "rejected",
    "spam": "complained",
    "unsub": "unsubscribed",
}
_CAUSES: dict[EspKind, SuppressionCause] = {"complained": "complaint", "unsubscribed": "unsubscribe"}
_ULID = re.compile(r"[0-9A-HJKMNP-TV-Z]{26}", re.IGNORECASE | re.ASCII)
_ID = re.compile(r"\b(?:[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|\d{15,20})\b", re.IGNORECASE | re.ASCII)


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """One event a request, or a list where events are grouped, behind basic authentication."""
    refused = check_password(posted, terms, _SWITCH)
    if refused is not None:
        return refused
    events = events_of(read_json(posted.body))
    return unreadable("Mailjet") if events is None else Accepted(tuple(_event(one) for one in events))


def _event(posted: object) -> EspEvent:
    name = dig(posted, "event")
    name = name if isinstance(name, str) else ""
    kind, cause = _KINDS.get(name, "other"), None
    comment, error = reason(dig(posted, "comment")), reason(dig(posted, "error"))
    error = f"{error}: {comment}" if error and comment else error or comment
    text = reason(error, dig(posted, "smtp_reply"), dig(posted, "source"))
    status = status_in(comment, text)
    permanent: bool | None = True if kind == "rejected" else None
    if kind == "bounced":
        permanent = truth(dig(posted, "hard_bounce"))
        if dig(posted, "error") == "greylisted" and not permanent:
            kind, permanent = "deferred", False
        elif dig(posted, "error_related_to") in ("recipient", "", None) or dig(posted, "error") == "invalid domain":
            # The others are domain, content, spam, system, mailjet: no fault of the mailbox.
            cause = bounce_cause(permanent, status, text)
    # The reply to the final dot has the UUID; numbers are those of the HTTP API.
    message = identifier(dig(posted, "Message_GUID")) or identifier(dig(posted, "MessageID"))
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(posted, "email")),
        at=moment(dig(posted, "time")),
        permanent=permanent,
        reason=text,
        status=status,
        suppress=cause or _CAUSES.get(kind),
        relay_id=relay_id_in(dig(posted, "Payload")) or _own(dig(posted, "CustomID")),
        esp_id=message.lower() if message else None,
    )
    return identified(event, None, name, dig(posted, "MessageID"), dig(posted, "url"))


def _own(custom: object) -> str | None:
    """The custom id, if it is one of the relay's. An app's own would be the id of no message."""
    return custom if isinstance(custom, str) and _ULID.fullmatch(custom) else None


def correlate(relay_id: str, present: Sequence[Field]) -> Field | None:
    """The custom id, which has room for one value: an app's own stays."""
    taken = any(value.strip() for value in of_name(present, _HEADER))
    return Field(_HEADER, relay_id) if is_plain(relay_id) and not taken else None


def esp_id(reply: str) -> str | None:
    """What `250 OK queued as UUID` names, or a numeric id."""
    return found[0].lower() if (found := _ID.search(reply)) is not None else None


PROVIDER = Provider(
    name="mailjet",
    presets={
        "mailjet": Preset(
            {"host": "in-v3.mailjet.com", "port": 465, "tls": "implicit", "recipients": 50},
            {"username": "the API key (its secret is the password)"},
            other_ports=((587, "starttls"), (2525, "starttls"), (25, "starttls")),
            facts=Facts(
                reply_id="OK queued as UUID",
                limits=("50 recipients a message", "15 MB a message"),
            ),
            unverified=("reply_id",),
        )
    },
    correlation_header=_HEADER,
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="mailjet",
)
