"""Messages, events, the queue and suppressions, as the API answers them."""

from __future__ import annotations

from typing import Annotated, Literal, NotRequired, TypedDict

from relay.config.event_kinds import EventKind
from relay.mail.outcome import Outcome, SessionKind, Via
from relay.policy.suppression import Cause
from relay.store.events import Source
from relay.store.model import State
from relay.web.documents.relay import QueueFill
from relay.web.documents.values import Count, Milliseconds, Time, keywords


class MailEvent(TypedDict):
    """Something that happened to a recipient, as the relay or an ESP says it."""

    id: str
    """the same wherever and whenever it is read"""
    at: Time
    kind: EventKind
    source: Source
    message: str
    """the relay's id of the message"""
    message_id: str
    """the Message-ID"""
    recipient: str
    """the address, or a hash in its place"""
    lane: str
    upstream: str | None
    permanent: bool | None
    """of a failure: whether another try is useless; null: not known, or no failure"""
    reason: str | None
    """one line, redacted: a reply, or the ESP's reason"""
    after_ms: Milliseconds
    """from the app's final dot"""


class Attempt(TypedDict):
    """One try at handing a recipient's mail to one upstream."""

    n: Annotated[int, keywords(minimum=1)]
    """its number"""
    upstream: str
    started_at: Time
    via: Via
    session: SessionKind
    """`warm`: kept open; `none`: no session could be had"""
    outcome: Outcome
    reply: str
    """the upstream's, or the relay's own, which has `otp-relay:` behind its codes"""
    timings_ms: dict[str, Milliseconds]
    """by phase; together they are the attempt's duration"""


class Recipient(TypedDict):
    """A recipient of a message."""

    address: str
    """or a hash in its place"""
    provider: str
    """the mailbox provider, or the domain"""
    state: State
    upstream: str | None
    reply: str | None
    """the last reply: the upstream's, or the relay's own"""
    sent_at: Time | None
    delivered_at: Time | None
    """time of the ESP's delivered event"""
    part: NotRequired[str]
    """the id of the part that this recipient is in; only of a message that is sent in parts"""
    lane: NotRequired[str]
    """that of its part"""
    rule: NotRequired[str | None]
    """that of its part"""
    expires_at: NotRequired[Time]
    """that of its part"""


class WaitingRecipient(Recipient):
    """A recipient of a message in the queue."""

    next_at: Time | None
    """when it is due again; null: it is being sent, waits for an operator, or is finished"""
    attempts: Count


class LoggedRecipient(Recipient):
    """A recipient with its time line."""

    attempts: list[Attempt]
    next_at: NotRequired[Time]
    """when it is due again"""
    events: list[MailEvent]
    """oldest first"""
    verdict: str
    """what became of it, in words"""


class Note(TypedDict):
    """What happened besides the attempts, such as an operator's action."""

    at: Time
    text: str


class MessageFacts(TypedDict):
    """What is known of a message as a whole. Of one that is sent in parts: what is known of its first id's part."""

    id: str
    lane: str
    rule: str | None
    """null: no rule matched, it took the default lane"""
    sender: str
    """of the envelope; empty: the null sender"""
    client: str
    """the app's address; `unix`; `local` for mail of the relay's own"""
    message_id: str
    subject: str
    """codes in it are masked"""
    size: Count
    """bytes"""
    accepted_at: Time
    expires_at: Time
    signed: list[str]
    """selectors of the DKIM keys that signed"""
    content: Literal["otp", "other"] | None
    """what the detector saw; null: no rule asked"""
    trace: str | None
    """trace id of the app's `traceparent` field"""
    priority: int | None
    """value of MT-PRIORITY"""
    deliver_by: str | None
    """value of DELIVERBY, as `60;R`"""
    timings_ms: dict[str, Milliseconds]
    """by phase; `total` is from the app's final dot to the upstream's reply to the relay's own"""
    hint: str | None
    """what to change in the app, where it took long to hand the message over"""
    notes: list[Note]


class ListedMessage(MessageFacts):
    """A message in a listing."""

    recipients: list[Recipient]


class WaitingMessage(MessageFacts):
    """A message in the queue."""

    recipients: list[WaitingRecipient]


class Message(MessageFacts):
    """A message with its time line."""

    verdict: str
    """what became of it, in words"""
    recipients: list[LoggedRecipient]
    """in the order of the envelope"""


class QueueCount(TypedDict):
    """Recipients of one lane in one state."""

    lane: str
    state: State
    recipients: Count
    oldest_ms: Milliseconds | None
    """age of the oldest"""


class Queue(TypedDict):
    """The queue: its size, its counts, and what waits in it."""

    fill: QueueFill
    lanes: list[QueueCount]
    messages: list[WaitingMessage]
    """those due first come first"""


class Changed(TypedDict):
    """What a request changed."""

    changed: list[str]
    """addresses"""


class Acted(TypedDict):
    """What an action on the queue changed."""

    changed: list[str]
    """ids of messages"""
    unknown: NotRequired[list[str]]
    """those of the given ids that no message has; only where ids are given"""
    left: NotRequired[Count]
    """ambiguous recipients that a retry passed over"""


class Suppression(TypedDict):
    """An address that must not be mailed, for one cause."""

    address: str
    """or `h:` and 16 hexadecimal digits, where it isn't kept"""
    cause: Cause
    reason: str
    upstream: str | None
    """whose reply or event was the cause"""
    at: Time
    until: Time | None
    """null: until it is removed"""


class Erased(TypedDict):
    """How much had the address, by kind."""

    erased: dict[str, Count]


class Sent(TypedDict):
    """The message is on stable storage, as after SMTP's 250."""

    id: str
    """by which `/api/messages/{id}` finds it"""
