"""Amazon SES, one SMTP endpoint a region.

It rewrites Message-ID, Date and Return-Path, and keeps a signature that doesn't cover them. It closes a session after
about 10 s of silence, so one is retired before that.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from relay.providers.base import Facts, Preset, Provider
from relay.providers.metadata import can_fold, free_key, is_plain, of_name
from relay.providers.reading import UNREADABLE, identifier, read_json
from relay.providers.ses_events import ses_events
from relay.providers.sns import confirm_url, is_notification, is_subscription, open_envelope
from relay.providers.webhook import Accepted, Field, NeedsCertificate, Posted, Refused, Terms, Verdict

_REGION = re.compile(r"ses-([a-z]{2}(?:-[a-z]+){1,3}-[0-9])")
_KEYS = {
    "port": 465,
    "tls": "implicit",
    "recipients": 50,
    # Seen in transcripts: `451 4.4.2 Timeout waiting for data from client` after about 10 s.
    "sessions": {"idle": "8s"},
    "unsigned_headers": ("message-id", "date", "return-path"),
}
_HEADER = "X-SES-MESSAGE-TAGS"
_MAX_TAGS = 5_000
_TAG_VALUE = re.compile(r"[A-Za-z0-9_-]{1,256}")
_ACCEPTED = re.compile(r"\bOk:? <?([0-9a-z][\w-]{15,99})", re.IGNORECASE | re.ASCII)
_USERNAME = "the SMTP user name of that region (AKIA...)"
_OTHER_PORTS = ((587, "starttls"), (2587, "starttls"), (2465, "implicit"), (25, "starttls"))
_FACTS = Facts(
    reply_id="Ok ID: mail.messageId of its events",
    limits=("50 recipients a message", "40 MB a message", "a rate and a daily quota of the account"),
    region="the host's",
    notes=("User name and password are SMTP credentials of that region, not an access key.",),
)
_UNVERIFIED = ("sessions.idle",)


def _regional(name: str) -> Preset | None:
    """`ses-eu-west-1` and the like."""
    region = _REGION.fullmatch(name)
    if region is None:
        return None
    return Preset(
        {"host": f"email-smtp.{region[1]}.amazonaws.com", **_KEYS},
        {"username": _USERNAME},
        other_ports=_OTHER_PORTS,
        facts=replace(_FACTS, region=region[1]),
        unverified=_UNVERIFIED,
    )


def webhook(posted: Posted, terms: Terms) -> Verdict:
    """A message of Amazon SNS: the events of one mail, or a subscription to confirm."""
    envelope = open_envelope(posted, terms)
    if isinstance(envelope, Refused | NeedsCertificate):
        return envelope
    if is_subscription(envelope):
        url = confirm_url(envelope)
        if url is None:
            return Refused(401, "the URL that confirms the subscription isn't one of Amazon SNS")
        return Accepted(confirm_url=url)
    if not is_notification(envelope):
        return Accepted()
    message = read_json(envelope["Message"])
    if message is UNREADABLE or not isinstance(message, dict):
        # Such as "Successfully validated SNS topic for Amazon SES event publishing."
        return Accepted()
    return Accepted(ses_events(message, identifier(envelope["MessageId"])))


def correlate(relay_id: str, present: Sequence[Field]) -> Field | None:
    """One more message tag behind the app's own."""
    values = of_name(present, _HEADER)
    own = values[0].strip().rstrip(",") if values else ""
    key = free_key(tag.partition("=")[0] for tag in own.split(","))
    value = ", ".join(part for part in (own, f"{key}={relay_id}") if part)
    if len(values) > 1 or key is None or _TAG_VALUE.fullmatch(relay_id) is None:
        return None
    return Field(_HEADER, value) if is_plain(value) and len(value) <= _MAX_TAGS and can_fold(value) else None


def esp_id(reply: str) -> str | None:
    """What `250 Ok ID` names."""
    return found[1] if (found := _ACCEPTED.search(reply)) is not None else None


PROVIDER = Provider(
    name="ses",
    presets={
        "ses": Preset(
            _KEYS,
            {
                "host": "email-smtp.REGION.amazonaws.com, or name the region in the preset, as in ses-eu-west-1",
                "username": _USERNAME,
            },
            other_ports=_OTHER_PORTS,
            facts=_FACTS,
            unverified=_UNVERIFIED,
        )
    },
    account_errors=(r"not (?:yet )?verified",),  # 554 Message rejected: Email address is not verified
    correlation_header=_HEADER,
    correlate=correlate,
    esp_id=esp_id,
    webhook=webhook,
    preset_by_name=_regional,
    api="ses",
)
