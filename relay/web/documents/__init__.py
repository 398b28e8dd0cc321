"""The types of what the HTTP API reads and answers. Handlers name them in their signatures only: nothing imports them
while the relay runs. `openapi.json` is made from them, with their docstrings; docs/reference.md tells the same in
prose."""

from __future__ import annotations

from relay.web.documents.asked import (
    AddressParameter,
    Erase,
    EventFilters,
    InPath,
    Letter,
    MessageFilters,
    QueueAction,
    ReportParameters,
    SendHeaders,
    SendParameters,
    SuppressionFilters,
    WantedSuppression,
    WantedSuppressions,
)
from relay.web.documents.mail import (
    Acted,
    Changed,
    Erased,
    ListedMessage,
    MailEvent,
    Message,
    Queue,
    QueueCount,
    Sent,
    Suppression,
    WaitingMessage,
)
from relay.web.documents.relay import (
    Access,
    Configuration,
    ConfiguredUpstream,
    Error,
    Healthy,
    IntakeLoad,
    LaneQueue,
    LastReload,
    LimitHits,
    Live,
    LiveLane,
    Pace,
    QueueFill,
    Readiness,
    SendError,
    Upstream,
    UpstreamInLane,
)
from relay.web.documents.report import (
    Report,
)

__all__ = [
    "Access", "Acted", "AddressParameter", "Changed", "Configuration", "ConfiguredUpstream", "Erase", "Erased",
    "Error", "EventFilters", "Healthy", "InPath", "IntakeLoad", "LaneQueue", "LastReload", "Letter",
    "LimitHits", "ListedMessage", "Live", "LiveLane", "MailEvent", "Message", "MessageFilters", "Pace", "Queue",
    "QueueAction", "QueueCount", "QueueFill", "Readiness", "Report", "ReportParameters", "SendError",
    "SendHeaders", "SendParameters", "Sent", "Suppression", "SuppressionFilters", "Upstream", "UpstreamInLane",
    "WaitingMessage", "WantedSuppression", "WantedSuppressions",
]  # fmt: skip
