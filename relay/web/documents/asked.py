"""What a request brings: parameters, header fields and bodies. A handler refuses what isn't here."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from relay.config.event_kinds import EventKind
from relay.policy.requests import MOST_KEY_CHARS
from relay.policy.suppression import Cause
from relay.store.model import Action, State
from relay.store.suppressions import MOST_REASON_CHARS
from relay.web.documents.values import keywords
from relay.web.letter import MAX_ATTACHMENTS, MAX_FILENAME_CHARS, MAX_HEADERS
from relay.web.query import DEFAULT_LIMIT, MAX_LIMIT, MAX_TEXT
from relay.web.suppression_query import MAX_AT_ONCE

Filter = Annotated[str, keywords(minLength=1, maxLength=MAX_TEXT)]
Limit = Annotated[int, keywords(minimum=1, maximum=MAX_LIMIT, default=DEFAULT_LIMIT)]
Since = Annotated[str, keywords(examples=("24h", "2026-01-31T12:00:00Z"))]
Until = Annotated[str, keywords(examples=("1h", "2026-01-31T12:00:00Z"))]
Duration = Annotated[str, keywords(examples=("30d",))]


class InPath(TypedDict):
    """The parts of paths that stand for something."""

    id: str
    """of a message; of one that is sent in parts any part's"""
    action: Action
    upstream: str
    """its name in the configuration"""


# `from` and `for` are no names in Python.
_Sender = TypedDict("_Sender", {"from": NotRequired[Annotated[Filter, "the sender: as `to`"]]})
_From = TypedDict("_From", {"from": Annotated[str, "From and envelope sender: an address, also with a name"]})
_For = TypedDict("_For", {"for": NotRequired[Annotated[Duration | None, "how long it counts; null: until removed"]]})


class MessageFilters(_Sender, total=False):
    """All that are given must hold."""

    q: Filter
    """a part of an address, a subject or a Message-ID, or the begin of an id"""
    to: Filter
    """a recipient: an address, a part of one, or a pattern with `*` and `?`"""
    subject: Filter
    """a part of it, or a pattern"""
    message_id: Filter
    """a part of the Message-ID, or a pattern"""
    id: Filter
    """the id, or its begin"""
    lane: Filter
    state: State
    """of a recipient"""
    failed: Literal["0", "1", "false", "true"]
    """`1`: only messages with a recipient that bounced, expired, is suppressed or ambiguous"""
    since: Since
    """accepted at or after this time, or so long ago at most"""
    until: Until
    """accepted before this time, or so long ago at least"""
    limit: Limit
    """an answer ends after 1,000"""


class EventFilters(TypedDict, total=False):
    """All that are given must hold."""

    to: Filter
    """the recipient's address"""
    kind: EventKind
    lane: Filter
    since: Since
    """happened since this time, or so long ago at most; then the first events are listed, else the newest"""
    limit: Limit
    """an answer ends after 1,000"""


class ReportParameters(TypedDict, total=False):
    """What the report is about."""

    since: Annotated[Since, keywords(default="24h")]
    """accepted since this time, or so long ago at most"""


class SuppressionFilters(TypedDict, total=False):
    """All that are given must hold."""

    address: str
    """an address, or a hash as a listing shows it"""
    cause: Cause
    limit: Limit
    """an answer ends after 1,000"""
    after: str
    """begin behind this entry: take it from the header `Link` of the page before"""


class AddressParameter(TypedDict):
    """Which address is meant."""

    address: str
    """an address, or a hash as a listing shows it"""


class SelectIds(TypedDict):
    """These messages."""

    ids: Annotated[list[Annotated[str, keywords(minLength=1)]], keywords(minItems=1)]
    ambiguous: NotRequired[bool]
    """only for `retry`, which is about ambiguous recipients here anyway"""


class SelectLane(TypedDict):
    """All messages of a lane."""

    lane: Annotated[str, keywords(minLength=1)]
    ambiguous: NotRequired[bool]
    """only for `retry`: also recipients that may have been delivered already"""


class SelectAll(TypedDict):
    """All messages."""

    all: Literal[True]
    ambiguous: NotRequired[bool]
    """only for `retry`: also recipients that may have been delivered already"""


QueueAction = SelectIds | SelectLane | SelectAll


class WantedSuppression(_For):
    """An address that must not be mailed from now on."""

    address: str
    """one address, no pattern"""
    reason: NotRequired[Annotated[str | None, keywords(maxLength=MOST_REASON_CHARS)]]
    """one line"""
    until: NotRequired[str | None]
    """a time to come; in the place of `for`"""
    cause: NotRequired[Cause | None]
    """null: `manual`"""


WantedSuppressions = Annotated[list[WantedSuppression], keywords(minItems=1, maxItems=MAX_AT_ONCE)]


class Erase(TypedDict):
    """The address to forget."""

    address: str


class LetterAttachment(TypedDict):
    """A file."""

    filename: Annotated[str, keywords(minLength=1, maxLength=MAX_FILENAME_CHARS)]
    content: Annotated[str, keywords(contentEncoding="base64")]
    content_type: NotRequired[str | None]
    """default: `application/octet-stream`; never `multipart/*` or `message/*`"""


class Letter(_From):
    """A message to send. `text`, `html` or both are there."""

    to: str | Annotated[list[str], keywords(minItems=1)]
    """To and the envelope's recipients: addresses, also with names"""
    subject: NotRequired[str | None]
    text: NotRequired[str | None]
    html: NotRequired[str | None]
    headers: NotRequired[Annotated[dict[str, str], keywords(maxProperties=MAX_HEADERS)] | None]
    """further header fields"""
    attachments: NotRequired[Annotated[list[LetterAttachment], keywords(maxItems=MAX_ATTACHMENTS)] | None]
    lane: NotRequired[str | None]
    """the lane; null: the rules choose it"""


_Envelope = TypedDict(
    "_Envelope", {"from": NotRequired[Annotated[str, "the envelope's sender; empty: the null sender"]]}
)


class SendParameters(_Envelope, total=False):
    """The envelope of a message in `message/rfc822`. `from` and `to` are required there; JSON has no parameters."""

    to: list[str]
    """the envelope's recipients"""
    lane: str
    """the lane; without it the rules choose it"""


SendHeaders = TypedDict(
    "SendHeaders",
    {
        "Idempotency-Key": Annotated[
            str,
            "The same request with the same key gets the same answer for 24 hours, and sends nothing.",
            keywords(minLength=1, maxLength=MOST_KEY_CHARS),
        ],
        "X-Relay-Client": Annotated[str, "The app's end user, for limits by client."],
    },
    total=False,
)
"""What may stand beside a message."""
