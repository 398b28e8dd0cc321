"""The state of the relay, its lanes and upstreams, and errors, as the API answers them."""

from __future__ import annotations

from typing import Literal, NotRequired, TypedDict

from relay.delivery.fastest import End
from relay.observe.bands import Band
from relay.observe.recent import Failure
from relay.policy.limits import Action as LimitAction
from relay.policy.limits import LimitName
from relay.store.model import State
from relay.web.backend import UpstreamState
from relay.web.documents.values import Count, Milliseconds, Time
from relay.web.sender import ErrorCode


class Healthy(TypedDict):
    """The process works."""

    healthy: Literal[True]


class QueueFill(TypedDict):
    """Size of the queue beside its limits; null: no limit."""

    messages: Count
    """not finished, in all store files"""
    max_messages: int | None
    bytes: Count
    """of their contents"""
    max_bytes: int | None
    free_bytes: Count
    """on the store's disk"""
    min_free_bytes: Count


class IntakeLoad(TypedDict):
    """Load of the SMTP intake."""

    slowed: bool
    """apps are made to wait"""
    sessions: Count
    storing: Count
    """messages between final dot and reply"""
    waiting: Count
    """of these, the messages that wait for their turn"""
    behind_ms: Milliseconds
    """time until large contents are read again"""


class WarmSessions(TypedDict):
    """How many sessions an express lane is to keep open at an upstream, and why."""

    sessions: Count
    reason: str


class MailboxPace(TypedDict):
    """How fast an upstream has been for one mailbox provider."""

    provider: str
    to: End
    """which event or reply ended the time"""
    p95_ms: Milliseconds
    samples: Count


class UpstreamInLane(TypedDict):
    """State of an upstream, seen from one lane."""

    state: UpstreamState
    sessions: dict[str, Count]
    """open ones by what they do"""
    warm: NotRequired[WarmSessions]
    p95: NotRequired[list[MailboxPace]]
    """in a lane with `prefer: fastest`"""
    window: NotRequired[Count]
    """how many messages it may get at once now"""
    reason: NotRequired[str]
    """why it isn't up"""
    words: NotRequired[str]
    """its last reply; never in `/readyz`, which anyone may read"""


class ReadyLane(TypedDict):
    """A lane's upstreams by name, in order of preference."""

    upstreams: dict[str, UpstreamInLane]


class Readiness(TypedDict):
    """Whether mail can be taken, and the state of lanes and upstreams."""

    ready: bool
    reasons: list[str]
    """why no mail can be taken"""
    queue: QueueFill
    intake: IntakeLoad
    lanes: dict[str, ReadyLane]


class Pace(TypedDict):
    """Delivery times of a lane."""

    sent: Count
    failed: Count
    """recipients that bounced or expired"""
    ended: dict[Failure, Count]
    """the failed ones, by how they ended"""
    p50_ms: Milliseconds | None
    p95_ms: Milliseconds | None
    max_ms: Milliseconds | None
    bands: dict[Band, Count]
    """of sent and failed recipients"""
    latest_ms: list[Milliseconds]
    """single delivery times, newest last"""


class LaneQueue(TypedDict):
    """What waits in a lane."""

    queue: dict[State, Count]
    """unfinished recipients by state"""
    oldest_ms: Milliseconds | None
    """age of the oldest of them"""


class LiveLane(Pace, LaneQueue):
    """A lane in the last minutes."""

    express: bool
    can_send: bool
    """some upstream of it takes mail"""
    upstreams: dict[str, UpstreamInLane]


class Live(TypedDict):
    """What the console shows of the relay."""

    now: Time
    version: str
    started_at: Time
    uptime_ms: Milliseconds
    window_ms: Milliseconds
    """the time that the figures of a lane are about"""
    reasons: list[str]
    """why no mail can be taken"""
    lanes: dict[str, LiveLane]


class ConfiguredUpstream(TypedDict):
    """What the configuration says of an upstream."""

    preset: str | None
    via: str
    """`smtp`, `api` or `auto`"""
    host: str | None
    port: int | None
    webhook: bool
    """it has one"""


class Upstream(ConfiguredUpstream):
    """An upstream, as it is configured and as it is now."""

    name: str
    up: bool
    """each of its lanes sends to it"""
    lanes: dict[str, UpstreamInLane]
    replies: dict[str, Count]
    """by code, since the start"""


class LimitHits(TypedDict):
    """How often a limit of a lane was exceeded since the start."""

    lane: str
    limit: LimitName
    action: LimitAction
    """what became of the mail"""
    count: Count


class LastReload(TypedDict):
    """How the last reload ended."""

    at: Time
    ok: bool
    """the whole file is in force"""
    reason: str | None


class Configuration(TypedDict):
    """The configuration in force."""

    path: str
    loaded_at: Time
    last_reload: LastReload | None
    yaml: str
    """without secrets"""


class Access(TypedDict):
    """What this client may do."""

    access: Literal["full", "read"]


class Error(TypedDict):
    """Why a request was refused."""

    error: str


class SendFailure(TypedDict):
    """Why no message was taken."""

    code: ErrorCode
    message: str
    """a sentence, which names the field that it is about"""


class SendError(TypedDict):
    """An error of `/api/send`."""

    error: SendFailure
