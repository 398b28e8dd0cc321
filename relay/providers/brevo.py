"""Brevo."""

from __future__ import annotations

import re
from collections.abc import Sequence

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import can_fold, free_key, is_plain, json_field, of_name, put_into, relay_id_in
from relay.providers.outcome import bounce_cause, identified, status_in
from relay.providers.proof import check_password
from relay.providers.reading import (
    address,
    dig,
    events_of,
    first,
    message_id,
    read_json,
    reason,
    seconds,
    unreadable,
)
from relay.providers.webhook import Accepted, EspEvent, EspKind, Field, Posted, SuppressionCause, Terms, Verdict

_HEADER = "X-Mailin-custom"
_SWITCH = "add a token or basic authentication to the webhook in Brevo (Transactional, Settings, Webhook)"
# Without underscores: the names of events in requests and in the API differ in them, `hard_bounce` and `hardBounce`.
_KINDS: dict[str, tuple[EspKind, bool | None]] = {
    "request": ("processed", None),
    "requests": ("processed", None),
    "sent": ("processed", None),
    "delivered": ("delivered", None),
    "deferred": ("deferred", False),
    "softbounce": ("bounced", False),
    "hardbounce": ("bounced", True),
    "invalidemail": ("bounced", True),
    "invalid": ("bounced", True),
    "blocked": ("rejected", True),
    "error": ("failed", True),
    "spam": ("complained", None),
    "complaint": ("complained", None),
    "unsubscribe": ("unsubscribed", None),
    "unsubscribed": ("unsubscribed", None),
    "opened": ("opened", None),
    "uniqueopened": ("opened", None),
    "firstopening": ("opened", None),
    "proxyopen": ("opened", None),
    "uniqueproxyopen": ("opened", None),
    "loadedbyproxy": ("opened", None),
    "click": ("clicked", None),
    "clicked": ("clicked", None),
}
_CAUSES: dict[EspKind, SuppressionCause] = {"complained": "complaint", "unsubscribed": "unsubscribe"}
_QUEUED = re.compile(r"\bqueued as (<?[^\s<>]{1,190}@[^\s<>]{1,190}>?)", re.IGNORECASE)
_MAX_VALUE = 2_000


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """One event a request, or a list of them where batches are on, behind a token or a password."""
    refused = check_password(posted, terms, _SWITCH)
    if refused is not None:
        return refused
    events = events_of(read_json(posted.body))
    return unreadable("Brevo") if events is None else Accepted(tuple(_event(one) for one in events))


def _event(posted: object) -> EspEvent:
    name = dig(posted, "event")
    name = name[:40].lower().replace("_", "") if isinstance(name, str) else ""
    kind, permanent = _KINDS.get(name, ("other", None))
    text = reason(dig(posted, "reason"))
    status = status_in(text)
    original = message_id(dig(posted, "message-id"))
    event = EspEvent(
        kind=kind,
        key="",
        recipient=address(dig(posted, "email")),
        # `date` is in the account's time zone.
        at=first(seconds(dig(posted, key)) for key in ("ts_epoch", "ts_event", "ts")),
        permanent=permanent,
        reason=text,
        status=status,
        suppress=bounce_cause(permanent, status, text) if kind == "bounced" else _CAUSES.get(kind),
        relay_id=_relay_id(dig(posted, _HEADER)),
        esp_id=original,
        message_id=original,
    )
    return identified(event, None, name, dig(posted, "link"))


def _relay_id(custom: object) -> str | None:
    """The relay's id out of JSON, or out of `name:value|name:value`."""
    if (found := relay_id_in(custom)) is not None or not isinstance(custom, str):
        return found
    pairs = [pair.partition(":") for pair in custom[: 2 * _MAX_VALUE].split("|")]
    return relay_id_in({name.strip(): value.strip() for name, _, value in pairs})


_in_json = json_field(_HEADER, put_into, _MAX_VALUE)


def correlate(relay_id: str, present: Sequence[Field]) -> Field | None:
    """One more `name:value` behind the app's own, or a key in its JSON."""
    values = of_name(present, _HEADER)
    own = values[0].strip() if values else ""
    if own.startswith("{"):
        return _in_json(relay_id, present)
    key = free_key(pair.partition(":")[0] for pair in own.split("|"))
    value = "|".join(part for part in (own, f"{key}:{relay_id}") if part)
    if len(values) > 1 or key is None or not is_plain(value) or len(value) > _MAX_VALUE or not can_fold(value):
        return None
    return Field(_HEADER, value)


def esp_id(reply: str) -> str | None:
    """The Message-ID that `250 2.0.0 OK: queued as <Message-ID>` names, with angle brackets."""
    return message_id(found[1]) if (found := _QUEUED.search(reply)) is not None else None


PROVIDER = Provider(
    name="brevo",
    presets={
        "brevo": Preset(
            {"host": "smtp-relay.brevo.com", "port": 465, "tls": "implicit"},
            {"username": "the account's SMTP login"},
            other_ports=((587, "starttls"), (2525, "starttls")),
            facts=Facts(
                reply_id="queued as <Message-ID>: ours",
                limits=("20 MB a message",),
                notes=("The password is an SMTP key, which is no API key.",),
            ),
            unverified=("reply_id", "limits"),
        )
    },
    account_errors=(r"unauthorized ip",),  # 525 5.7.1 Unauthorized IP address
    correlation_header=_HEADER,
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    api="brevo",
)
