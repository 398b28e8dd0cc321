"""A provider's webhook as values: what is posted, what proves it, what it says.

The functions of `Webhook` are pure. The proof is checked over the raw bytes, in constant time, before the body is
parsed; where the proof stands inside of the body (SNS, Mailgun, Mandrill) only that part is read first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, Protocol

EspKind = Literal[
    "processed",
    "delivered",
    "deferred",
    "bounced",
    "rejected",
    "failed",
    "complained",
    "unsubscribed",
    "opened",
    "clicked",
    "other",
]
"""What an event says of one recipient. `other`: of no use to the relay, or of a kind that it doesn't know."""
SuppressionCause = Literal["bounce", "complaint", "unsubscribe"]


class Posted(NamedTuple):
    """A request to `POST /webhooks/NAME`."""

    headers: Mapping[str, str]
    """names in lower case"""
    body: bytes


class Terms(NamedTuple):
    """What the configuration says of a webhook, and what the caller has at hand."""

    now: float
    """seconds since the epoch"""
    secrets: tuple[str, ...] = ()
    """one, or two while one is being replaced; any may prove a request"""
    topics: tuple[str, ...] = ()
    """SES: the ARNs of the SNS topics that are believed"""
    url: str | None = None
    """Mandrill: the webhook's URL as written there"""
    certificates: Mapping[str, bytes] = {}
    """SES: PEM certificates by the URL that they stand at"""


class EspEvent(NamedTuple):
    """One thing that happened to one recipient, as an ESP says it."""

    kind: EspKind
    key: str
    """the same for the same event, however often it is posted; at most 200 characters"""
    recipient: str | None = None
    at: float | None = None
    """seconds since the epoch; None: the event doesn't say when"""
    permanent: bool | None = None
    """of bounced, rejected, failed: whether another try is useless; None: not known"""
    reason: str | None = None
    """the ESP's words or the remote server's reply: one line, at most 500 characters, not redacted"""
    status: str | None = None
    """enhanced status code (RFC 3463), such as 5.1.1"""
    suppress: SuppressionCause | None = None
    """why this address should not be mailed again; None: the event gives no cause"""
    relay_id: str | None = None
    """the relay's own id of the message, where the ESP's metadata carried it"""
    esp_id: str | None = None
    """the ESP's id of the message, in the form in which `Provider.esp_id` finds it in the reply to the final dot"""
    message_id: str | None = None
    """the Message-ID of the mail that the relay handed over, with angle brackets"""


class Accepted(NamedTuple):
    """The proof is right, and the body was read."""

    events: tuple[EspEvent, ...] = ()
    token: str | None = None
    """Mailgun: vouches for these events only; another body with the same token is a forgery"""
    confirm_url: str | None = None
    """SES: confirms the subscription of a listed topic when it is fetched; its host was checked"""


class Refused(NamedTuple):
    """The request is not believed (401) or can't be read (400). Nothing of it is kept."""

    status: Literal[400, 401]
    why: str
    """one sentence for the log, with what to change at the ESP; it quotes nothing of the request"""


class NeedsCertificate(NamedTuple):
    """SES: ask again with the certificate at this URL in `Terms.certificates`. Its host and path were checked."""

    url: str


Verdict = Accepted | Refused | NeedsCertificate


class Webhook(Protocol):
    """How one ESP's webhook proves itself, and what its body means."""

    def __call__(self, posted: Posted, terms: Terms) -> Verdict:
        """Check the proof, then read the events. Never raises."""


class Field(NamedTuple):
    """A header field of the message, to be set or replaced at one provider."""

    name: str
    value: str
    """unfolded"""


class Correlate(Protocol):
    """How the relay's id travels with a message, so that it comes back in its delivery events."""

    def __call__(self, relay_id: str, present: Sequence[Field], /) -> Field | None:
        """The field to set, with the app's own values kept. None: the app's field leaves no room for it, or can't be
        read; then nothing is changed.

        `present`: the message's header fields; those that it doesn't use are ignored. The value is ASCII and may be
        folded at its spaces; no more than 900 characters stand between two.
        """
